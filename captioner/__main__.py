"""The `captioner` command and its subcommands."""

import argparse
import sys
from collections.abc import Collection, Sequence
from functools import partial
from importlib import import_module
from textwrap import fill, indent

from ._version import __version__
from .command_line import Parser
from .console import add_verbosity, verbosity
from .errors import run_command

COMMANDS = {
    "train": "train a model",
    "evaluate": "evaluate a checkpoint on a split, or score a caption file",
    "compare": "compare text vectors by training an image search with each",
    "caption": "print a caption for each image",
    "encode": "write embeddings of images or texts as a .npy file",
    "index": "embed images or texts for search",
    "search": "find images or texts that match a query",
    "label": "score words as labels of images",
    "localize": "draw heatmaps of words over an image",
    "relate": "print how an image and a text relate",
    "report": "evaluate a captioning model and write an HTML report",
    "serve": "caption and search images over HTTP and in the browser",
    "info": "describe a checkpoint",
    "export": "export a captioning model as ONNX or torch.export programs",
    "project": "plot images and sentences in two dimensions",
    "data": "describe a data set and list its problems",
    "cache": "list and prune the stored features of frozen encoders",
    "demo-data": "write the demo data set as a COCO directory",
    "completion": "print a shell completion script",
}


def parser(
    complete: Collection[str] = COMMANDS, words: Sequence[str] = ()
) -> argparse.ArgumentParser:
    """Build the parser of all commands; import only the modules of the commands in `complete`.

    words: the arguments after the command, which determine the flags of train.
    """
    formatter = partial(argparse.RawDescriptionHelpFormatter, max_help_position=28)
    main = Parser(
        prog="captioner",
        description="Train, evaluate and use models that caption images or link images and texts.",
        epilog="captioner COMMAND --help shows the options of a command.",
        formatter_class=formatter,
    )
    main.add_argument("-V", "--version", action="version", version=__version__)
    add_verbosity(main)
    commands = main.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",  # capitalize() would lowercase ONNX
            add_help=False,
            formatter_class=formatter,
        )
        command.add_argument("-h", "--help", action="help", help=argparse.SUPPRESS)
        add_verbosity(command, shown=False)
        if name in complete:
            module = import_module(f".cli.{name.replace('-', '_')}", __package__)
            if name == "train":
                module.add_arguments(command, words)
            else:
                module.add_arguments(command)
            if note := getattr(module, "NOTE", None):
                command.description = f"{command.description}\n{fill(note, 79)}"
            command.epilog = "examples:\n" + indent(module.EXAMPLE, "  ")
            command.set_defaults(execute=module.run, parser=parser)  # "run" is a flag of train
    return main


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command; raise InputError for user errors."""
    words = sys.argv[1:] if argv is None else argv
    # Only the requested command is imported.
    arguments = parser(words[:1], words[1:]).parse_args(words)
    arguments.words = words[1:]
    with verbosity(arguments):
        arguments.execute(arguments)


def command() -> None:
    """Run `main` as the installed script, with the exit status of `run_command`."""
    run_command(main)


if __name__ == "__main__":
    command()
