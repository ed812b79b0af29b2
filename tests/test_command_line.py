"""Suggestions for misspelled flags, commands and values."""

import pytest

import evaluate
import train
from captioner import __main__ as commands
from captioner.command_line import Parser
from captioner.decoding.options import DecodingOptions
from captioner.errors import InputError
from captioner.options import did_you_mean, from_dict
from captioner.training.config import TrainConfig


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["caption", "a.jpg", "--bem-size", "3"], "--bem-size 3; did you mean '--beam-size'?"),
        (["caption", "a.jpg", "--bem-size=3"], "--bem-size=3; did you mean '--beam-size'?"),
        (["train", "--atention"], "--atention; did you mean '--attention'?"),
        (["captoin"], "did you mean 'caption'?"),
        (["caption", "a.jpg", "--method", "beams"], "did you mean 'beam'?"),
        (["caption", "a.jpg", "--zzzz"], "unrecognized arguments: --zzzz\n"),
    ],
)
def test_commands(words, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        commands.main(words)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("program", "words", "flag"),
    [(train, ["--learnin-rate", "1"], "--learning-rate"), (evaluate, ["--splt"], "--split")],
)
def test_scripts(program, words, flag, capsys):
    with pytest.raises(SystemExit, match="2"):
        program.main(words)
    assert f"did you mean {flag!r}?" in capsys.readouterr().err


def test_options_from_python():
    with pytest.raises(
        InputError, match=r"'beams' for DecodingOptions; .*; did you mean 'beam_size'"
    ):
        from_dict(DecodingOptions, {"beams": 3})
    with pytest.raises(InputError, match=r"option 'atention'; see .*; did you mean 'attention'\?$"):
        TrainConfig.from_options(atention=True)


def test_negations_and_names_unlike_any_other_are_not_suggested():
    parser = Parser()
    parser.add_argument("--curves", action="store_true")
    parser.add_argument("--no-curves", action="store_false", dest="curves")
    assert "--curves" in parser.flags()
    assert "--no-curves" not in parser.flags()
    assert did_you_mean("zzz", ["beam", "greedy"]) == ""
