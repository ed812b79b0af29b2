"""Images by index, and the order in which a source wants them read."""

import torch
from PIL import Image

from captioner.data import sources
from captioner.data.images import Transform
from captioner.data.sources import ImageSource
from captioner.data.storage import location
from tests.support.layouts import write_tar


def draw(path, colour):
    Image.new("RGB", (9, 6), colour).save(path)
    return path


def test_images_are_transformed_and_stacked(tmp_path):
    colours = ["red", "lime", "blue"]
    paths = [draw(tmp_path / f"{colour}.png", colour) for colour in colours]
    source = ImageSource(paths, Transform(4, mean=(0, 0, 0), std=(1, 1, 1)))
    loaded = source.load([2, 0, 2])
    assert not source.are_features
    assert loaded.shape == (3, 3, 4, 4)
    assert torch.equal(loaded[:, :, 0, 0], torch.eye(3)[[2, 0, 2]])


def test_images_in_plain_files_have_no_groups(tmp_path):
    source = ImageSource([draw(tmp_path / "a.png", "red")] * 3, Transform(4))
    assert list(source.groups) == []


def test_images_in_tar_files_are_grouped_by_file(tmp_path):
    content = draw(tmp_path / "a.png", "red").read_bytes()
    for name in ("x.tar", "y.tar"):
        write_tar(tmp_path / name, [("0.png", content), ("1.png", content)])
    tars = [tmp_path / "x.tar", tmp_path / "y.tar"]
    paths = [tars[0] / "0.png", tars[1] / "0.png", tars[0] / "1.png", tmp_path / "a.png"]
    source = ImageSource(paths, Transform(4))
    assert list(source.groups) == [tars[0], tars[1], tars[0], tmp_path / "a.png"]


def test_the_window_shrinks_with_the_size_of_images_in_tar_files(tmp_path, monkeypatch):
    """Half of the bytes that are kept, and never more than WINDOW images."""
    write_tar(tmp_path / "x.tar", [("0.png", bytes(1000)), ("1.png", bytes(3000))])
    paths = [tmp_path / "x.tar" / "0.png", tmp_path / "x.tar" / "1.png", tmp_path / "a.png"]
    for kept, expected in [(2**30, sources.WINDOW), (40_000, 10), (1000, 0)]:
        monkeypatch.setattr(location, "KEPT_BYTES", kept)
        assert ImageSource(paths, Transform(4)).window == expected


def test_images_that_are_loaded_repeatedly_are_read_once(tmp_path):
    paths = [draw(tmp_path / f"{colour}.png", colour) for colour in ("red", "blue")]
    source = ImageSource(paths, Transform(4), keeps=True)
    first = source.load([0, 1])
    paths[0].unlink()
    assert torch.equal(source.load([1, 0]), first.flip(0))


def test_images_that_need_too_much_memory_are_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "KEPT_BYTES", 2 * 3 * 4 * 4 - 1)
    paths = [draw(tmp_path / f"{colour}.png", colour) for colour in ("red", "blue")]
    source = ImageSource(paths, Transform(4), keeps=True)
    source.load([0, 1])
    draw(paths[0], "blue")
    again = source.load([0, 1])
    assert torch.equal(again[0], again[1])
