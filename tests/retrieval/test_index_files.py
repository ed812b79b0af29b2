"""Files of an index: what is added and removed, what a killed process leaves, what is damaged."""

import gc
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from captioner.errors import InputError
from captioner.retrieval import index_files
from captioner.retrieval.index_files import RegionShape, open_files
from captioner.retrieval.index_writer import IndexWriter, open_writer

ABOUT = ("RUN", "abc", 4)


def rows(first, count):
    return np.arange(first, first + count, dtype=np.float32)[:, None] * np.ones(4, np.float32)


def entries(first, count):
    return [{"image": f"{i}\udc80.jpg", "size": i} for i in range(first, first + count)]


@pytest.fixture
def directory(tmp_path):
    """An index of images 0 to 9."""
    with open_writer(tmp_path / "index", *ABOUT) as writer:
        writer.append(rows(0, 6), entries(0, 6))
        writer.append(rows(6, 4), entries(6, 4))
        assert writer.finish([{"image": "x", "error": "broken"}]) == 10
    return tmp_path / "index"


def numbers(directory):
    """The numbers of the images, which their rows must have too."""
    files = open_files(directory)
    listed = [each["size"] for each in files.entries(range(len(files.rows)))]
    assert files.rows.dtype == np.float16
    assert np.array_equal(files.rows, rows(0, 100)[listed])
    return listed


