"""Files, directories, globs and lists as paths, and the parts of a list."""

import io
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.data.image_paths import find_images, part_of, unique_names
from captioner.errors import InputError


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with images, and other files, in directories."""
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
        ("gone.png b/notes.txt", "gone.png b/notes.txt"),  # as named: opening them will tell
        ("b", "b/10.JPG b/2.png b/a/z.webp"),
        ("b/", "b/10.JPG b/2.png b/a/z.webp"),
        ("b/*", "b/10.JPG b/2.png"),
        ("b/**", "b/10.JPG b/2.png b/a/z.webp"),
        ("**/*.png", "b/2.png c/x[1].png"),
        ("c/x[1].png", "c/x[1].png"),  # a file of this name, and no glob
        ("b/2.png a.jpg b a.jpg", "b/2.png a.jpg b/10.JPG b/a/z.webp"),
        ("- a.jpg", "1.png d/2 3.png a.jpg"),
    ],
)
def test_what_is_named(here, sources, found):
    listed = io.BytesIO(b"1.png\n\nd/2 3.png\r\na.jpg")
    wanted = ["1.png", "d/2 3.png", "a.jpg"] if "-" in sources else found.split()
    assert find_images(sources.split(), listed) == wanted


def test_names_that_are_no_text(here):
    name = os.fsdecode(b"b/\xff\xe4.png")
    (here / name).write_bytes(b"")
    assert name in find_images(["b"])
    assert find_images(["-"], [b"b/\xff\xe4.png\n"]) == [name]


@pytest.mark.parametrize("source", ["b/directory.png", "*.gif", "no/*"])
def test_nothing_there(here, source):
    with pytest.raises(InputError, match=r"no image is found by .*; images end in .bmp .gif"):
        find_images([source])


def test_a_directory_that_cannot_be_looked_into(here, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match="Permission denied: 'b'"):
        find_images(["b"])


@given(st.lists(st.text(), unique=True), st.integers(1, 12))
def test_parts_are_a_partition(images, n):
    parts = [part_of(images, f"{i}/{n}") for i in range(1, n + 1)]
    assert sorted(each for part in parts for each in part) == sorted(images)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for part in parts:  # in the order of the list
        assert list(part) == [each for each in images if each in part]


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "1/0", "a/b", "-1/2", "1/2/3", "", "1.0/2"])
def test_parts_that_cannot_be(shard):
    with pytest.raises(InputError, match="shard must be i/n with i from 1 to n, like 2/8, got"):
        part_of(["a.png"], shard)


def test_names_of_their_own():
    names = unique_names(["a/dog.png", "b/dog.jpg", "dog-1.png", "x.tar/cat.png", "b/c/dog-1-.png"])
    assert list(names.values()) == ["dog-0", "dog-1--", "dog-1", "cat", "dog-1-"]


@given(st.lists(st.text("ab0-1.", min_size=1).map("d/{}".format), unique=True))
def test_names_never_collide(images):
    names = unique_names(images)
    assert list(names) == images and len(set(names.values())) == len(images)
