"""The description of a data set, and the check of its images before any training."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import evaluate
import train
from captioner import __main__ as commands
from captioner.data import images, inspection
from captioner.data.inspection import DECODED, describe_data, drop_corrupt_images, percentile
from captioner.data.readers import read_captions
from captioner.data.storage.location import UnreachableError
from captioner.errors import InputError
from captioner.vision.encoders import SmallCNN
from tests.support import tiny
from tests.support.layouts import numbered_images, touch, write, write_jsonl, write_kaggle
from tests.support.pointers import POINTER

CAPTIONS = numbered_images(30) | {"a.jpg": ['Two dogs, "running"', "ein Hund läuft", ""]}
USED = ("train", "val")


# ---- description --------------------------------------------------------------------------------


def test_the_description_agrees_with_counting_by_hand(tmp_path):
    rows = [
        {"image": "a.jpg", "captions": ["A dog runs .", "a dog", ""], "split": "train"},
        {"image": "b.jpg", "caption": "a a a a a a cat", "split": "train"},
        {"image": "c.jpg", "caption": "something else entirely", "split": "val"},
        {"image": "gone.jpg", "caption": "a dog", "split": "val"},
    ]
    write_jsonl(tmp_path, {"a.jpg": [], "b.jpg": [], "c.jpg": []})
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = read_captions(tmp_path, on_error="skip")
    assert describe_data(data).splitlines() == [
        f"{tmp_path}: jsonl (captions.jsonl or .json, or train.jsonl, val.jsonl ...)",
        "              images  captions",
        "train              2         4",
        "val                1         1",
        "words per caption: mean 4.0, median 3, 5th to 95th percentile 2 to 7, maximum 7",
        "captions without words: 1",
        "--min-count 1         4 words, 100.00 % of all occurrences",  # a 8, dog 2, runs, cat
        "--min-count 2         2 words,  83.33 % of all occurrences",
        "--min-count 5         1 words,  66.67 % of all occurrences",
        "--min-count 10        0 words,   0.00 % of all occurrences",
        "problems: 1",
        f"  {data.problems[0]}",
    ]
    assert "line 4: the image" in str(data.problems[0])


def test_the_description_of_data_without_a_training_split(tmp_path):
    write_jsonl(tmp_path, {"a.jpg": ["a dog"]}, "val.jsonl")
    text = describe_data(read_captions(tmp_path))
    assert "words per caption: mean 2.0," in text
    assert text.endswith("problems: none")


def test_captions_without_spaces_are_noted(tmp_path, capsys):
    write_jsonl(tmp_path, {f"{i}.jpg": ["一只狗", "狗在跑"] for i in range(5)})
    commands.main(["data", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "\nnote: most captions are a single word; if" in printed
    assert "mean 1.0" in printed
    commands.main(["data", str(tmp_path), "--tokenizer", "characters"])
    printed = capsys.readouterr().out
    assert "note" not in printed
    assert "mean 3.0" in printed


def test_the_description_mentions_drawn_splits(tmp_path):
    data = read_captions(write_kaggle(tmp_path, CAPTIONS))
    assert data.note
    assert f"\nsplit: {data.note}\n" in describe_data(data)


@given(st.lists(st.integers(1, 50), min_size=1), st.integers(1, 100))
def test_a_percentile_is_the_smallest_value_that_enough_values_do_not_exceed(values, share):
    enough = [v for v in values if 100 * sum(other <= v for other in values) >= share * len(values)]
    assert percentile(sorted(values), share) == min(enough)


def test_the_command_describes_and_converts(tmp_path, capsys):
    write_kaggle(tmp_path / "data", CAPTIONS)
    (tmp_path / "data" / "Images" / "03.jpg").unlink()
    commands.main(["data", str(tmp_path / "data")])
    text = capsys.readouterr().out
    assert re.search(r"problems: 1\n  .*captions.txt, line 8: the image .*03.jpg is missing", text)
    out = tmp_path / "out"
    commands.main(
        ["data", str(tmp_path / "data"), "--format", "kaggle", "--convert", "jsonl", str(out)]
    )
    assert capsys.readouterr().out == f"{text}written: {out / 'captions.jsonl'}\n"
    assert len(read_captions(out).examples) == len(CAPTIONS) - 1
    with pytest.raises(
        InputError, match="--convert must be followed by jsonl or relations, and a directory, got"
    ):
        commands.main(["data", str(tmp_path / "data"), "--convert", "csv", str(out)])


# ---- images that cannot be decoded --------------------------------------------------------------


@pytest.fixture
def colours(tmp_path):
    return tiny.write_colours(tmp_path / "colours")


SKIP = ["--on-error", "skip", "--max-skipped", "0.2"]


def corrupt(root):
    """Damage two images of train, one of val and one of test; returns those of train and val."""
    cut = (root / "train" / "3.png").read_bytes()
    (root / "train" / "3.png").write_bytes(cut[: len(cut) // 2])
    (root / "train" / "9.png").write_bytes(b"")
    (root / "val" / "102.png").write_text("<html>not found</html>")
    (root / "test" / "200.png").write_bytes(b"\x89PNG")
    return [root / "train" / "3.png", root / "train" / "9.png", root / "val" / "102.png"]


@pytest.fixture
def decoded(monkeypatch):
    """The paths of the images that were opened, in order."""
    paths, load = [], images.load_image
    monkeypatch.setattr(images, "load_image", lambda path: (paths.append(path), load(path))[1])
    return paths


@pytest.mark.parametrize("workers", [0, 2])
def test_corrupt_images_are_reported_together(colours, tmp_path, workers):
    broken = corrupt(colours)
    data = read_captions(colours)
    with pytest.raises(InputError) as caught:
        drop_corrupt_images(data, USED, "stop", tmp_path / "cache", workers)
    first, *lines = str(caught.value).split("\n")
    assert first.startswith(f"{colours} (read as coco) has 3 problems; ")
    reasons = [
        "cannot be decoded (broken or truncated)",
        "the file is empty; replace it",
        "a web page; download",
    ]
    for line, path, reason in zip(lines, broken, reasons, strict=True):
        assert line.startswith(f"  {path}: {reason}")
        assert line.endswith("; replace the file or remove its captions")


def test_corrupt_images_that_are_skipped_become_problems(colours, tmp_path):
    broken = corrupt(colours)
    data = read_captions(colours)
    kept, ids = drop_corrupt_images(data, USED, "skip", tmp_path / "cache")
    assert ids == [3, 9, 102]
    assert [p.location.file for p in kept.problems] == broken
    assert kept.examples == tuple(e for e in data.examples if e.path not in broken)
    assert len(kept.split("test")) == 3  # another split, which was not checked
    _, ids = drop_corrupt_images(data, ("test",), "skip", tmp_path / "cache")
    assert ids == [200]


def test_an_image_is_decoded_again_only_if_it_changed_or_is_corrupt(colours, tmp_path, decoded):
    broken, cache = corrupt(colours), tmp_path / "cache"
    data = read_captions(colours)
    drop_corrupt_images(data, USED, "skip", cache)
    assert sorted(decoded) == sorted(e.path for e in data.examples if e.split in USED)
    decoded.clear()
    drop_corrupt_images(data, USED, "skip", cache)
    assert decoded == broken
    decoded.clear()
    broken[0].write_bytes((colours / "train" / "4.png").read_bytes())
    (colours / "val" / "100.png").write_bytes((colours / "train" / "4.png").read_bytes() + b" ")
    _, ids = drop_corrupt_images(data, USED, "skip", cache)
    assert set(decoded) == {*broken, colours / "val" / "100.png"}
    assert ids == [9, 102]


def test_without_a_cache_every_image_is_decoded(colours, decoded):
    corrupt(colours)
    for _ in range(2):
        decoded.clear()
        _, ids = drop_corrupt_images(read_captions(colours), USED, "skip", None)
        assert len(ids) == 3
        assert len(decoded) == 23


@pytest.mark.parametrize("content", [b"\xff\xfe not a stamp", b"0123456789"])
def test_a_damaged_cache_does_no_harm(colours, tmp_path, decoded, content):
    """Even half a line of a killed run, after which the next run goes on."""
    data, cache = read_captions(colours), tmp_path / "cache"
    cache.mkdir()
    (cache / DECODED).write_bytes(content)
    for count in (23, 0):
        decoded.clear()
        drop_corrupt_images(data, USED, "skip", cache)
        assert len(decoded) == count


def test_runs_at_the_same_time_add_to_one_cache(colours, tmp_path, decoded, monkeypatch):
    """A run that ends while another one checks loses nothing of the other's."""
    data, cache, load = read_captions(colours), tmp_path / "cache", images.load_image

    def interleaved(path):
        monkeypatch.setattr(images, "load_image", load)
        drop_corrupt_images(data, ("val",), "stop", cache)
        return load(path)

    monkeypatch.setattr(images, "load_image", interleaved)
    drop_corrupt_images(data, ("train",), "stop", cache)
    decoded.clear()
    drop_corrupt_images(data, USED, "stop", cache)
    assert decoded == []


