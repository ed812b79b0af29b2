"""`captioner completion`: print a completion script for bash, zsh or fish.

shtab writes the scripts: commands, options, choices and paths are completed. Beyond shtab 1.13
are, in zsh, the second and further paths of a command; in zsh and fish, the directory after
`--convert jsonl`; in bash and zsh, the value in `--option=value`, unlike `--option value`.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

EXAMPLE = """captioner completion bash > ~/.local/share/bash-completion/completions/captioner
captioner completion zsh > ~/.zfunc/_captioner  # with ~/.zfunc in $fpath
captioner completion fish > ~/.config/fish/completions/captioner.fish"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shells = ("bash", "zsh", "fish")
    parser.add_argument("shell", choices=shells, metavar="SHELL", help="bash, zsh or fish")


def run(arguments: argparse.Namespace) -> None:
    import shtab

    # The current word without "--option=", which fish counts as part of it.
    word = "(string replace --regex '^--[^=]*=' '' -- (commandline -ct))"
    path = {**shtab.FILE, "fish": f"(__fish_complete_path {word})"}
    parser = arguments.parser()  # of all commands, from the module above this package
    for action in _actions(parser):
        is_positional = not action.option_strings
        if action.type is Path or (is_positional and not action.choices):
            action.complete = path  # type: ignore[attr-defined]
    print(shtab.complete(parser, arguments.shell))


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The arguments of a parser and of its commands; argparse has no public access to them."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
        else:
            yield action
