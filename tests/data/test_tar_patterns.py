"""Tar files named by braces or in a text file, compared with reading their directory."""

import sys
from pathlib import Path

import pytest

import evaluate
import train
from captioner import __main__ as commands
from captioner.data.readers import read_captions
from captioner.data.storage import files as storage
from captioner.errors import InputError
from tests.support import tiny
from tests.support.layouts import write_tar


def write_shards(root, names, samples=3):
    for name in names:
        members = [(f"{i}.jpg", b"never opened") for i in range(samples)]
        members += [(f"{i}.txt", f"a dog {i} of {name}".encode()) for i in range(samples)]
        write_tar(root / f"{name}.tar", members)
    return root


SHARDS = ["train-00", "train-01", "val-00", "val-01"]


@pytest.mark.parametrize(
    "pattern", ["{train,val}-{00..01}.tar", "{train-{00..01},val-00,val-01}.tar", "list.txt"]
)
def test_named_shards_are_read_like_those_of_the_directory(tmp_path, monkeypatch, pattern):
    directory = write_shards(tmp_path / "data", SHARDS)
    expected = read_captions(directory)
    (directory / "list.txt").write_text("train-{00..01}.tar\r\n\n val-00.tar\nval-01.tar\n")
    found = read_captions(directory / pattern)
    assert found.format == "webdataset"
    assert found.examples == expected.examples
    assert found.name == ("list" if pattern == "list.txt" else "data")
    monkeypatch.chdir(directory)
    found = read_captions(pattern)
    assert [e.id for e in found.examples] == [e.id for e in expected.examples]
    assert [e.path.resolve() for e in found.examples] == [e.path for e in expected.examples]


def test_shards_of_several_directories(tmp_path):
    """Their ids begin after the part of the path that all directories share."""
    write_shards(tmp_path, ["a/train/0", "b/val/0"], samples=1)
    data = read_captions(f"{{{tmp_path}/a/train/0.tar,{tmp_path}/b/val/{{0..0}}.tar}}")
    assert {e.id: e.split for e in data.examples} == {"a/train/0/0": "train", "b/val/0/0": "val"}


def test_a_file_whose_name_looks_like_a_pattern(tmp_path):
    write_shards(tmp_path, ["train-{0..3}", "val"])
    assert len(read_captions(tmp_path / "train-{0..3}.tar").examples) == 3
    assert len(read_captions(tmp_path).examples) == 6


def test_a_named_shard_that_is_missing_is_an_error(tmp_path):
    write_shards(tmp_path, ["0", "1"])
    (tmp_path / "2.tar").symlink_to("nowhere")
    for missing, pattern in [("3", "{0..3}.tar"), ("2", "{0..2}.tar")]:
        pattern = tmp_path / pattern.replace("0..3", "0,1,3")
        with pytest.raises(InputError, match=f"{missing}.tar, named by .*, is missing; add it"):
            read_captions(pattern, on_error="skip")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("{0..1.tar", r"\{0..1.tar cannot be expanded: Unbalanced braces.*; close each brace"),
        ("gone-{0..1}", r"data set .*gone-\{0..1\} does not exist"),
        ("pipe:cat 0.tar", "data set .* does not exist"),
        ("pipe:cat {0..1}.tar", r"pipe:cat 0.tar, named by .*, is missing"),
        ("text.txt", "text.txt contains no captions in a known layout"),
    ],
)
def test_patterns_and_lists_without_shards(tmp_path, monkeypatch, name, message):
    write_shards(tmp_path, ["0", "1"])
    (tmp_path / "text.txt").write_text("0.tar\nand more\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        read_captions(name)


def test_without_braceexpand(monkeypatch):
    monkeypatch.setitem(sys.modules, "braceexpand", None)
    with pytest.raises(InputError, match=r"pip install 'captioner\[webdataset\]'"):
        storage.expand(Path("{0..1}.tar"))


@pytest.mark.slow
def test_commands_on_a_pattern(tmp_path, monkeypatch, capsys):
    """Train, evaluate on the data of the training, inspect and convert."""
    root = tiny.write_shards(tmp_path / "shards", tiny.write_colours(tmp_path / "colours"))
    monkeypatch.chdir(tmp_path)
    pattern = "shards/{train-{00..03},val-00,test-00}.tar"
    train.main(["--data", pattern, *tiny.OPTIONS])
    assert Path("checkpoints/shards-show-and-tell/best").is_dir()
    capsys.readouterr()
    evaluate.main(["--checkpoint", "checkpoints/shards-show-and-tell", "--workers", "0"])
    output = capsys.readouterr().out
    assert "on shards, val split, 7 images" in output
    assert "% novel" in output
    commands.main(["data", pattern, "--convert", "jsonl", "out"])
    assert f"{pattern}: webdataset (tar files)" in capsys.readouterr().out
    converted = {e.id: e.captions for e in read_captions("out").examples}
    assert converted == {e.id: e.captions for e in read_captions(root).examples}