def test_images_decoded_before_a_signal_are_remembered(colours, tmp_path, decoded, monkeypatch):
    data, load = read_captions(colours), images.load_image
    monkeypatch.setattr(inspection, "CHUNK", 4)

    def interrupted(path):
        if path.name == "13.png":
            raise KeyboardInterrupt
        return load(path)

    with monkeypatch.context() as patch:
        patch.setattr(images, "load_image", interrupted)
        with pytest.raises(KeyboardInterrupt):
            drop_corrupt_images(data, USED, "stop", tmp_path / "cache")
    decoded.clear()
    drop_corrupt_images(data, USED, "stop", tmp_path / "cache")
    assert [path.name for path in decoded[:2]] == ["12.png", "13.png"]
    assert len(decoded) == 23 - 12


def test_a_cache_that_fails_later_does_not_hide_the_first_error(colours, tmp_path, monkeypatch):
    cache = tmp_path / "cache"

    def unreachable(_):
        shutil.rmtree(cache)
        cache.touch()
        raise UnreachableError("the server is down")

    monkeypatch.setattr(images, "load_image", unreachable)
    with pytest.raises(UnreachableError, match="the server is down"):
        drop_corrupt_images(read_captions(colours), USED, "stop", cache)


def test_a_cache_that_cannot_be_written(colours, decoded):
    with pytest.raises(InputError, match=r"the cache in .*3.png cannot be written: "):
        drop_corrupt_images(read_captions(colours), USED, "stop", colours / "train" / "3.png")
    assert decoded == []


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [False, True])
def test_training_and_evaluation_leave_out_corrupt_images(
    colours, tmp_path, monkeypatch, frozen, capsys
):
    """Checked before any feature is computed; a resumed run must leave out the same images."""
    broken = corrupt(colours)
    monkeypatch.setattr("captioner.training.setup.image_sizes", lambda _: "")  # not what is tested
    monkeypatch.chdir(tmp_path)
    options = ["--data", "colours", "--run", "mine", *tiny.OPTIONS]
    if frozen:
        torch.manual_seed(3)
        torch.save(SmallCNN().state_dict(), "encoder.pth")
        options += ["--encoder-weights", "encoder.pth"]
    with monkeypatch.context() as patch:
        patch.setattr("captioner.tasks.encoding.FeatureStore", None)
        patch.setattr("captioner.training.run.fit", None)
        with pytest.raises(InputError, match=r"colours \(read as coco\) has 3 problems"):
            train.main(options)
    assert not Path("checkpoints/mine").exists()
    train.main([*options, *SKIP])
    printed = capsys.readouterr().out
    for text in ("train 14 images", "val 6 images", "3 problems skipped"):
        assert text in printed
    listed = [
        json.loads(row) for row in Path("checkpoints/mine/skipped.jsonl").read_text().splitlines()
    ]
    assert [row["file"] for row in listed] == [str(p.relative_to(tmp_path)) for p in broken]
    assert listed[1]["what"] == "the file is empty; replace it"
    evaluate.main(["--checkpoint", "checkpoints/mine", "--workers", "0"])
    printed = capsys.readouterr().out
    assert "val split, 6 images" in printed
    assert "% novel" in printed
    assert f"skipped: {broken[2]}: a web page" in printed
    assert "have changed" not in printed
    train.main([*options, *SKIP, "--resume"])  # the same images
    broken[1].write_bytes((colours / "train" / "4.png").read_bytes())
    message = r"mine/last cannot be resumed: 3 images could not .* \(\[3, 9, 102\]\), but 2 cannot"
    with pytest.raises(InputError, match=message):
        train.main([*options, *SKIP, "--resume"])


def test_git_lfs_pointers_instead_of_images_are_noted(tmp_path):
    """Reading them would show it, but the description reads no image."""
    for name in ("1.jpg", "2.jpg"):
        touch(tmp_path / name)
    (tmp_path / "2.jpg").write_bytes(POINTER)
    write(tmp_path / "captions.csv", "image,caption\n1.jpg,a dog\n2.jpg,a cat\n")
    note = f"note: Git LFS pointers instead of images: 1, such as {tmp_path / '2.jpg'}; run git"
    assert note in describe_data(read_captions(tmp_path))