def test_files_are_plain(directory):
    assert numbers(directory) == list(range(10))
    assert np.array_equal(np.load(directory / "rows-1.npy"), rows(0, 10))
    lines = (directory / "images-1.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == entries(0, 10)
    assert json.loads((directory / "skipped.jsonl").read_text()) == {
        "image": "x",
        "error": "broken",
    }
    assert json.loads((directory / "manifest.json").read_text()) == {
        "checkpoint": "RUN",
        "weights": "abc",
        "dimensions": 4,
        "rows": 10,
        "generation": 1,
        "format": 2,
        "kind": "images",
    }


def test_indexes_of_format_1_contain_images(directory):
    path = directory / "manifest.json"
    content = json.loads(path.read_text())
    del content["kind"]
    path.write_text(json.dumps({**content, "format": 1}))
    assert numbers(directory) == list(range(10))
    assert open_files(directory).manifest.kind == "images"


def test_an_index_of_texts(tmp_path):
    with open_writer(tmp_path / "texts", *ABOUT, "texts") as writer:
        writer.append(rows(0, 3), [{"text": text} for text in ("a", "é", "c")])
        writer.keep([1, 2])
        writer.finish([])
    files = open_files(tmp_path / "texts")
    assert [entry["text"] for entry in files.entries(range(2))] == ["é", "c"]
    assert {path.name for path in (tmp_path / "texts").iterdir()} == {
        *(".lock", "manifest.json", "skipped.jsonl"),
        *("rows-2.npy", "texts-2.jsonl"),
    }


@pytest.mark.parametrize(("kind", "other"), [("images", "texts"), ("texts", "images")])
def test_images_and_texts_are_not_mixed(tmp_path, kind, other):
    with open_writer(tmp_path / "index", *ABOUT, kind) as writer:
        writer.finish([])
    message = f"index contains {kind}, so {other} cannot be added to it; choose another --output"
    with (
        pytest.raises(InputError, match=message),
        open_writer(tmp_path / "index", *ABOUT, other),
    ):
        pass


def test_lines_are_read_in_any_order(directory):
    found = [entry["size"] for entry in open_files(directory).entries([7, 0, 9])]
    assert found == [7, 0, 9]


def test_images_are_found_by_their_path(directory, tmp_path):
    files = open_files(directory)
    assert [files.find(f"{i}\udc80.jpg") for i in range(10)] == list(range(10))
    assert files.find("0") is None
    assert files.find(".jpg") is None
    paths = ['"a": 1, "image": "b.png"', "b.png", 'c\\".png', "ä.png", 'c\\".png, "image": "d"']
    with open_writer(tmp_path / "odd", *ABOUT) as writer:
        assert open_files(tmp_path / "odd").find("b.png") is None
        writer.append(rows(0, 5), ({"image": path, "note": '"image": "b.png"'} for path in paths))
        writer.finish([])
    files = open_files(tmp_path / "odd")
    assert [files.find(path) for path in paths] == list(range(5))
    assert files.find("d") is None


def test_rows_are_removed_and_added(directory):
    with open_writer(directory, *ABOUT) as writer:
        writer.keep([1, 3, 8])
        writer.append(rows(20, 2), entries(20, 2))
        assert [entry["size"] for entry in writer.entries()] == [1, 3, 8, 20, 21]
        assert writer.finish([]) == 5
    assert numbers(directory) == [1, 3, 8, 20, 21]
    names = {path.name for path in directory.iterdir()}
    assert {"rows-2.npy", "images-2.jsonl"} <= names
    assert not {"rows-1.npy", "images-1.jsonl"} & names
    assert np.load(directory / "rows-2.npy").shape == (5, 4)


def test_lines_of_kept_rows_are_changed(directory):
    with open_writer(directory, *ABOUT) as writer:
        writer.keep([1, 3], {3: {"note": "new"}})
        writer.finish([])
    assert numbers(directory) == [1, 3]
    files = open_files(directory)
    assert list(files.entries(range(2))) == [*entries(1, 1), {**entries(3, 1)[0], "note": "new"}]
    with open_writer(directory, *ABOUT) as writer:  # nothing is removed
        writer.keep([0, 1], {0: {"size": 1, "note": "first"}})
        writer.finish([])
    assert [each["note"] for each in open_files(directory).entries(range(2))] == ["first", "new"]
    assert open_files(directory).manifest.generation == 3


def test_nothing_is_copied_if_nothing_is_removed(directory):
    with open_writer(directory, *ABOUT) as writer:
        writer.keep(range(10))
        writer.finish([])
    assert (directory / "rows-1.npy").exists()


def test_all_rows_are_removed(directory):
    with open_writer(directory, *ABOUT) as writer:
        writer.keep([])
        assert writer.finish([]) == 0
    assert numbers(directory) == []


def test_an_open_index_stays_as_it_was(directory):
    files = open_files(directory)
    with open_writer(directory, *ABOUT) as writer:
        writer.append(rows(20, 1), entries(20, 1))
        assert len(open_files(directory).rows) == 11  # readers see rows before the end of the run
        writer.keep([2])
    assert files.rows.shape == (10, 4)
    assert np.array_equal(files.rows, rows(0, 10))


@pytest.mark.parametrize("has_pread", [True, False])  # Windows has none
def test_an_open_index_does_not_see_later_files(directory, monkeypatch, has_pread):
    if not has_pread:
        monkeypatch.delattr(os, "pread", raising=False)
    files = open_files(directory)
    with open_writer(directory, *ABOUT) as writer:
        writer.keep([2])
    assert [entry["size"] for entry in files.entries([7, 0])] == [7, 0]
    shutil.rmtree(directory)
    with open_writer(directory, *ABOUT) as writer:  # generation 1 again, with other lines
        writer.append(rows(30, 10), entries(30, 10))
        writer.finish([])
    assert [entry["size"] for entry in files.entries([7, 0])] == [7, 0]
    assert files.find("3\udc80.jpg") == 3
    assert files.find("33\udc80.jpg") is None


def test_the_lines_are_closed_with_the_index(directory):
    files = open_files(directory)
    file = files.line_file._file
    del files
    gc.collect()
    assert file.closed


class Killed(BaseException):
    """Stands for kill -9: the code after it must not rely on cleaning up."""


def test_a_process_killed_between_rows_and_lines(directory):
    with (directory / "rows-1.npy").open("ab") as file:
        file.write(rows(10, 1).astype(np.float16).tobytes() + b"123")  # one row and a part
    with (directory / "images-1.jsonl").open("ab") as file:
        file.write(b'{"image": "1')
    assert numbers(directory) == list(range(10))
    with open_writer(directory, *ABOUT) as writer:
        assert writer.recovered == []
        writer.append(rows(30, 1), entries(30, 1))
        writer.finish([])
    assert numbers(directory) == [*range(10), 30]


@pytest.mark.parametrize("step", ["_append", "_write_manifest", "_remove_other_generations"])
def test_a_process_killed_while_rows_are_removed(directory, monkeypatch, step):
    def kill(*_):
        raise Killed

    with open_writer(directory, *ABOUT) as writer:
        monkeypatch.setattr(IndexWriter, step, kill)
        with pytest.raises(Killed):
            writer.keep([1, 2])
    monkeypatch.undo()
    expected = [1, 2] if step == "_remove_other_generations" else list(range(10))
    assert numbers(directory) == expected
    with open_writer(directory, *ABOUT) as writer:
        writer.finish([])
    assert numbers(directory) == expected
    assert len(list(directory.glob("rows-*"))) == 1


def test_new_files_are_on_disk_before_old_ones_are_removed(directory, monkeypatch):
    synced, fsync, unlink, removed = set(), os.fsync, Path.unlink, []

    def record(descriptor):
        synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def check(path, missing_ok=False):
        names = ("manifest.json", "rows-2.npy", "images-2.jsonl", ".")
        assert {(directory / name).stat().st_ino for name in names} <= synced
        removed.append(path.name)
        unlink(path, missing_ok)

    with open_writer(directory, *ABOUT) as writer:
        monkeypatch.setattr(os, "fsync", record)
        monkeypatch.setattr(Path, "unlink", check)
        writer.keep([])
    assert sorted(removed) == ["images-1.jsonl", "rows-1.npy"]


@pytest.mark.parametrize("step", ["_remove_other_generations", "_recover"])
def test_a_process_killed_while_the_index_is_created(tmp_path, monkeypatch, step):
    def kill(*_):
        raise Killed

    monkeypatch.setattr(IndexWriter, step, kill)
    with pytest.raises(Killed), open_writer(tmp_path / "index", *ABOUT):
        pass
    monkeypatch.undo()
    with open_writer(tmp_path / "index", *ABOUT) as writer:
        writer.append(rows(0, 2), entries(0, 2))
        writer.finish([])
    assert numbers(tmp_path / "index") == [0, 1]


def cut(path, count):
    content = path.read_bytes()
    path.write_bytes(content[:-count])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "rows-1.npy",
            r"^rows-1.npy is truncated: it has 9 of 10 rows; run captioner index with --output",
        ),
        (
            "images-1.jsonl",
            r"^images-1.jsonl is truncated: it has 9 of 10 lines; run captioner index wi",
        ),
    ],
)
def test_a_truncated_index_is_detected_and_repaired(directory, name, message):
    cut(directory / name, 1)
    with pytest.raises(InputError, match=message):
        open_files(directory)
    with open_writer(directory, *ABOUT) as writer:
        lost = [entry["size"] for entry in writer.recovered]
        writer.finish([])
    assert numbers(directory) == list(range(9))
    assert lost == ([9] if name == "rows-1.npy" else [])


