"""One module per command, with `add_arguments(parser)`, `run(arguments)` and EXAMPLE.

These modules only parse options; the modules that they call do the work. `train` and `evaluate` are
called by train.py and evaluate.py.
"""

import argparse
from pathlib import Path


def add_checkpoints(parser: argparse.ArgumentParser) -> None:
    """Add the positional argument of commands that take a checkpoint or an ensemble."""
    parser.add_argument(
        "checkpoint",
        nargs="+",
        type=Path,
        metavar="CHECKPOINT",
        help="run or checkpoint; several form an ensemble",
    )
