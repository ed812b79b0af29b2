"""`captioner index`: embed images or texts for search."""

import argparse
from pathlib import Path

from ..errors import InputError
from ..inference.indexing import IndexOptions
from ..options import add_options, from_named, option_names
from ..pretrained import JOINT
from . import add_linker, chosen

EXAMPLE = """captioner index photos
captioner index photos 'more/**/*.jpg' --checkpoint RUN --output photos.index
captioner index --texts --checkpoint RUN --output captions.index
captioner index --texts captions.csv DATA --checkpoint RUN --output captions.index"""
NOTE = (
    "Run the command again after images or texts have been added, changed or deleted; only those "
    "are updated. If the command is interrupted, run it again to continue."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = f"{parser.prog} (IMAGE... | --texts [SOURCE...]) [option...]"
    parser.add_argument(
        "images",
        nargs="*",
        metavar="IMAGE",
        help="file, directory, quoted glob, or - (paths on stdin)",
    )
    parser.add_argument(
        "--texts",
        nargs="*",
        metavar="SOURCE",
        help="index texts instead of images: caption files, data sets (train split only), or - "
        "(lines of stdin) [train split of the checkpoint's training data]",
    )
    add_linker(parser, JOINT, "run or checkpoint of a linking model")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="index to write or update [images.index or texts.index]",
    )
    add_options(parser, IndexOptions, "indexing")
    parser.set_defaults(**dict.fromkeys(option_names(IndexOptions)))


def run(arguments: argparse.Namespace) -> None:
    given = {name: getattr(arguments, name) for name in option_names(IndexOptions)}
    options = from_named(IndexOptions, {k: v for k, v in given.items() if v is not None})
    images, texts = arguments.images, arguments.texts
    if bool(images) == (texts is not None):
        raise InputError(
            "an index contains either images or texts; pass "
            + ("images or --texts" if texts is None else "images and --texts in separate commands")
        )
    if texts is not None and "workers" in options.given:
        raise InputError("--workers has no effect on texts; omit it")
    if texts and "cache" in options.given:
        raise InputError("--cache has no effect if --texts names sources; omit it")
    checkpoint = chosen(arguments.checkpoint, JOINT)
    output = arguments.output or Path("images.index" if texts is None else "texts.index")
    if texts is None:
        from ..inference.indexing import index_images

        index_images(checkpoint, images, output, options)
    else:
        from ..inference.text_indexing import index_texts

        index_texts(checkpoint, texts, output, options)
