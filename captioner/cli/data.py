"""`captioner data`: describe a data set and, if requested, convert it to JSONL."""

import argparse
from pathlib import Path

from ..data.convert import write_jsonl, write_relations
from ..data.inspection import describe_data
from ..data.readers import READERS, read_captions
from ..errors import InputError
from ..text.tokenizer import get_tokenizer

EXAMPLE = """captioner data flickr8k --convert jsonl flickr8k-jsonl
captioner data flickr8k --convert relations flickr8k-relations"""
WRITERS = {"jsonl": write_jsonl, "relations": write_relations}


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
        metavar=("LAYOUT", "OUT"),
        help="write rows without problems to directory OUT, with a link to the images: jsonl to "
        "captions.jsonl, relations (labelled texts made from captions) to relations.jsonl",
    )


def run(arguments: argparse.Namespace) -> None:
    convert = arguments.convert
    if convert and convert[0] not in WRITERS:
        raise InputError(
            f"--convert must be followed by jsonl or relations, and a directory, got {convert[0]!r}"
        )
    tokenizer = get_tokenizer(arguments.tokenizer)
    data = read_captions(arguments.path, arguments.format, on_error="skip")
    print(describe_data(data, tokenizer))
    if convert:
        print(f"written: {WRITERS[convert[0]](data, Path(convert[1]))}")
