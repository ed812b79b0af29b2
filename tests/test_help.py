"""What the command says of itself: help that fits a screen, examples that hold, completion."""

import argparse
import re
import shlex
import shutil
import subprocess
from importlib import import_module

import pytest

import captioner
from captioner import __main__ as commands


@pytest.fixture(scope="module")
def whole():
    """The parsers of all commands by name."""
    actions = commands.parser()._actions
    found = next(each for each in actions if isinstance(each, argparse._SubParsersAction))
    assert found.choices.keys() == commands.COMMANDS.keys()
    return found.choices


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_help_fits_a_screen(whole, name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = whole[name].format_help()
    lines = text.splitlines()
    assert len(lines) <= 40 and lines[0].startswith(f"usage: captioner {name} ")
    assert max(len(line) for line in lines[: lines.index("examples:")]) <= 80
    assert commands.COMMANDS[name][1:] + ".\n" in text
    for action in whole[name]._actions:
        assert action.help, action
        shown = re.search(
            rf"^  {[*action.option_strings, action.metavar][0]}\b", text, re.MULTILINE
        )
        assert (shown is None) == (action.help == argparse.SUPPRESS)


def test_version(capsys):
    with pytest.raises(SystemExit, match="0"):
        commands.main(["--version"])
    assert capsys.readouterr().out == f"{captioner.__version__}\n"


def test_help_of_the_whole(capsys):
    with pytest.raises(SystemExit) as ended:
        commands.main(["--help"])
    told = capsys.readouterr().out
    assert ended.value.code == 0
    for name, text in commands.COMMANDS.items():
        assert re.search(rf"^    {name} +{re.escape(text)}$", told, re.MULTILINE)


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_examples_hold(whole, name):
    """Each line calls the command, with arguments that it takes."""
    module = import_module(f"captioner.commands.{name.replace('-', '_')}")
    for line in module.EXAMPLE.splitlines():
        words = shlex.split(line, comments=True)
        first = words.index("captioner")
        assert words[first + 1] == name
        arguments = words[first + 2 :]
        if ">" in arguments:
            arguments = arguments[: arguments.index(">")]
        assert vars(whole[name].parse_args(arguments))


def completion(shell, capsys):
    commands.main(["completion", shell])
    return capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_command_and_option(whole, shell, capsys):
    script = completion(shell, capsys)
    for name, parser in whole.items():
        assert name in script
        for action in parser._actions:
            for flag in action.option_strings:
                assert flag.lstrip("-") in script or action.help == argparse.SUPPRESS
    syntax = {"zsh": "-n", "fish": "--no-execute", "bash": "-n"}[shell]
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} to read the script")
    subprocess.run([shell, syntax], input=script, text=True, check=True, timeout=60)


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("captioner", list(commands.COMMANDS)),
        ("captioner caption --heat", ["--heatmap", "--heatmap-format"]),
        ("captioner caption --method", ["greedy", "sample", "beam"]),
        ("captioner data --format kaggle3", ["kaggle30k"]),
        ("captioner info --js", ["--json"]),
        ("captioner caption dog", ["dog 1.png", "dogs"]),
        ("captioner caption --checkpoint dogs", ["dogs"]),
        ("captioner report dogs", ["dogs"]),
        ("captioner completion z", ["zsh"]),
    ],
)
def test_completion_in_bash(words, offered, tmp_path, capsys):
    (tmp_path / "dogs").mkdir()
    (tmp_path / "dog 1.png").touch()
    typed = [
        *words.split(),
        *([""] if words in ("captioner", "captioner caption --method") else []),
    ]
    script = completion("bash", capsys) + (
        f"\nCOMP_WORDS=({shlex.join(typed)}); COMP_CWORD={len(typed) - 1}; COMPREPLY=()\n"
        'complete -p captioner > /dev/null && _shtab_captioner\nprintf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    run = subprocess.run(
        ["bash", "--noprofile", "--norc", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.stderr == "" and run.stdout.splitlines() == offered


def test_a_shell_that_is_not_known(capsys):
    with pytest.raises(SystemExit, match="2"):
        commands.main(["completion", "cmd"])
    assert "invalid choice: 'cmd'" in capsys.readouterr().err
