"""`captioner train` and train.py: train a model."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill

from ..command_line import Parser
from ..console import add_verbosity, verbosity
from ..option_files import read_toml
from ..options import add_options, flag_of, option_names
from ..tasks.captioning.task import CAPTIONING
from ..tasks.systems import TASKS, task_named
from ..tasks.task import Task
from ..training.config import TrainConfig, defaults_of, option_groups
from ..training.stored_options import read_stored_task
from ..vision.options import SMALL_CNN
from . import add_config

EXAMPLE = """captioner train --attention
captioner train --attention --data DIR --encoder mobilenet_v2 --encoder-weights FILE"""
SYSTEMS = tuple(task.name for task in TASKS)


def add_arguments(parser: argparse.ArgumentParser, words: Sequence[str] = ()) -> None:
    """Add the flags of the task that --system or --config selects in the command line `words`.

    Flags that are not passed are None in the parsed arguments.
    """
    task = chosen_task(words)
    recipe = chosen_recipe(words, task)
    for word in words:
        if message := _foreign_flag(word.partition("=")[0], task):
            parser.error(message)
    parser.usage = f"{parser.prog} [--system SYSTEM] [option...]"
    parser.description = describe(task)
    parser.add_argument(
        "--system",
        choices=SYSTEMS,
        metavar="SYSTEM",
        help=f"system to train: {', '.join(SYSTEMS)} [captioning]",
    )
    for title, group in option_groups(task).items():
        add_options(parser, group, title, task.hidden, defaults_of(task, "", recipe))
    add_config(parser, "TOML file of options, or a run to repeat; flags override its options")


def _foreign_flag(flag: str, task: Task) -> str:
    """Return an error message if a flag exists only for other tasks; otherwise an empty string."""
    systems = [each.name for each in TASKS if flag in _flags(each)]
    if not systems or task.name in systems:
        return ""
    choices = " or ".join(systems)
    return f"{flag} has no effect with --system {task.name}; omit it, or use --system {choices}"


def _flags(task: Task) -> set[str]:
    names = {name for group in option_groups(task).values() for name in option_names(group)}
    return {flag_of(name) for name in names - task.hidden}


def describe(task: Task) -> str:
    """Return the description of the train command for a task."""
    text = f"--system {task.name}: {task.title}, trained on --data or on generated demo data."
    shared = defaults_of(task, "")
    small_cnn = {
        name: value
        for name, value in defaults_of(task, SMALL_CNN).items()
        if name not in shared or value != shared[name]
    }
    groups: dict[str, Mapping[str, object]] = {"--encoder small_cnn": small_cnn}
    groups |= {f"--recipe {name}": values for name, values in task.recipes.items()}
    for chosen, values in groups.items():
        flags = (_flag(name, value) for name, value in values.items())
        text += f" With {chosen}, the defaults are {' '.join(flags)}."
    return f"Train a model.\n{fill(text, 79, break_on_hyphens=False)}"


def _flag(name: str, value: object) -> str:
    """Return an option as it is written on the command line."""
    if isinstance(value, bool):
        return flag_of(name if value else f"no_{name}")
    return f"{flag_of(name)} {' '.join(value) if isinstance(value, tuple) else value}"


def chosen_task(words: Sequence[str]) -> Task:
    """Return the task that a command line selects; captioning for none or an unknown task."""
    scanner = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    scanner.add_argument("--system")
    scanner.add_argument("--config", type=Path)
    try:
        found, _ = scanner.parse_known_args(words)
    except argparse.ArgumentError:  # the complete parser reports it
        return CAPTIONING
    if found.system is None and found.config is not None:
        if found.config.suffix.lower() == ".toml":
            found.system = read_toml(found.config).get("system")
        else:
            found.system = read_stored_task(found.config)
    return task_named(found.system) if found.system in SYSTEMS else CAPTIONING


def chosen_recipe(words: Sequence[str], task: Task) -> str | None:
    """Return the recipe that --recipe selects; None if it is not passed or not one of the task."""
    scanner = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    scanner.add_argument("--recipe", type=str.lower)
    try:
        found, _ = scanner.parse_known_args(words)
    except argparse.ArgumentError:  # the complete parser reports it
        return None
    return found.recipe if found.recipe in task.recipes else None


def read_config(arguments: argparse.Namespace) -> TrainConfig:
    """Build the config from the parsed flags; raise InputError for contradictory flags."""
    groups = [group for task in TASKS for group in option_groups(task).values()]
    names = {"system", *(name for group in groups for name in option_names(group))}
    values = {name: getattr(arguments, name, None) for name in names}
    given = {name: value for name, value in values.items() if value is not None}
    if arguments.config is not None:
        return TrainConfig.from_file(arguments.config, **given)
    return TrainConfig.from_options(**given)


def run(arguments: argparse.Namespace) -> None:
    """Train a model; the command that is suggested for a longer run repeats `arguments.words`."""
    config = read_config(arguments)
    from ..training.run import run_training

    run_training(config, arguments.words)


def parse(argv: Sequence[str] | None = None) -> TrainConfig:
    """Build the config from the command line of train.py."""
    words = sys.argv[1:] if argv is None else argv
    return read_config(_parser(words).parse_args(words))


def main(argv: Sequence[str] | None = None) -> None:
    """Run train.py; raise InputError for user errors."""
    words = sys.argv[1:] if argv is None else argv
    arguments = _parser(words).parse_args(words, argparse.Namespace(words=words))
    with verbosity(arguments):
        run(arguments)


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    parser = Parser()
    add_verbosity(parser)
    add_arguments(parser, words)
    return parser
