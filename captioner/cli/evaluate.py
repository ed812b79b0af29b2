"""`captioner evaluate` and evaluate.py: score a checkpoint or a caption file."""

import argparse
from collections.abc import Collection, Sequence
from dataclasses import fields
from typing import Any

from ..command_line import Parser
from ..console import add_verbosity, verbosity
from ..decoding.options import DecodingOptions
from ..devices import RuntimeOptions
from ..errors import InputError
from ..evaluation.options import EvaluationOptions, EvaluationRequest, ScoringOptions
from ..option_files import read_option_file
from ..options import add_options, flag_of, from_named
from ..retrieval.reranking import RerankOptions
from ..tasks.systems import EVALUATION_FLAGS, task_of_checkpoint
from . import add_config

EXAMPLE = """captioner evaluate --checkpoint checkpoints/RUN --split test
captioner evaluate --predictions captions.json --references references.json"""
NOTE = (
    "Without --output, a checkpoint's results are written to evaluation-SPLIT in its run, "
    "and the scores of a file are only printed. Several checkpoints, or one from the hub, require "
    "--output."
)
GROUPS: dict[str, type] = {
    "evaluation": EvaluationOptions,
    "runtime": RuntimeOptions,
    "scoring": ScoringOptions,
    "decoding": DecodingOptions,
    "re-ranking": RerankOptions,
}
FILE_FLAGS = {"references", "allow_missing", "training_captions"}  # require --predictions
SHARED_FLAGS = {
    "predictions",
    "metrics",
    "tokenizer",
    "bootstrap",
    "compare",
    "output",
}  # valid in both modes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of all groups; flags that are not passed are None in the parsed arguments."""
    parser.usage = f"{parser.prog} [option...]"
    for title, group in GROUPS.items():
        add_options(parser, group, title)
    add_config(parser, "TOML file of options; flags override them")
    parser.set_defaults(wrong_usage=parser.error)


def run(arguments: argparse.Namespace) -> None:
    """Evaluate checkpoints or a caption file; raise InputError for user errors."""
    given, request = read_options(arguments)
    if request.scoring.predictions is not None:
        from ..evaluation.evaluate import evaluate_file

        evaluate_file(request.evaluation, request.scoring)
        return
    from ..evaluation.inputs import load_checkpoints

    checkpoints = load_checkpoints(request.evaluation)
    task = task_of_checkpoint(checkpoints[0])
    if idle := given & EVALUATION_FLAGS - task.evaluation_flags:
        raise InputError(f"{flag_of(min(idle))} has no effect on a {task.name!r} model; omit it")
    task.evaluate(checkpoints, request)


def read_options(arguments: argparse.Namespace) -> tuple[set[str], EvaluationRequest]:
    """Return the names of the options that were passed or are in the config file, and all options.

    Raises InputError for an invalid option and for one that has no effect.
    """
    given = _given(arguments)
    if ("checkpoint" in given) == ("predictions" in given):
        arguments.wrong_usage(
            "pass either --checkpoint, for example checkpoints/demo-attention, or --predictions"
        )
    request = EvaluationRequest(
        from_named(EvaluationOptions, given),
        from_named(RuntimeOptions, given),
        from_named(ScoringOptions, given),
        from_named(DecodingOptions, given),
        from_named(RerankOptions, given),
    )
    check_combination(given, request.scoring)
    return set(given), request


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the options of --config, overridden by those on the command line."""
    names = {field.name for group in GROUPS.values() for field in fields(group)}
    values = {name: getattr(arguments, name, None) for name in names}
    flags = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in values.items()
        if value is not None
    }
    return flags if arguments.config is None else read_option_file(arguments.config, GROUPS, flags)


def check_combination(given: Collection[str], scoring: ScoringOptions) -> None:
    """Raise InputError if a flag in `given` has no effect, or if predictions lack references."""
    if scoring.predictions is None:
        idle, when = FILE_FLAGS & set(given), "without --predictions"
    else:
        if scoring.references is None:
            raise InputError(
                "--predictions cannot be scored without references; pass --references with their "
                "file"
            )
        idle, when = set(given) - FILE_FLAGS - SHARED_FLAGS, "with --predictions"
    if idle:
        raise InputError(f"{flag_of(min(idle))} has no effect {when}; omit it")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line of evaluate.py."""
    parser = Parser(
        description="Evaluate a checkpoint on a split, or score a caption file.",
        epilog=NOTE,
    )
    add_verbosity(parser)
    add_arguments(parser)
    arguments: argparse.Namespace = parser.parse_args(argv)
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Run evaluate.py; raise InputError for user errors."""
    arguments = parse(argv)
    with verbosity(arguments):
        run(arguments)
