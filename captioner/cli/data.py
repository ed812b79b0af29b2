"""`captioner data`: what lies at a path, and the same as JSONL."""

import argparse
from pathlib import Path

from ..data.convert import write_jsonl
from ..data.inspection import describe_data
from ..data.readers import READERS, read_captions
from ..errors import InputError

EXAMPLE = "captioner data flickr8k --convert jsonl flickr8k-jsonl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, metavar="PATH", help="data directory or file")
    parser.add_argument(
        "--format", choices=tuple(READERS), metavar="STR", help="force the layout of the data"
    )
    parser.add_argument(
        "--convert",
        nargs=2,
        metavar=("jsonl", "OUT"),
        help="write it to OUT/captions.jsonl, without what is wrong",
    )


def run(arguments: argparse.Namespace) -> None:
    convert = arguments.convert
    if convert and convert[0] != "jsonl":
        raise InputError(f"--convert writes jsonl, got {convert[0]!r}")
    data = read_captions(arguments.path, arguments.format, on_error="skip")
    print(describe_data(data))
    if convert:
        print(f"written: {write_jsonl(data, Path(convert[1]))}")
