"""Images that cannot be decoded are told together, before any training, and each is read once."""

import json
from pathlib import Path

import pytest
import torch

import evaluate
import train
from captioner.data import image_check as decodable
from captioner.data.image_check import KNOWN, drop_corrupt_images
from captioner.data.readers import read_captions
from captioner.errors import InputError
from captioner.vision.encoders import SmallCNN
from tests.support import tiny

USED = ("train", "val")


@pytest.fixture
def colours(tmp_path):
    return tiny.write_colours(tmp_path / "colours")


def spoil(root):
    """Two images of train, one of val and one of test that cannot be decoded."""
    cut = (root / "train" / "3.png").read_bytes()
    (root / "train" / "3.png").write_bytes(cut[: len(cut) // 2])
    (root / "train" / "9.png").write_bytes(b"")
    (root / "val" / "102.png").write_text("<html>not found</html>")
    (root / "test" / "200.png").write_bytes(b"\x89PNG")
    return [root / "train" / "3.png", root / "train" / "9.png", root / "val" / "102.png"]


def noted(monkeypatch):
    read, load = [], decodable.load_image
    monkeypatch.setattr(decodable, "load_image", lambda path: (read.append(path), load(path))[1])
    return read


@pytest.mark.parametrize("workers", [0, 2])
def test_all_are_told_together(colours, tmp_path, workers):
    broken = spoil(colours)
    data = read_captions(colours)
    with pytest.raises(InputError) as caught:
        drop_corrupt_images(data, USED, "stop", tmp_path / "cache", workers)
    first, *lines = str(caught.value).split("\n")
    assert first == (
        f"{colours} (read as coco) has 3 problems, which --on-error skip would leave out:"
    )
    reasons = ["cannot be decoded, broken or cut short", "the file is empty", "not an image in an"]
    for line, path, reason in zip(lines, broken, reasons, strict=True):
        assert line.startswith(f"  {path}: {reason}")
        assert line.endswith("; replace the file, or remove what names it")


def test_skipped_ones_become_problems(colours, tmp_path):
    broken = spoil(colours)
    data = read_captions(colours)
    left, ids = drop_corrupt_images(data, USED, "skip", tmp_path / "cache")
    assert ids == [3, 9, 102] and [p.place.file for p in left.problems] == broken
    assert left.examples == tuple(e for e in data.examples if e.path not in broken)
    assert len(left.split("test")) == 3  # not looked at
    left, ids = drop_corrupt_images(data, ("test",), "skip", tmp_path / "cache")
    assert ids == [200]


def test_each_is_read_once_unless_it_changes_or_is_broken(colours, tmp_path, monkeypatch):
    broken, cache = spoil(colours), tmp_path / "cache"
    data, read = read_captions(colours), noted(monkeypatch)
    drop_corrupt_images(data, USED, "skip", cache)
    assert sorted(read) == sorted(e.path for e in data.examples if e.split in USED)
    read.clear()
    drop_corrupt_images(data, USED, "skip", cache)
    assert read == broken
    read.clear()
    broken[0].write_bytes((colours / "train" / "4.png").read_bytes())
    (colours / "val" / "100.png").write_bytes((colours / "train" / "4.png").read_bytes() + b" ")
    _, ids = drop_corrupt_images(data, USED, "skip", cache)
    assert set(read) == {*broken, colours / "val" / "100.png"} and ids == [9, 102]
    assert len(drop_corrupt_images(data, USED, "skip", None)[1]) == 2 and len(read) == 4 + 23
    (cache / KNOWN).write_bytes(b"\xff\xfe nothing of ours")
    read.clear()
    drop_corrupt_images(data, USED, "skip", cache)
    assert len(read) == 23


def test_what_was_read_before_a_signal_is_kept(colours, tmp_path, monkeypatch):
    data, load = read_captions(colours), decodable.load_image
    monkeypatch.setattr(decodable, "CHUNK", 4)

    def stopped(path):
        if path.name == "13.png":
            raise KeyboardInterrupt
        return load(path)

    with monkeypatch.context() as patch:
        patch.setattr(decodable, "load_image", stopped)
        with pytest.raises(KeyboardInterrupt):
            drop_corrupt_images(data, USED, "stop", tmp_path / "cache")
    read = noted(monkeypatch)
    drop_corrupt_images(data, USED, "stop", tmp_path / "cache")
    assert [path.name for path in read[:2]] == ["12.png", "13.png"] and len(read) == 23 - 12


def test_a_cache_that_cannot_be_written(colours):
    with pytest.raises(InputError, match=r"the cache in .*3.png cannot be written: "):
        drop_corrupt_images(read_captions(colours), USED, "stop", colours / "train" / "3.png")


@pytest.mark.parametrize("frozen", [False, True])
def test_no_training_and_no_features_before_it(colours, tmp_path, monkeypatch, frozen, capsys):
    """Stop, then skip; evaluating such a run leaves them out, too, and knows what it learned."""
    broken = spoil(colours)
    monkeypatch.chdir(tmp_path)
    options = ["--data", "colours", "--run", "mine", *tiny.OPTIONS]
    if frozen:
        torch.manual_seed(3)
        torch.save(SmallCNN().state_dict(), "encoder.pth")
        options += ["--encoder-weights", "encoder.pth"]
    with monkeypatch.context() as patch:
        patch.setattr("captioner.training.setup.cached_features", None)
        patch.setattr("captioner.training.run.fit", None)
        with pytest.raises(InputError, match=r"colours \(read as coco\) has 3 problems"):
            train.main(options)
    assert not Path("checkpoints/mine").exists()
    train.main([*options, "--on-error", "skip"])
    said = capsys.readouterr().out
    assert "train 14 images" in said and "val 6 images" in said and "3 problems skipped" in said
    listed = [
        json.loads(row) for row in Path("checkpoints/mine/skipped.jsonl").read_text().splitlines()
    ]
    assert [row["file"] for row in listed] == [str(p.relative_to(tmp_path)) for p in broken]
    assert listed[1]["what"] == "the file is empty"
    evaluate.main(["--checkpoint", "checkpoints/mine", "--workers", "0"])
    said = capsys.readouterr().out
    assert "val split, 6 images" in said and "% novel" in said
    assert f"skipped: {broken[2]}: not an image" in said
    assert "have changed" not in said
    train.main([*options, "--on-error", "skip", "--resume"])  # the same images
    broken[1].write_bytes((colours / "train" / "4.png").read_bytes())
    message = r"mine/last cannot be continued: 3 images could not .* \[3, 9, 102\], and 2 cannot"
    with pytest.raises(InputError, match=message):
        train.main([*options, "--on-error", "skip", "--resume"])
