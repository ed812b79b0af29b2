"""A command-line parser whose errors suggest the flag, command or value that was meant."""

import argparse
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from .options import did_you_mean

_CHOICE = re.compile(r"invalid choice: '?(?P<given>[^' ]*)'? \(choose from (?P<known>.*)\)")


class Parser(argparse.ArgumentParser):
    """An ArgumentParser with suggestions; the parsers of its commands have them, too."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse all arguments; exit with an error if any is unknown.

        The error suggests the most similar flag of the command, if there is a similar one.
        """
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            wrong = next((word for word in unknown if word.startswith("-")), unknown[0])
            parser = self._command(getattr(parsed, "command", None))
            flag = wrong.partition("=")[0]
            advice = did_you_mean(flag, parser.flags()) if flag.startswith("--") else ""
            parser.error(f"unrecognized arguments: {' '.join(unknown)}{advice}")
        return parsed

    def flags(self) -> list[str]:
        """Return the long flags, except those that begin with --no-."""
        return [
            flag
            for action in self._actions
            for flag in action.option_strings
            if flag.startswith("--") and not flag.startswith("--no-")
        ]

    def error(self, message: str) -> NoReturn:
        """Print the usage and the message, with a suggestion for an invalid choice; exit with 2."""
        if match := _CHOICE.search(message):
            known = re.findall(r"[\w.-]+", match["known"])
            message += did_you_mean(match["given"], known)
        super().error(message)

    def _command(self, name: str | None) -> "Parser":
        return next((parser for own, parser in self._commands() if own == name), self)

    def _commands(self) -> Iterator[tuple[str, "Parser"]]:
        for action in self._actions:  # argparse has no public API for this
            if isinstance(action, argparse._SubParsersAction):
                yield from action.choices.items()
