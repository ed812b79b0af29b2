"""Messages and progress bars: where they go, and how they are hidden."""

import argparse
import io
import logging
import sys

import pytest

from captioner import __version__
from captioner.console import LOGGER, add_verbosity, note, progress_bar, say, verbosity


class Terminal(io.StringIO):
    def isatty(self):
        return True


def arguments(*words):
    parser = argparse.ArgumentParser()
    add_verbosity(parser)
    commands = parser.add_subparsers()
    add_verbosity(commands.add_parser("go"))
    return parser.parse_args(words)


def report():
    say("said")
    note("noted")
    logging.getLogger("captioner.somewhere").debug("a detail")
    logging.getLogger("captioner.somewhere").warning("a warning")


def test_messages_are_printed_by_default(capsys):
    say("said")
    note("noted")
    assert capsys.readouterr() == ("said\n", "noted\n")


@pytest.mark.parametrize("words", [["--quiet", "go"], ["go", "--quiet"]])
def test_quiet_hides_messages_and_bars(capsys, monkeypatch, words):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with verbosity(arguments(*words)):
        say("said")
        note("noted")
        list(progress_bar(range(3)))
    assert capsys.readouterr().out == ""
    assert terminal.getvalue() == ""
    assert LOGGER.level == logging.NOTSET


@pytest.mark.parametrize("words", [["--verbose", "go"], ["go", "--verbose"]])
def test_verbose_adds_details_on_stderr(capsys, words):
    with verbosity(arguments(*words)):
        report()
    printed = capsys.readouterr()
    assert printed.out == "said\n"
    versions, *lines = printed.err.splitlines()
    assert f"DEBUG captioner: captioner {__version__}, Python 3." in versions
    assert lines[0] == "noted"
    assert lines[1].endswith("DEBUG captioner.somewhere: a detail")
    assert lines[2].endswith("WARNING captioner.somewhere: a warning")
    assert (LOGGER.level, LOGGER.handlers, LOGGER.propagate) == (logging.NOTSET, [], True)


def test_programs_redirect_messages_with_the_logging_module(capsys, caplog):
    with caplog.at_level(logging.INFO, "captioner"):
        report()
    assert capsys.readouterr() == ("", "")
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("INFO", "said"),
        ("INFO", "noted"),
        ("WARNING", "a warning"),
    ]


def test_bars_are_drawn_on_terminals_only(capsys, monkeypatch):
    list(progress_bar(range(3)))
    assert capsys.readouterr().err == ""  # as in a redirected log
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress_bar(total=3, mininterval=0) as bar:
        bar.update()
        say("said")  # on a line of its own
        assert capsys.readouterr().out == "said\n"
    assert "1/3" in terminal.getvalue()
    drawn = terminal.getvalue()
    list(progress_bar(range(3), shown=False))
    assert terminal.getvalue() == drawn
