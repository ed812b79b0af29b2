"""`captioner serve`: caption images over HTTP."""

import argparse

from ..devices import RuntimeOptions
from ..options import add_options, from_arguments
from ..serving.schemas import Limits
from ..serving.server import ServeOptions, serve
from . import add_checkpoints

EXAMPLE = "captioner serve checkpoints/RUN --port 8080"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = f"{parser.prog} CHECKPOINT... [option...]"
    add_checkpoints(parser)
    add_options(parser, ServeOptions, "serving")
    add_options(parser, Limits, "limits")
    add_options(parser, RuntimeOptions, "runtime")


def run(arguments: argparse.Namespace) -> None:
    serve(
        arguments.checkpoint,
        from_arguments(ServeOptions, arguments),
        from_arguments(Limits, arguments),
        from_arguments(RuntimeOptions, arguments),
    )
