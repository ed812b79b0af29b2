"""A module for each command of `captioner`, with `add_arguments(parser)`, `run(arguments)` and an
EXAMPLE; what a command does lives in the modules it calls.
"""

import argparse
from pathlib import Path


def add_checkpoints(parser: argparse.ArgumentParser) -> None:
    """The positional argument of what takes one checkpoint or an ensemble."""
    parser.add_argument(
        "checkpoint",
        nargs="+",
        type=Path,
        metavar="CHECKPOINT",
        help="run or checkpoint; several caption together",
    )
