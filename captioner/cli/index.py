"""`captioner index`: embed images for search."""

import argparse
from pathlib import Path

from ..inference.indexing import IndexOptions, index_images
from ..options import add_options, from_arguments

EXAMPLE = """captioner index photos --checkpoint RUN --output photos.index
captioner index photos 'more/**/*.jpg' --checkpoint RUN --output photos.index"""
NOTE = (
    "Run the command again after images have been added, changed or deleted; it updates only those "
    "images. If the command was interrupted, run it again to continue."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = f"{parser.prog} IMAGE... --checkpoint RUN --output DIR [option...]"
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="file, directory, quoted glob, or - for stdin",
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        metavar="RUN",
        help="run or checkpoint that links images and texts",
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="index to write or update"
    )
    add_options(parser, IndexOptions, "indexing")


def run(arguments: argparse.Namespace) -> None:
    options = from_arguments(IndexOptions, arguments)
    index_images(arguments.checkpoint, arguments.images, arguments.output, options)
