"""`captioner demo-data`: write the demo data set to a directory."""

import argparse
from pathlib import Path

from ..data.demo import dataset as demo
from ..data.demo.masks import write_masks
from ..errors import InputError

EXAMPLE = """captioner demo-data demo
captioner demo-data demo --masks demo-masks"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=Path, metavar="DIR", help="output directory")
    parser.add_argument(
        "--masks",
        type=Path,
        metavar="DIR",
        help="also write the val images and their masks to this directory, in Pascal VOC's layout",
    )


def run(arguments: argparse.Namespace) -> None:
    demo.write_demo(arguments.directory)
    print(f"demo data: {arguments.directory}")
    if arguments.masks is not None:
        if arguments.masks.exists():
            raise InputError(f"{arguments.masks} already exists; choose another --masks directory")
        write_masks(arguments.directory, "val", arguments.masks)
        print(f"masks: {arguments.masks}")
