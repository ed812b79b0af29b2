"""`captioner evaluate` and evaluate.py: options from flags and from files."""

from pathlib import Path

import pytest

import evaluate
from captioner import __main__ as commands
from captioner.cli.evaluate import parse, read_options
from captioner.errors import InputError
from tests.support import tiny

OPTIONS_FILE = """
checkpoint = ["checkpoints/a"]
metrics = "bleu"
[evaluation]
workers = 0
split = "test"
[decoding]
beam-size = 5
"""


@pytest.fixture
def options_file(tmp_path):
    path = tmp_path / "options.toml"
    path.write_text(OPTIONS_FILE)
    return str(path)


def test_a_file_gives_the_same_options_as_flags(options_file):
    flags = "--checkpoint checkpoints/a --metrics bleu --workers 0 --split test --beam-size 5"
    assert read_options(parse(["--config", options_file])) == read_options(parse(flags.split()))


def test_flags_replace_what_a_file_gives(options_file):
    flags = ["--checkpoint", "b", "c", "--split", "val"]
    options, _, scoring, decoding = read_options(parse(["--config", options_file, *flags]))
    assert (options.checkpoint, options.split) == ((Path("b"), Path("c")), "val")
    assert (scoring.metrics, decoding.beam_size) == ("bleu", 5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("splitt = 'test'", r"options.toml: unknown option 'splitt'; did you mean 'split'\?"),
        ("[model]\nattention = true", r"unknown table \[model\]; the tables are \[evaluation\],"),
        ("[scoring]\nsplit = 'val'", r"split belongs in table \[evaluation\], not in \[scoring\]"),
        ("batch-size = 'all'", "batch_size must be int, got 'all'"),
        ("checkpoint = 'a'", "checkpoint must be a list of str, got 'a'"),
        ("checkpoint = ['a']\nreferences = 'b'", "--references needs --predictions"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, text, message):
    path = tmp_path / "options.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_options(parse(["--config", str(path)]))


def test_a_file_without_checkpoint_is_wrong_usage(tmp_path, capsys):
    path = tmp_path / "options.toml"
    path.write_text("split = 'test'")
    with pytest.raises(SystemExit, match="2"):
        commands.main(["evaluate", "--config", str(path)])
    assert "captioner evaluate: error: pass either --checkpoint, " in capsys.readouterr().err


def test_the_command_does_what_the_program_does(tmp_path, monkeypatch, tmp_path_factory, capsys):
    monkeypatch.chdir(tmp_path)
    argv = ["--checkpoint", str(tiny.run(tmp_path_factory, attention=False)), "--workers", "0"]
    argv += ["--metrics", "bleu", "--output"]
    capsys.readouterr()
    commands.main(["evaluate", *argv, "command"])
    printed = capsys.readouterr().out
    evaluate.main([*argv, "program"])
    assert printed == capsys.readouterr().out.replace("program", "command")
    for name in ("scores.json", "captions.json"):
        assert Path("command", name).read_bytes() == Path("program", name).read_bytes()
