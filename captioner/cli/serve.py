"""`captioner serve`: caption and search images over HTTP."""

import argparse
from pathlib import Path

from ..devices import RuntimeOptions
from ..options import add_options, from_arguments
from ..serving.schemas import Limits
from ..serving.server import ServeOptions, ThumbnailOptions, serve

EXAMPLE = """captioner serve checkpoints/RUN --port 8080
captioner serve --index photos.index
captioner serve checkpoints/RUN --index photos.index --index captions.index"""
NOTE = "With an index, the first page searches; a captioner is optional."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = f"{parser.prog} [RUN...] [--index DIR...] [option...]"
    parser.add_argument(
        "runs",
        nargs="*",
        type=Path,
        metavar="RUN",
        help="captioner, or the moved checkpoint of an index",
    )
    parser.add_argument(
        "--index",
        action="append",
        type=Path,
        default=[],
        metavar="DIR",
        help="index to search; may be repeated",
    )
    add_options(parser, ServeOptions, "serving")
    add_options(parser, Limits, "limits")
    add_options(parser, ThumbnailOptions, "thumbnails")
    add_options(parser, RuntimeOptions, "runtime")


def run(arguments: argparse.Namespace) -> None:
    serve(
        arguments.runs,
        from_arguments(ServeOptions, arguments),
        from_arguments(Limits, arguments),
        from_arguments(RuntimeOptions, arguments),
        arguments.index,
        from_arguments(ThumbnailOptions, arguments),
    )
