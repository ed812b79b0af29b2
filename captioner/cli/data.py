"""`captioner data`: describe a data set and, if requested, convert it to JSONL."""

import argparse
from pathlib import Path

from ..data.convert import write_jsonl
from ..data.inspection import describe_data
from ..data.readers import READERS, read_captions
from ..errors import InputError
from ..text.tokenizer import get_tokenizer

EXAMPLE = "captioner data flickr8k --convert jsonl flickr8k-jsonl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, metavar="PATH", help="data directory or file")
    parser.add_argument(
        "--format",
        choices=tuple(READERS),
        metavar="STR",
        help="layout of the data [detected]",
    )
    parser.add_argument(
        "--tokenizer",
        default="words",
        metavar="STR",
        help="tokenizer: words, characters (for scripts without spaces) or module:function "
        "[%(default)s]",
    )
    parser.add_argument(
        "--convert",
        nargs=2,
        metavar=("jsonl", "OUT"),
        help="write captions.jsonl, without rows that have problems, and a link to the images to "
        "the directory OUT",
    )


def run(arguments: argparse.Namespace) -> None:
    convert = arguments.convert
    if convert and convert[0] != "jsonl":
        raise InputError(f"--convert must be followed by jsonl and a directory, got {convert[0]!r}")
    tokenizer = get_tokenizer(arguments.tokenizer)
    data = read_captions(arguments.path, arguments.format, on_error="skip")
    print(describe_data(data, tokenizer))
    if convert:
        print(f"written: {write_jsonl(data, Path(convert[1]))}")
