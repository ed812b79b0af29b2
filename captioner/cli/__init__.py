"""One module per command, with `add_arguments(parser)`, `run(arguments)` and EXAMPLE.

A module may have a NOTE, which is shown after the command's description in its help. These modules
parse options, call the modules that do the work, and print results. The scripts train.py and
evaluate.py call `train.main` and `evaluate.main`.
"""

import argparse
from pathlib import Path

from ..pretrained import default_model


def add_checkpoints(parser: argparse.ArgumentParser) -> None:
    """Add the positional argument of commands that take a checkpoint or an ensemble."""
    parser.add_argument(
        "checkpoint",
        nargs="+",
        type=Path,
        metavar="CHECKPOINT",
        help="run or checkpoint; several form an ensemble",
    )


def add_linker(parser: argparse.ArgumentParser, default: str, help: str) -> None:
    """Add --checkpoint of a linking model; default: a model that comes with the package."""
    parser.add_argument("--checkpoint", type=Path, metavar="RUN", help=f"{help} [{default}]")


def chosen(checkpoint: Path | None, default: str) -> Path:
    """Return a checkpoint, or the default if it is None, and then say which model is used."""
    return default_model(default) if checkpoint is None else checkpoint


def add_config(parser: argparse.ArgumentParser, help: str) -> None:
    """Add --config after all other flags, and make None the parsed value of flags not passed."""
    parser.add_argument("--config", type=Path, metavar="FILE", help=help)
    parser.set_defaults(**dict.fromkeys(vars(parser.parse_args([])), None))
