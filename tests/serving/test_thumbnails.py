"""The store of thumbnails: its limit, other processes, files that cannot be written."""

import io
import logging
import os

import pytest
from PIL import Image

from captioner.errors import InputError
from captioner.serving.server import ThumbnailOptions
from captioner.serving.thumbnails import (
    ThumbnailStore,
    get_thumbnail,
    thumbnail_key,
)
from tests.support import collections


def key(number):
    return f"{number:032x}"


def total(directory):
    return sum(path.stat().st_size for path in directory.rglob("*.jpg"))


@pytest.fixture
def store(tmp_path):
    opened = ThumbnailStore(tmp_path / "store", 1000)
    yield opened
    opened.close()


def test_it_never_exceeds_its_limit_and_deletes_the_oldest(store):
    for number in range(40):
        store.write(key(number), bytes(90))
        os.utime(store._path(key(number)), ns=(number, number))  # a clock may be coarse
        assert total(store.directory) <= 1000
        assert store.read(key(number)) == bytes(90)
    kept = [number for number in range(40) if store.read(key(number)) is not None]
    assert kept == list(range(40 - len(kept), 40))
    assert len(kept) >= 9
    store.write(key(99), bytes(1001))
    assert store.read(key(99)) is None
    store.write(key(39), bytes(95))  # replaces
    assert total(store.directory) <= 1000


def test_a_lower_limit_applies_to_old_files(tmp_path):
    first = ThumbnailStore(tmp_path, 1000)
    for number in range(10):
        first.write(key(number), bytes(90))
    first.close()
    second = ThumbnailStore(tmp_path, 300)
    second.write(key(10), bytes(90))
    assert total(tmp_path) <= 300
    assert second.read(key(10)) is not None
    second.close()


def test_one_process_writes_and_others_read(store, caplog):
    store.write(key(0), b"a")
    other = ThumbnailStore(store.directory, 1000)
    with caplog.at_level(logging.WARNING):
        other.write(key(1), b"b")
        other.write(key(2), b"b")
    assert caplog.text.count("another process is writing to it") == 1
    assert other.read(key(0)) == b"a"
    assert store.read(key(1)) is None
    store.close()
    third = ThumbnailStore(store.directory, 1000)
    third.write(key(1), b"b")
    assert third.read(key(1)) == b"b"
    third.close()


def test_what_a_killed_process_left_behind_is_deleted(tmp_path):
    (tmp_path / "ab").mkdir()
    part = tmp_path / "ab" / ".x.jpg.0.part"
    part.write_bytes(bytes(500))
    store = ThumbnailStore(tmp_path, 1000)
    store.write(key(0), b"a")
    assert not part.exists()
    store.close()


def test_a_directory_that_cannot_be_written(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    store = ThumbnailStore(tmp_path / "file" / "thumbnails", 1000)
    with caplog.at_level(logging.WARNING):
        store.write(key(0), b"a")
        store.write(key(1), b"a")
    assert caplog.text.count("thumbnails are not stored in") == 1
    assert store.read(key(0)) is None


def test_a_thumbnail_is_made_once(tmp_path):
    store = ThumbnailStore(tmp_path / "store", 10**6)
    image = tmp_path / "a.png"
    Image.new("RGB", (900, 300), "red").save(image)
    entry = {"image": str(image)}
    made, unchanged = get_thumbnail(store, entry, "a.png", 10**6)
    assert unchanged
    image.unlink()
    assert get_thumbnail(store, entry, "a.png", 10**6) == (made, True)
    with pytest.raises(InputError, match=r"^a.png cannot be read$"):
        get_thumbnail(None, entry, "a.png", 10**6)
    store.close()


def test_an_image_that_has_changed_is_not_stored(tmp_path, tmp_path_factory):
    images = collections.copy_images(tmp_path_factory, tmp_path / "photos")
    index = collections.write_index(tmp_path_factory, images[:2], tmp_path)
    snapshot = collections.collect(tmp_path_factory, index).snapshot()
    store = ThumbnailStore(tmp_path / "store", 10**6)
    entry = snapshot.image(0)[0]
    os.utime(images[0], (1, 1))  # copied or touched, with the same content
    assert get_thumbnail(store, entry, "a", 10**6)[1]
    entry = snapshot.image(1)[0]
    Image.new("RGB", (20, 20), "red").save(images[1])
    _, unchanged = get_thumbnail(store, entry, "a", 10**6)
    assert not unchanged
    assert store.read(thumbnail_key(entry)) is None
    store.close()


@pytest.mark.parametrize("size", [(1, 1), (5000, 1), (321, 320), (320, 640)])
def test_sizes(size, tmp_path):
    Image.new("RGB", size).save(tmp_path / "a.png")
    content, _ = get_thumbnail(None, {"image": str(tmp_path / "a.png")}, "a.png", 10**6)
    assert content.startswith(b"\xff\xd8")
    assert len(content) < 5000
    with Image.open(io.BytesIO(content)) as image:
        assert max(image.size) == min(320, max(size))


def test_the_limit_of_pixels(tmp_path, caplog):
    path = tmp_path / "a.png"
    Image.new("RGB", (11, 10)).save(path)
    assert get_thumbnail(None, {"image": str(path)}, "a.png", 110)
    with pytest.raises(InputError, match=r"^a.png cannot be read$"):
        get_thumbnail(None, {"image": str(path)}, "a.png", 109)
    assert "11 x 10 pixels exceed the limit of 109" in caplog.text


@pytest.mark.parametrize("container", ["gone.tar", "broken.tar", "gone.parquet", "broken.parquet"])
def test_errors_contain_no_paths(container, tmp_path, caplog):
    if container.startswith("broken"):
        (tmp_path / container).write_bytes(b"nothing")
    for row in ("a.png", "0.png"):
        entry = {"image": f"{tmp_path}/{container}/{row}"}
        with pytest.raises(InputError, match=rf"^{container}/{row} cannot be read$"):
            get_thumbnail(None, entry, f"{container}/{row}", 10**6)
    assert str(tmp_path / container) in caplog.text


def test_an_empty_file_is_not_a_thumbnail(tmp_path):
    """A crash of the machine can leave one behind."""
    store = ThumbnailStore(tmp_path / "store", 10**6)
    image = tmp_path / "a.png"
    Image.new("RGB", (9, 3), "red").save(image)
    entry = {"image": str(image)}
    made, _ = get_thumbnail(store, entry, "a.png", 10**6)
    (path,) = store.directory.glob("??/*.jpg")
    path.write_bytes(b"")
    assert get_thumbnail(store, entry, "a.png", 10**6) == (made, True)
    assert path.read_bytes() == made
    store.close()


def test_options():
    assert ThumbnailOptions().max_thumbnails == 1000
    with pytest.raises(InputError, match="max_thumbnails must be at least 1, got 0"):
        ThumbnailOptions(max_thumbnails=0)
