"""Image paths from files, directories, globs and lists; shards; unique names."""

import io
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.data.image_paths import find_images, part_of, unique_names
from captioner.errors import InputError


@pytest.fixture
def working_directory(tmp_path, monkeypatch):
    """A working directory with images and other files in subdirectories."""
    monkeypatch.chdir(tmp_path)
    names = "b/2.png b/10.JPG b/a/z.webp b/notes.txt b/.hidden.png b/.cache/1.png a.jpg c/x[1].png"
    for name in names.split():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "b" / "directory.png").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("sources", "found"),
    [
        ("gone.png b/notes.txt", "gone.png b/notes.txt"),  # unchanged; opening them will fail
        ("b", "b/10.JPG b/2.png b/a/z.webp"),
        ("b/", "b/10.JPG b/2.png b/a/z.webp"),
        ("b/*", "b/10.JPG b/2.png"),
        ("b/**", "b/10.JPG b/2.png b/a/z.webp"),
        ("**/*.png", "b/2.png c/x[1].png"),
        ("c/x[1].png", "c/x[1].png"),  # a file of this name, so not a glob
        ("b/2.png a.jpg b a.jpg", "b/2.png a.jpg b/10.JPG b/a/z.webp"),
        ("- a.jpg", "1.png d/2 3.png a.jpg"),
    ],
)
@pytest.mark.usefixtures("working_directory")
def test_sources_become_paths(sources, found):
    listed = io.BytesIO(b"1.png\n\nd/2 3.png\r\na.jpg")
    expected = ["1.png", "d/2 3.png", "a.jpg"] if "-" in sources else found.split()
    assert find_images(sources.split(), listed) == expected


def test_names_that_are_not_utf8(working_directory):
    name = os.fsdecode(b"b/\xff\xe4.png")
    (working_directory / name).write_bytes(b"")
    assert name in find_images(["b"])
    assert find_images(["-"], [b"b/\xff\xe4.png\n"]) == [name]


@pytest.mark.parametrize("source", ["b/directory.png", "*.gif", "no/*"])
@pytest.mark.usefixtures("working_directory")
def test_sources_without_images(source):
    with pytest.raises(
        InputError, match=r"no images found for .*: no file has .* extensions .apng"
    ):
        find_images([source])


@pytest.mark.usefixtures("working_directory")
def test_a_directory_that_cannot_be_read(monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match="Permission denied: 'b'"):
        find_images(["b"])


@given(st.lists(st.text(), unique=True), st.integers(1, 12))
def test_parts_are_a_partition(images, n):
    parts = [part_of(images, f"{i}/{n}") for i in range(1, n + 1)]
    assert sorted(image for part in parts for image in part) == sorted(images)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for part in parts:  # in the order of the list
        assert list(part) == [image for image in images if image in part]


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "1/0", "a/b", "-1/2", "1/2/3", "", "1.0/2"])
def test_invalid_shards(shard):
    with pytest.raises(InputError, match=r"shard must be i/n with i from 1 to n, e\.g\. 2/8, got"):
        part_of(["a.png"], shard)


def test_unique_names():
    names = unique_names(["a/dog.png", "b/dog.jpg", "dog-1.png", "x.tar/cat.png", "b/c/dog-1-.png"])
    assert list(names.values()) == ["dog-0", "dog-1--", "dog-1", "cat", "dog-1-"]


@given(st.lists(st.text("ab0-1.", min_size=1).map("d/{}".format), unique=True))
def test_unique_names_never_collide(images):
    names = unique_names(images)
    assert list(names) == images
    assert len(set(names.values())) == len(images)
