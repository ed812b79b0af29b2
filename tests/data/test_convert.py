"""Every format converts to JSONL and reads back as the same data set."""

import json

import pytest

from captioner.data.convert import write_jsonl as convert
from captioner.data.readers import read_captions
from captioner.errors import InputError
from tests.support.layouts import WRITERS, numbered_images, write_jsonl, write_webdataset

CAPTIONS = numbered_images(30) | {
    "a.jpg": ['Two dogs, "running"', "ein Hund läuft\u2028schnell", ""]
}


@pytest.mark.parametrize("layout", [name for name in WRITERS if name != "relations"])
def test_every_format_to_jsonl_and_back(tmp_path, layout):
    WRITERS[layout](tmp_path / "data", CAPTIONS)
    data = read_captions(tmp_path / "data")
    assert data.format == layout
    target = convert(data, tmp_path / "new" / "out")
    for path in (target, target.parent):
        again = read_captions(path)
        assert again.format == "jsonl"
        assert not again.problems
        assert not again.note
        assert [(e.id, e.captions, e.split) for e in again.examples] == [
            (e.id, e.captions, e.split) for e in data.examples
        ]
        for one, other in zip(again.examples, data.examples, strict=True):
            assert one.path.resolve() == other.path.resolve()


def test_images_are_linked_not_copied(tmp_path):
    data = read_captions(write_webdataset(tmp_path / "data", CAPTIONS))
    convert(data, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "captions.jsonl",
        "images",
    ]
    assert (tmp_path / "out" / "images").readlink() == tmp_path / "data"
    row = json.loads((tmp_path / "out" / "captions.jsonl").read_text().splitlines()[0])
    assert row["image"] == "images/00000.tar/00.jpg"


@pytest.mark.parametrize("name", ["captions.jsonl", "images"])
def test_nothing_is_overwritten(tmp_path, name):
    data = read_captions(write_jsonl(tmp_path / "data", CAPTIONS))
    (tmp_path / name).symlink_to("nowhere")
    with pytest.raises(InputError, match=f"{name} already exists; choose another directory"):
        convert(data, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["data", name])
