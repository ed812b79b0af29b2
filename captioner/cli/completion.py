"""`captioner completion`: what a shell needs to complete commands, options and paths."""

import argparse
import re
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

    # fish asks for `--onnx=do` as one word, and wants what follows the sign
    word = "(string replace --regex '^--[^=]*=' '' -- (commandline -ct))"
    path = {**shtab.FILE, "fish": f"(__fish_complete_path {word})"}
    whole = arguments.parser()  # of all commands, whose module lies above this one
    for action in _actions(whole):
        stands_alone = not action.option_strings and not action.choices
        if stands_alone or action.type is Path:
            action.complete = path  # type: ignore[attr-defined]
        if stands_alone:  # shtab takes OUT of `--convert jsonl OUT` for the only path there is
            action.nargs = "+"
    script = shtab.complete(whole, arguments.shell)
    print(_mended(script) if arguments.shell == "zsh" else script)


def _mended(script: str) -> str:
    """shtab's script for zsh, with paths after the first one, and `--option=value`."""
    script = re.sub(r'^  "\(\*\):', '  "*:', script, flags=re.MULTILINE)
    return re.sub(r'^(  "--[\w-]+)(\[.*\]:)', r"\1=\2", script, flags=re.MULTILINE)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The arguments of a parser and of its commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
        else:
            yield action
