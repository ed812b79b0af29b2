"""What callers pass as images: one or many, of every kind."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from captioner.data import given_images
from captioner.data.given_images import collect_images
from captioner.data.images import load_image
from captioner.data.storage.web import WebImage
from captioner.errors import InputError

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), np.uint8)


@pytest.fixture
def photos(tmp_path):
    for name, pixels in zip(("b.png", "a.png"), PIXELS, strict=True):
        Image.fromarray(pixels).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    return tmp_path


def loaded(images):
    return [np.asarray(load_image(image)).tolist() for image in images]


def test_single_images(photos):
    path = photos / "b.png"
    content = path.read_bytes()
    with path.open("rb") as file:
        ways = [path, str(path), content, bytearray(content), memoryview(content), file]
        ways += [io.BytesIO(content), Image.open(path), PIXELS[0], torch.from_numpy(PIXELS[0])]
        for way in ways:
            collected, is_single = collect_images(way)
            assert is_single
            assert loaded(collected) == loaded(collected) == [PIXELS[0].tolist()], type(way)


def test_several_images(photos):
    both = PIXELS.tolist()
    paths = [photos / "b.png", photos / "a.png"]
    files = [io.BytesIO(path.read_bytes()) for path in paths]
    for way in (
        paths,
        tuple(map(str, paths)),
        iter(paths),
        dict.fromkeys(paths).keys(),
        np.array(list(map(str, paths))),
        np.array(paths, object),
        files,
        PIXELS,
        PIXELS.transpose(0, 3, 1, 2),
        torch.from_numpy(PIXELS).permute(0, 3, 1, 2) / 255,
        [PIXELS[0], paths[1]],
    ):
        collected, is_single = collect_images(way)
        assert not is_single
        assert loaded(collected) == both
    for way in (photos, str(photos), sorted(photos.glob("*.png"))):
        assert loaded(collect_images(way)[0]) == both[::-1]
    assert collect_images([]) == ([], False)
    assert collect_images(PIXELS[:0]) == ([], False)


def test_a_directory_without_images(tmp_path):
    with pytest.raises(InputError, match="no images found"):
        collect_images(tmp_path)


def test_channels_of_opencv(photos):
    bgr = PIXELS[..., ::-1]
    assert loaded(collect_images(bgr, bgr=True)[0]) == PIXELS.tolist()
    assert loaded(collect_images(list(bgr), bgr=True)[0]) == PIXELS.tolist()
    assert loaded(collect_images(bgr[0], bgr=True)[0]) == [PIXELS[0].tolist()]
    for way in (photos / "a.png", photos, [photos / "a.png"]):
        with pytest.raises(InputError, match="bgr=True applies to arrays and tensors only"):
            collect_images(way, bgr=True)


def test_file_objects_that_cannot_be_used(photos, monkeypatch):
    with (photos / "notes.txt").open() as file, pytest.raises(InputError, match="binary mode"):
        collect_images(file)
    with pytest.raises(InputError, match="closed file; open it again, in mode 'rb'"):
        collect_images(file)
    monkeypatch.setattr(given_images, "MAX_BYTES", 10)
    endless = io.BytesIO(b"x" * 100)
    collect_images(endless)
    assert endless.tell() == 11  # no more is read than shows that there is too much


def test_load_image_refuses_file_objects(photos):
    with (photos / "a.png").open("rb") as file:
        with pytest.raises(InputError, match=r"got BufferedReader; pass its content, file\.read"):
            load_image(file)
        assert load_image(file.read()).size


def test_urls_are_refused_unless_allowed():
    url = "https://example.org/a.jpg"
    assert collect_images(url)[0] == [url]
    with pytest.raises(InputError, match="only if URLs are allowed; pass allow_urls=True"):
        load_image(url)
    assert collect_images([url], allow_urls=True)[0] == [WebImage(url)]
    assert collect_images(url, allow_urls="private")[0] == [WebImage(url, allow_private=True)]
    member = "https://example.org/a.tar/a.jpg"  # members of tar files were always read
    assert collect_images(member, allow_urls=True)[0] == [member]
    assert collect_images(Path("http.jpg"), allow_urls=True)[0] == [Path("http.jpg")]


@pytest.mark.parametrize("value", [None, 7, {"a": 1}])
def test_other_values_are_left_to_load_image(value):
    (only,), is_single = collect_images(value)
    assert is_single
    with pytest.raises(InputError, match="an image must be a path"):
        load_image(only)
