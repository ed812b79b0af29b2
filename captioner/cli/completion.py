"""`captioner completion`: print a completion script for bash, zsh or fish.

shtab generates the scripts, which complete commands, options, choices and paths. `_prepare` works
around limits of shtab 1.13, which in zsh completes neither the value in `--option=value` nor paths
after the first, and in zsh and fish does not complete the directory after `--convert jsonl`. In
bash, only `--option value` is completed.
"""

import argparse
from pathlib import Path

EXAMPLE = """captioner completion bash > ~/.local/share/bash-completion/completions/captioner
captioner completion zsh > ~/.zfunc/_captioner  # with ~/.zfunc in $fpath
captioner completion fish > ~/.config/fish/completions/captioner.fish"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shells = ("bash", "zsh", "fish")
    parser.add_argument("shell", choices=shells, metavar="SHELL", help="shell: bash, zsh or fish")


def run(arguments: argparse.Namespace) -> None:
    import shtab

    parser = arguments.parser()  # built by __main__, which this package may not import
    lines = []
    for name, command in _commands(parser).items():
        array = f"_shtab_{parser.prog}_{shtab.wordify(name)}_options"
        lines += [f"{array}+=('{spec}')" for spec in _prepare(command, arguments.shell)]
    print(shtab.complete(parser, arguments.shell, preamble="\n".join(lines)))


def _prepare(command: argparse.ArgumentParser, shell: str) -> list[str]:
    """Change a command's parser so that shtab can complete its arguments in the shell.

    Returns the zsh specifications that the preamble adds to those of shtab.
    """
    import shtab

    # The current word without "--option=", which fish treats as part of the word.
    word = "(string replace --regex '^--[^=]*=' '' -- (commandline -ct))"
    path = {**shtab.FILE, "fish": f"(__fish_complete_path {word})"}
    added = []
    for action in command._actions:
        is_path = not action.option_strings and not action.choices
        if is_path or action.type is Path or action.metavar in ("PATH", "TEXT_OR_FILE"):
            action.complete = path  # type: ignore[attr-defined]
        if is_path and shell == "zsh":  # shtab's "(*):" completes only the first path
            action.help = argparse.SUPPRESS
            added.append(f"*:{action.metavar}:_files")
        elif is_path:
            action.nargs = "+"  # OUT of `--convert jsonl OUT` counts as a path
        elif shell == "zsh" and action.nargs != 0:
            action.option_strings = [f"{flag}=" for flag in action.option_strings]
    return added


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the commands' parsers by name; argparse has no public API for this."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}
