"""`captioner completion`: print a completion script for bash, zsh or fish.

shtab generates the scripts, which complete commands, options, choices and paths. shtab 1.13 cannot
complete the second and later paths of a command in zsh, the directory after `--convert jsonl` in
zsh and fish, or the value in `--option=value` in bash and zsh; `--option value` works everywhere.
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

    # The current word without "--option=", which fish treats as part of the word.
    word = "(string replace --regex '^--[^=]*=' '' -- (commandline -ct))"
    path = {**shtab.FILE, "fish": f"(__fish_complete_path {word})"}
    parser = arguments.parser()  # built by __main__, which this package may not import
    for action in _actions(parser):
        is_positional = not action.option_strings
        if action.type is Path or (is_positional and not action.choices):
            action.complete = path  # type: ignore[attr-defined]
    print(shtab.complete(parser, arguments.shell))


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield the arguments of a parser and its subcommands; argparse has no public API for this."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
        else:
            yield action
