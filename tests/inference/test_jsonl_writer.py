"""Resumable JSONL: nothing is lost, written twice or mixed with other options."""

import json
import os

import pytest

from captioner.errors import InputError
from captioner.inference import jsonl_writer
from captioner.inference.jsonl_writer import open_jsonl

OPTIONS = {"checkpoint": "abc", "beam_size": 3}
RECORDS = [{"image": f"{i}.png", "caption": "ein Hund läuft"} for i in range(6)]
RECORDS[2] = {"image": os.fsdecode(b"\xff.png"), "error": "broken"}


def fill(path, records, options=OPTIONS):
    """Append the records; returns the images answered and failed before."""
    with open_jsonl(path, options) as jsonl:
        assert list(jsonl.append(records)) == list(records)
    return jsonl.answered, jsonl.failed


def test_records_are_found_again(tmp_path):
    path = tmp_path / "new" / "a.jsonl"
    assert fill(path, RECORDS[:4]) == (set(), set())
    assert [json.loads(line) for line in path.read_text().splitlines()] == RECORDS[:4]
    names = [record["image"] for record in RECORDS]
    assert fill(path, RECORDS[4:]) == (set(names[:4]), {names[2]})
    assert fill(path, []) == (set(names), {names[2]})
    assert [json.loads(line) for line in path.read_text().splitlines()] == RECORDS
    assert sorted(os.listdir(path.parent)) == ["a.jsonl", "a.jsonl.options.json"]


@pytest.mark.parametrize("count", [1, 20, 10**6])
def test_an_incomplete_last_line_is_removed(tmp_path, count):
    path = tmp_path / "a.jsonl"
    fill(path, RECORDS)
    lines = path.read_bytes().splitlines(keepends=True)
    last = lines[-1][: max(1, len(lines[-1]) - count)]  # from one byte to the whole but its end
    path.write_bytes(b"".join(lines[:-1]) + last)
    assert fill(path, RECORDS[-1:])[0] == {record["image"] for record in RECORDS[:-1]}
    assert path.read_bytes() == b"".join(lines)


def test_each_line_is_written_before_the_next_record_is_computed(tmp_path):
    path = tmp_path / "a.jsonl"
    with open_jsonl(path, OPTIONS) as jsonl:
        for number, _ in enumerate(jsonl.append(RECORDS), 1):
            assert len(path.read_bytes().splitlines()) == number


def test_lines_are_synced_to_disk(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    fill(tmp_path / "a.jsonl", RECORDS)
    assert len(synced) == 1
    monkeypatch.setattr(jsonl_writer, "SYNC_SECONDS", -1)
    fill(tmp_path / "b.jsonl", RECORDS)
    assert len(synced) == 1 + len(RECORDS) + 1


def test_other_options_are_rejected(tmp_path):
    path = tmp_path / "a.jsonl"
    fill(path, RECORDS[:1])
    before = path.read_bytes()
    message = (
        r"a.jsonl was written with different options: beam_size was 3 but is now 5; choose another"
    )
    with pytest.raises(InputError, match=message):
        fill(path, RECORDS, {**OPTIONS, "beam_size": 5})
    with pytest.raises(InputError, match="beam_size was 3 but is now None; choose"):
        fill(path, RECORDS, {"checkpoint": "abc"})
    assert path.read_bytes() == before


@pytest.mark.parametrize("options_text", [None, "", "[1]", "{"])
def test_a_file_without_readable_options_is_rejected(tmp_path, options_text):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(RECORDS[0]) + "\n")
    if options_text is not None:
        (tmp_path / "a.jsonl.options.json").write_text(options_text)
    message = r"a.jsonl already exists, and its options cannot be read from .*options.json; choose"
    with pytest.raises(InputError, match=message):
        fill(path, [])


def test_an_empty_file_accepts_any_options(tmp_path):
    path = tmp_path / "a.jsonl"
    fill(path, [])
    fill(path, RECORDS, {"beam_size": 1})
    assert fill(path, [], {"beam_size": 1})[0]


def test_directories_are_created_or_reused(tmp_path):
    path = tmp_path / "a" / "b" / "c.jsonl"
    fill(path, RECORDS[:1])  # neither a nor b exists
    assert path.is_file()
    neighbour = tmp_path / "a" / "b" / "d.jsonl"
    fill(neighbour, RECORDS[:1])  # both exist
    assert neighbour.is_file()


def test_a_file_of_an_older_version_is_resumed(tmp_path):
    """Its records have "picture" for "image"; new lines have "image"."""
    path = tmp_path / "a.jsonl"
    fill(path, [])
    old = [{"picture": "0.png", "caption": "a"}, {"picture": "1.png", "error": "broken"}]
    path.write_text("".join(json.dumps(record) + "\n" for record in old))
    assert fill(path, RECORDS[2:3]) == ({"0.png", "1.png"}, {"1.png"})
    assert fill(path, [])[0] == {"0.png", "1.png", RECORDS[2]["image"]}


@pytest.mark.parametrize("line", ["text", '{"caption": 1}', "[1]", "7", '{"image": []}'])
def test_a_file_with_other_content_is_rejected(tmp_path, line):
    path = tmp_path / "a.jsonl"
    fill(path, RECORDS[:1])
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(
        InputError, match=r"a.jsonl cannot be resumed: line 2 is not a record about an image"
    ):
        fill(path, [])


def test_two_processes_cannot_write_one_file(tmp_path):
    path = tmp_path / "a.jsonl"
    with (
        open_jsonl(path, OPTIONS),
        pytest.raises(InputError, match=r"a.jsonl is being written by another process"),
    ):
        fill(path, RECORDS)
    fill(path, RECORDS)
