"""`captioner info`: describe a checkpoint."""

import argparse
import json
from pathlib import Path

from ..checkpoints import hub
from ..checkpoints.info import describe_info, read_info

EXAMPLE = """captioner info checkpoints/RUN
captioner info checkpoints/RUN/last --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="run or checkpoint")
    parser.add_argument("--json", action="store_true", help="print all information as JSON")


def run(arguments: argparse.Namespace) -> None:
    info = read_info(hub.local(arguments.checkpoint))
    print(json.dumps(info, indent=1) if arguments.json else describe_info(info))
