"""A file of answers loses nothing, holds nothing twice, and mixes no options."""

import json
import os

import pytest

from captioner.errors import InputError
from captioner.inference import jsonl_writer as answers
from captioner.inference.jsonl_writer import open_jsonl

OPTIONS = {"checkpoint": "abc", "beam_size": 3}
RECORDS = [{"image": f"{i}.png", "caption": "ein Hund läuft"} for i in range(6)]
RECORDS[2] = {"image": os.fsdecode(b"\xff.png"), "error": "broken"}


def fill(path, records, options=OPTIONS):
    """What was answered before and failed before; adds the records."""
    with open_jsonl(path, options) as found:
        assert list(found.append(records)) == list(records)
    return found.answered, found.failed


def test_what_is_written_is_read_again(tmp_path):
    path = tmp_path / "new" / "a.jsonl"
    assert fill(path, RECORDS[:4]) == (set(), set())
    assert [json.loads(line) for line in path.read_text().splitlines()] == RECORDS[:4]
    names = [record["image"] for record in RECORDS]
    assert fill(path, RECORDS[4:]) == (set(names[:4]), {names[2]})
    assert fill(path, []) == (set(names), {names[2]})
    assert [json.loads(line) for line in path.read_text().splitlines()] == RECORDS
    assert sorted(os.listdir(path.parent)) == ["a.jsonl", "a.jsonl.options.json"]


@pytest.mark.parametrize("count", [1, 20, 10**6])
def test_a_line_cut_short_is_dropped(tmp_path, count):
    path = tmp_path / "a.jsonl"
    fill(path, RECORDS)
    lines = path.read_bytes().splitlines(keepends=True)
    last = lines[-1][: max(1, len(lines[-1]) - count)]  # of all of it but the end to a byte
    path.write_bytes(b"".join(lines[:-1]) + last)
    assert fill(path, RECORDS[-1:])[0] == {record["image"] for record in RECORDS[:-1]}
    assert path.read_bytes() == b"".join(lines)


def test_each_line_is_there_before_the_next_is_asked_for(tmp_path):
    path = tmp_path / "a.jsonl"
    with open_jsonl(path, OPTIONS) as found:
        for number, _ in enumerate(found.append(RECORDS), 1):
            assert len(path.read_bytes().splitlines()) == number


def test_lines_are_made_durable(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    fill(tmp_path / "a.jsonl", RECORDS)
    assert len(synced) == 1
    monkeypatch.setattr(answers, "SYNC_SECONDS", -1)
    fill(tmp_path / "b.jsonl", RECORDS)
    assert len(synced) == 1 + len(RECORDS) + 1


def test_other_options(tmp_path):
    path = tmp_path / "a.jsonl"
    fill(path, RECORDS[:1])
    before = path.read_bytes()
    message = r"a.jsonl was made with other options: beam_size was 3 and is 5; name another file"
    with pytest.raises(InputError, match=message):
        fill(path, RECORDS, {**OPTIONS, "beam_size": 5})
    with pytest.raises(InputError, match="beam_size was 3 and is None; name"):
        fill(path, RECORDS, {"checkpoint": "abc"})
    assert path.read_bytes() == before


@pytest.mark.parametrize("beside", [None, "", "[1]", "{"])
def test_a_file_of_unknown_options(tmp_path, beside):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(RECORDS[0]) + "\n")
    if beside is not None:
        (tmp_path / "a.jsonl.options.json").write_text(beside)
    message = "a.jsonl is there already, and .*a.jsonl.options.json does not say what it was made"
    with pytest.raises(InputError, match=message):
        fill(path, [])


def test_an_empty_file_takes_any_options(tmp_path):
    path = tmp_path / "a.jsonl"
    fill(path, [])
    fill(path, RECORDS, {"beam_size": 1})
    assert fill(path, [], {"beam_size": 1})[0]


@pytest.mark.parametrize("line", ["text", '{"caption": 1}', "[1]", "7", '{"image": []}'])
def test_a_file_of_something_else(tmp_path, line):
    path = tmp_path / "a.jsonl"
    fill(path, RECORDS[:1])
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(InputError, match=r"a.jsonl, line 2: no answer about an image"):
        fill(path, [])


def test_two_at_once(tmp_path):
    path = tmp_path / "a.jsonl"
    with (
        open_jsonl(path, OPTIONS),
        pytest.raises(InputError, match=r"a.jsonl is being written by another process"),
    ):
        fill(path, RECORDS)
    fill(path, RECORDS)