def test_lost_lines_are_kept_until_a_run_finishes(directory):
    cut(directory / "rows-1.npy", 1)
    with open_writer(directory, *ABOUT) as writer:
        assert writer.recovered == entries(9, 1)
    cut(directory / "rows-1.npy", 9)  # two rows
    with open_writer(directory, *ABOUT) as writer:
        assert writer.recovered == [*entries(9, 1), *entries(7, 2)]
        writer.append(rows(9, 1), entries(9, 1))
        writer.finish([])
    with open_writer(directory, *ABOUT) as writer:
        assert writer.recovered == []
    assert numbers(directory) == [*range(7), 9]


def test_lost_lines_are_on_disk_before_they_are_removed(directory, monkeypatch):
    def kill(*_):
        raise Killed

    cut(directory / "rows-1.npy", 1)
    monkeypatch.setattr(os, "truncate", kill)
    with pytest.raises(Killed), open_writer(directory, *ABOUT):
        pass
    monkeypatch.undo()
    assert json.loads((directory / "recovered.jsonl").read_text()) == entries(9, 1)[0]
    with open_writer(directory, *ABOUT) as writer:
        assert writer.recovered == entries(9, 1)


def change(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"format": 4},
            "has format 4, but this version of captioner reads formats up to 3; update",
        ),
        (
            {"dimensions": 5},
            "rows-1.npy is damaged: its header does not match manifest.json; delete",
        ),
        ({"dimensions": 0}, "dimensions must be at least 1 and rows at least 0, got 0 and 10; del"),
        ({"dimensions": "4"}, "is damaged: dimensions, rows and generation must be integers, and"),
        ({"kind": ["texts"]}, r"is damaged: kind must be images or texts, got \['texts'\]; delete"),
        ({"weights": None}, "is damaged: dimensions, rows and generation must be integers, and"),
        ({"extra": 1}, "is damaged: TypeError.*; delete"),
        (
            {"generation": 7},
            "is damaged: images-7.jsonl is missing; delete .*index and run captioner index again$",
        ),
    ],
)
def test_a_manifest_that_cannot_be_used(directory, values, message):
    change(directory / "manifest.json", **values)
    with pytest.raises(InputError, match=message):
        open_files(directory)


