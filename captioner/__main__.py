"""The `captioner` command: which commands there are; each has a module in cli/."""

import argparse
import sys
from collections.abc import Collection, Sequence
from functools import partial
from importlib import import_module
from textwrap import indent

from ._version import __version__
from .errors import run_command

COMMANDS = {
    "caption": "print a caption for each image",
    "report": "evaluate a model and write the report, a page",
    "serve": "caption images on a page and for other programs",
    "info": "print what a checkpoint is",
    "export": "write a model as programs for ONNX Runtime or torch.export",
    "data": "print what a data set holds, and what is wrong in it",
    "demo-data": "write the demo data set as a COCO directory",
    "completion": "print what completes this command in a shell",
}


def parser(complete: Collection[str] = COMMANDS) -> argparse.ArgumentParser:
    """Knows the arguments of the commands in `complete`, whose modules are loaded for that."""
    shaped = partial(argparse.RawDescriptionHelpFormatter, max_help_position=28)
    main = argparse.ArgumentParser(
        prog="captioner",
        description="Describe images with a trained model.",
        epilog="captioner COMMAND --help tells more.",
        formatter_class=shaped,
    )
    main.add_argument("-V", "--version", action="version", version=__version__)
    commands = main.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",  # ONNX stays ONNX
            add_help=False,
            formatter_class=shaped,
        )
        command.add_argument("-h", "--help", action="help", help=argparse.SUPPRESS)
        if name in complete:
            module = import_module(f".cli.{name.replace('-', '_')}", __package__)
            module.add_arguments(command)
            command.epilog = "examples:\n" + indent(module.EXAMPLE, "  ")
            command.set_defaults(run=module.run, parser=parser)
    return main


def main(argv: Sequence[str] | None = None) -> None:
    """Raises InputError for users' mistakes."""
    words = sys.argv[1:] if argv is None else argv
    arguments = parser(words[:1]).parse_args(words)  # only what is called is loaded
    arguments.run(arguments)


def command() -> None:
    """The entry point that installation puts on the path."""
    run_command(main)


if __name__ == "__main__":
    command()
