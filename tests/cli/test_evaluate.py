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
    given, request = read_options(parse(["--config", options_file, *flags]))
    assert given == {"checkpoint", "split", "metrics", "workers", "beam_size"}
    assert request.evaluation.checkpoint == (Path("b"), Path("c"))
    assert request.evaluation.split == "val"
    assert (request.scoring.metrics, request.decoding.beam_size) == ("bleu", 5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("splitt = 'test'", r"options.toml: unknown option 'splitt'; did you mean 'split'\?"),
        ("[model]\nattention = true", r"unknown table \[model\]; the tables are \[evaluation\],"),
        ("[scoring]\nsplit = 'val'", r"split belongs in table \[evaluation\], not in \[scoring\]"),
        ("batch-size = 'all'", "batch_size must be int, got 'all'"),
        ("checkpoint = 'a'", r"checkpoint must be a list of str, got 'a'; write \['a'\]$"),
        ("checkpoint = ['a']\nbatch-size = 0", r"options.toml: batch_size must be at least 1"),
        (
            "checkpoint = ['a']\nnum-captions = 9",
            r"options.toml: num_captions 9 is above beam_size",
        ),
        ("data = {path = 'a'}", "data is an option, not a table; write data = VALUE"),
        ("checkpoint = ['a']\nreferences = 'b'", "--references has no effect without --pred"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, text, message):
    path = tmp_path / "options.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_options(parse(["--config", str(path)]))


def test_flags_may_complete_a_file(tmp_path):
    """A value that only a flag makes valid or invalid is not the file's mistake."""
    path = tmp_path / "options.toml"
    path.write_text("checkpoint = ['a']\nnum-captions = 5\nmin-length = 4")
    argv = ["--config", str(path), "--beam-size", "5"]
    assert read_options(parse(argv))[1].decoding.num_captions == 5
    with pytest.raises(InputError, match=r"^min_length 4 is above max_length 3"):
        read_options(parse([*argv, "--max-length", "3"]))


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
