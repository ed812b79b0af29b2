"""`captioner serve`: caption images, and search images and texts, over HTTP."""

import argparse
from dataclasses import fields
from pathlib import Path

from ..devices import RuntimeOptions
from ..options import add_options, from_named
from ..serving.schemas import Limits
from ..serving.server import ServeOptions, ThumbnailOptions, serve

EXAMPLE = """captioner serve checkpoints/RUN --port 8080
captioner serve --index photos.index
captioner serve checkpoints/RUN --index photos.index --index captions.index"""
GROUPS: dict[str, type] = {
    "serving": ServeOptions,
    "limits": Limits,
    "thumbnails": ThumbnailOptions,
    "runtime": RuntimeOptions,
}
NAMES = [field.name for group in GROUPS.values() for field in fields(group)]
NOTE = "With an index, the start page is the search page, and a captioner is optional."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = f"{parser.prog} [RUN...] [--index DIR...] [option...]"
    parser.add_argument(
        "runs",
        nargs="*",
        type=Path,
        metavar="RUN",
        help="captioner, relation or index's model [flickr8k]",
    )
    parser.add_argument(
        "--index",
        action="append",
        type=Path,
        default=[],
        metavar="DIR",
        help="index to search; may be repeated",
    )
    for title, group in GROUPS.items():
        add_options(parser, group, title)
    parser.set_defaults(**dict.fromkeys(NAMES, None))  # None: not passed


def run(arguments: argparse.Namespace) -> None:
    given = {
        name: tuple(value) if isinstance(value, list) else value
        for name in NAMES
        if (value := getattr(arguments, name)) is not None
    }
    serve(
        arguments.runs,
        from_named(ServeOptions, given),
        from_named(Limits, given),
        from_named(RuntimeOptions, given),
        arguments.index,
        from_named(ThumbnailOptions, given),
        given,
    )
