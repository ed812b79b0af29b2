"""Help texts that fit a screen, with examples that parse."""

import argparse
import re
import shlex
from importlib import import_module

import pytest

import captioner
from captioner import __main__ as commands

MAX_LINES = 44
# With all flags of a configuration.
LONGER = {"train": 112, "compare": 90, "evaluate": 89, "report": 53, "caption": 47}


@pytest.fixture(scope="module")
def parsers():
    """The parsers of all commands by name."""
    actions = commands.parser()._actions
    found = next(each for each in actions if isinstance(each, argparse._SubParsersAction))
    assert found.choices.keys() == commands.COMMANDS.keys()
    return found.choices


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_help_fits_a_screen(parsers, name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = parsers[name].format_help()
    lines = text.splitlines()
    assert len(lines) <= LONGER.get(name, MAX_LINES)
    assert lines[0].startswith(f"usage: captioner {name} ")
    assert max(len(line) for line in lines[: lines.index("examples:")]) <= 80
    assert commands.COMMANDS[name][1:] + ".\n" in text
    for action in parsers[name]._actions:
        assert action.help, action
        shown = re.search(
            rf"^  {[*action.option_strings, action.metavar][0]}\b", text, re.MULTILINE
        )
        assert (shown is None) == (action.help == argparse.SUPPRESS)


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--system", "relation"], "early stopping [accuracy] "),
        (["--system", "relation"], "drawn at random [6] "),
        (["--system", "relation"], "small_cnn, the defaults are --epochs 3 --weight-decay 0.01 "),
        (["--system", "joint"], "early stopping [rsum_equal_texts] "),
        (["--system", "joint", "--recipe", "favre2017"], "train on, in order [1] "),
    ],
)
def test_help_shows_the_defaults_of_the_system(words, shown, capsys):
    with pytest.raises(SystemExit, match="0"):
        commands.main(["train", *words, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert shown in text


def test_version(capsys):
    with pytest.raises(SystemExit, match="0"):
        commands.main(["--version"])
    assert capsys.readouterr().out == f"{captioner.__version__}\n"


def test_help_lists_all_commands(capsys):
    with pytest.raises(SystemExit) as ended:
        commands.main(["--help"])
    out = capsys.readouterr().out
    assert ended.value.code == 0
    for name, text in commands.COMMANDS.items():
        assert re.search(rf"^    {name} +{re.escape(text)}$", out, re.MULTILINE)


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_examples_parse(parsers, name):
    """Each line calls the command with valid arguments."""
    module = import_module(f"captioner.cli.{name.replace('-', '_')}")
    for line in module.EXAMPLE.splitlines():
        words = shlex.split(line, comments=True)
        first = words.index("captioner")
        assert words[first + 1] == name
        arguments = words[first + 2 :]
        if ">" in arguments:
            arguments = arguments[: arguments.index(">")]
        assert vars(parsers[name].parse_args(arguments))
