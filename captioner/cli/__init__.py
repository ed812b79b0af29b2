"""One module per command, with `add_arguments(parser)`, `run(arguments)` and EXAMPLE.

What a command does lives in the modules that it calls. train and evaluate are called by train.py
and evaluate.py.
"""

import argparse
from pathlib import Path


def add_checkpoints(parser: argparse.ArgumentParser) -> None:
    """Add the positional arguments of a command that takes a checkpoint or an ensemble."""
    parser.add_argument(
        "checkpoint",
        nargs="+",
        type=Path,
        metavar="CHECKPOINT",
        help="run or checkpoint; several form an ensemble",
    )
