"""`captioner train` and train.py: train a captioning model."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields

from ..options import add_options
from ..training.config import GROUPS, SMALL_CNN_DEFAULTS, TrainConfig
from . import add_config

EXAMPLE = """captioner train --attention
captioner train --attention --data DIR --encoder mobilenet_v2 --encoder-weights FILE"""
DESCRIPTION = "Train a captioning model on the generated demo data or on --data."
NOTE = "Defaults with the encoder small_cnn: " + ", ".join(
    f"{name} {value}" for name, value in SMALL_CNN_DEFAULTS.items()
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of all groups; flags that are not given are None in the parsed arguments."""
    parser.usage = f"{parser.prog} [option...]"
    for title, group in GROUPS.items():
        add_options(parser, group, title)
    add_config(parser, "TOML file of options, or a run to repeat; flags override its options")


def read_config(arguments: argparse.Namespace) -> TrainConfig:
    """Build the config from the parsed flags; raise InputError for contradictory flags."""
    names = {field.name for group in GROUPS.values() for field in fields(group)}
    values = {name: getattr(arguments, name, None) for name in names}
    given = {name: value for name, value in values.items() if value is not None}
    if arguments.config is not None:
        return TrainConfig.from_file(arguments.config, **given)
    return TrainConfig.from_options(**given)


def run(arguments: argparse.Namespace) -> None:
    """Train; the command line's words are reused in the command suggested for a longer run."""
    config = read_config(arguments)
    from ..training.run import run_training

    run_training(config, arguments.words)


def parse(argv: Sequence[str] | None = None) -> TrainConfig:
    """Build the config from the command line of train.py."""
    return read_config(_parser().parse_args(argv))


def main(argv: Sequence[str] | None = None) -> None:
    """Run train.py; raise InputError for user errors."""
    words = sys.argv[1:] if argv is None else argv
    run(_parser().parse_args(words, argparse.Namespace(words=words)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=DESCRIPTION, epilog=f"{NOTE}.")
    add_arguments(parser)
    return parser
