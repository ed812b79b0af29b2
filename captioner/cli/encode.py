"""`captioner encode`: write the embeddings of images or texts."""

import argparse
from pathlib import Path

from ..inference.encode import EncodeOptions, encode_images, encode_texts
from ..options import add_options, from_arguments
from ..pretrained import JOINT
from . import add_linker, chosen

EXAMPLE = """captioner encode --images photos --output photos.npy
captioner encode --checkpoint RUN --texts 'a dog on a beach' captions.csv --output texts.npy"""
NOTE = "FILE.txt lists the path or text of each row of FILE.npy, one per line."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = (
        f"{parser.prog} --output FILE.npy\n"
        "                        (--images PATH... | --texts TEXT_OR_FILE...) [option...]"
    )
    add_linker(parser, JOINT, "run or checkpoint of a linking model")
    sources = parser.add_mutually_exclusive_group(required=True)
    sources.add_argument(
        "--images",
        nargs="+",
        metavar="PATH",
        help="files, directories, quoted globs, or - (paths on stdin)",
    )
    sources.add_argument(
        "--texts",
        nargs="+",
        metavar="TEXT_OR_FILE",
        help="texts, files of texts (lines, CSV, TSV, JSONL, COCO JSON), or - (lines of stdin)",
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE.npy", help="output .npy file"
    )
    add_options(parser, EncodeOptions, "encoding")


def run(arguments: argparse.Namespace) -> None:
    options = from_arguments(EncodeOptions, arguments)
    checkpoint, output = chosen(arguments.checkpoint, JOINT), arguments.output
    if arguments.images:
        encode_images(checkpoint, arguments.images, output, options)
    else:
        encode_texts(checkpoint, arguments.texts, output, options)
