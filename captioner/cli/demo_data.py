"""`captioner demo-data`: write the demo data set to a directory."""

import argparse
from pathlib import Path

from ..data.demo import dataset as demo

EXAMPLE = "captioner demo-data demo"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=Path, metavar="DIR", help="output directory")


def run(arguments: argparse.Namespace) -> None:
    demo.write_demo(arguments.directory)
    print(f"demo data: {arguments.directory}")