def test_damaged_files(directory):
    (directory / "rows-1.npy").write_bytes(b"x" * 300)
    with pytest.raises(InputError, match=r"rows-1.npy is damaged: .*; delete"):
        open_files(directory)
    (directory / "manifest.json").write_text("{")
    with pytest.raises(InputError, match=r"manifest.json is damaged: .*; delete"):
        open_files(directory)
    with pytest.raises(InputError, match="nothing is not an index; write one with captioner index"):
        open_files(directory / "nothing")


def test_a_line_that_is_not_about_an_image(directory):
    path = directory / "images-1.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"image": "3', b'"photo": "3'))
    with pytest.raises(
        InputError, match=r"images-1.jsonl is damaged: a line has no text with the key 'image'"
    ):
        list(open_files(directory).entries([2, 3]))


def test_removal_while_a_reader_opens_the_index(directory, monkeypatch):
    """A manifest read before a removal names files that no longer exist."""
    read, calls = index_files.read_manifest, []

    def read_then_remove(place):
        manifest = read(place)
        if not calls:
            calls.append(1)
            with open_writer(directory, *ABOUT) as writer:
                writer.keep([4])
        return manifest

    monkeypatch.setattr(index_files, "read_manifest", read_then_remove)
    assert numbers(directory) == [4]


def test_only_one_process_writes(directory):
    message = "is being written by another process; wait for it or choose another --output$"
    with (
        open_writer(directory, *ABOUT),
        pytest.raises(InputError, match=message),
        open_writer(directory, *ABOUT),
    ):
        pass


def test_an_index_of_another_checkpoint_is_refused(directory):
    message = "was written with other weights, from RUN; choose another --output, or delete the"
    with pytest.raises(InputError, match=message), open_writer(directory, "RUN", "abd", 4):
        pass
    message = r"contains no regions, but the model has regions of shape \(1, 4, 2, 2\); choose"
    with (
        pytest.raises(InputError, match=message),
        open_writer(directory, *ABOUT, regions=RegionShape(1, 4, 2, 2)),
    ):
        pass
    with open_writer(directory, "MOVED", "abc", 4) as writer:  # the same weights elsewhere
        writer.finish([])
    assert open_files(directory).manifest.checkpoint == "MOVED"


def test_other_directories_are_refused(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"")
    message = "already exists and is not an index; choose another --output$"
    for path in (tmp_path, tmp_path / "photo.jpg"):
        with pytest.raises(InputError, match=message), open_writer(path, *ABOUT):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]
