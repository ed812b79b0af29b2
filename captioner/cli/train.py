"""Train a captioning model.

train.py calls this module.
"""

import argparse
import sys
from collections.abc import Sequence

from ..options import add_options
from ..training.config import GROUPS, SMALL_CNN_DEFAULTS, TrainConfig

EXAMPLE = """python train.py --attention
python train.py --attention --data DIR --encoder mobilenet_v2 --encoder-weights FILE"""
EPILOG = "Defaults with the encoder small_cnn: " + ", ".join(
    f"{name} {value}" for name, value in SMALL_CNN_DEFAULTS.items()
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of all groups; one that is not given is None in the parsed arguments."""
    for title, group in GROUPS.items():
        add_options(parser, group, title)
    parser.set_defaults(**dict.fromkeys(vars(parser.parse_args([])), None))


def read_config(arguments: argparse.Namespace) -> TrainConfig:
    """The config of the parsed flags; raises InputError for flags that contradict each other."""
    given = {name: value for name, value in vars(arguments).items() if value is not None}
    return TrainConfig.from_options(
        **{name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
    )


def run(arguments: argparse.Namespace, argv: Sequence[str] | None = None) -> None:
    """Train; argv: the command line, for the suggested commands at the end."""
    from ..training.run import run_training

    run_training(read_config(arguments), argv)


def parse(argv: Sequence[str] | None = None) -> TrainConfig:
    """The config of a command line of train.py."""
    return read_config(_parser().parse_args(argv))


def main(argv: Sequence[str] | None = None) -> None:
    """Run train.py; raises InputError for a user's mistake."""
    words = sys.argv[1:] if argv is None else argv
    run(_parser().parse_args(words), words)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Train a captioning model on the generated demo data or on --data.",
        epilog=f"{EPILOG}.",
    )
    add_arguments(parser)
    return parser
