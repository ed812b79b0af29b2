"""`captioner completion`: what a shell needs to complete commands, options and paths."""

import argparse
from collections.abc import Iterator
from pathlib import Path

EXAMPLE = """captioner completion bash > ~/.local/share/bash-completion/completions/captioner
captioner completion zsh > ~/.zfunc/_captioner  # with ~/.zfunc in $fpath
captioner completion fish > ~/.config/fish/completions/captioner.fish"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shells = ("bash", "zsh", "fish")
    parser.add_argument("shell", choices=shells, metavar="SHELL", help=", ".join(shells))


def run(arguments: argparse.Namespace) -> None:
    import shtab

    whole = arguments.parser()  # of all commands, whose module lies above this one
    for action in _actions(whole):
        names_a_path = not action.option_strings and action.type is None and not action.choices
        if names_a_path or action.type is Path:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(whole, arguments.shell))


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The arguments of a parser and of its commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
        else:
            yield action
