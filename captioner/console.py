"""Messages and progress bars of commands, which the logger "captioner" can redirect or hide.

Messages are printed unless a program has configured that logger by a level or a handler; they are
then logged, as are the details that only `--verbose` shows.
"""

import argparse
import logging
import platform
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from ._version import __version__

LOGGER = logging.getLogger("captioner")


def say(text: str) -> None:
    """Report progress on stdout, or at level INFO."""
    _report(text, to_stderr=False)


def note(text: str) -> None:
    """Report something about the work, but not its result, on stderr, or at level INFO."""
    _report(text, to_stderr=True)


def _report(text: str, *, to_stderr: bool) -> None:
    if LOGGER.handlers or LOGGER.level:
        LOGGER.info(text, extra={"to_stderr": to_stderr})
    else:
        _print(text, to_stderr)


def _print(text: str, to_stderr: bool) -> None:
    stream = sys.stderr if to_stderr else sys.stdout
    tqdm.write(text, file=stream)  # above any progress bar
    stream.flush()


def progress_bar(
    iterable: Iterable[Any] | None = None, *, shown: bool = True, **options: Any
) -> Any:
    """Return a tqdm bar that is shown only on a terminal, so that it cannot fill a log.

    It is also hidden if the logger's level is above INFO, as with --quiet. shown: whether to show
    it at all. options: those of tqdm.
    """
    is_hidden = not shown or LOGGER.level > logging.INFO
    options = {"leave": False, **options}
    return tqdm(iterable, disable=True if is_hidden else None, **options)  # None: only a terminal


class _Console(logging.Handler):
    """Prints messages where `say` and `note` print them, and details on stderr with their time."""

    def emit(self, record: logging.LogRecord) -> None:
        if hasattr(record, "to_stderr"):
            _print(record.getMessage(), record.to_stderr)
        else:
            _print(self.format(record), to_stderr=True)


def add_verbosity(parser: argparse.ArgumentParser, *, shown: bool = True) -> None:
    """Add --quiet and --verbose; shown: whether the help lists them."""
    for flag, text in (
        ("--quiet", "print only results, warnings and errors"),
        ("--verbose", "also print details: versions, files and times"),
    ):
        parser.add_argument(
            flag,
            action="store_true",
            default=argparse.SUPPRESS,  # a command's default would override the flag before it
            help=text if shown else argparse.SUPPRESS,
        )


def _platform() -> tuple[str, str]:
    return platform.python_version(), platform.platform()


@contextmanager
def verbosity(arguments: argparse.Namespace) -> Iterator[None]:
    """Apply the flags of `add_verbosity` to the logger while a command runs."""
    quiet, verbose = (getattr(arguments, name, False) for name in ("quiet", "verbose"))
    level, propagate, handler = LOGGER.level, LOGGER.propagate, _Console()
    if verbose:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        LOGGER.addHandler(handler)
        LOGGER.propagate = False
        LOGGER.setLevel(logging.DEBUG)
        LOGGER.debug("captioner %s, Python %s, %s", __version__, *_platform())
    elif quiet:
        LOGGER.setLevel(logging.WARNING)
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)
        LOGGER.propagate = propagate
