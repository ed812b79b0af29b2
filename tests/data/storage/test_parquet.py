"""Parquet tables as on the Hugging Face hub: images in a column, read in place."""

import io

import pytest
from PIL import Image

from captioner.data import images
from captioner.data.convert import write_jsonl
from captioner.data.readers import read_captions
from captioner.data.storage import files as storage
from captioner.data.storage.parquet import open_table
from captioner.errors import InputError
from tests.support.layouts import touch

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
COLOURS = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (9, 9, 9), (250, 250, 250)]


def encoded(colour):
    content = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(content, "PNG")
    return content.getvalue()


def write(path, columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table(columns), path, row_group_size=2)
    return path


def column(kind):
    """The images as `datasets` writes them, or as plain bytes."""
    values = [encoded(colour) for colour in COLOURS]
    if kind == "bytes":
        return values
    return [{"bytes": value, "path": "image.png"} for value in values]


@pytest.mark.parametrize("kind", ["object", "bytes"])
@pytest.mark.parametrize(
    "captions",
    [
        {"caption": [["a dog", "the dog"]] * 5},
        {"caption_0": ["a dog"] * 5, "caption_1": ["the dog"] * 5},
        {"text": ['["a dog", "the dog"]'] * 5},
        {"sentences": [[{"raw": "a dog"}, {"raw": "the dog"}]] * 5},
    ],
)
def test_tables_of_the_hub(tmp_path, kind, captions):
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        write(tmp_path / "data" / f"{name}.parquet", {"image": column(kind), **captions})
    data = read_captions(tmp_path)
    assert (data.format, data.problems) == ("parquet", ())
    assert [len(data.split(split)) for split in ("train", "val", "test")] == [9, 1, 5]
    for number, example in enumerate(data.split("test")):
        assert example.captions == ("a dog", "the dog")
        assert example.id == f"test-00000-of-00001/{number:08}"
        assert images.load_image(example.path).getpixel((0, 0)) == COLOURS[number]
        assert storage.container(example.path) == example.path.parent
        assert storage.size(example.path) == len(encoded(COLOURS[number]))
        assert storage.is_file(example.path)
    again = read_captions(write_jsonl(data, tmp_path / "copy"))
    assert [e.captions for e in again.examples] == [e.captions for e in data.examples]
    assert images.load_image(again.examples[-1].path).getpixel((0, 0)) == COLOURS[-1]


def test_a_row_for_each_caption(tmp_path):
    """The image is repeated in each row."""
    table = {"image": column("object")[:2] * 2, "cocoid": [7, 8] * 2, "caption": list("abcd")}
    data = read_captions(write(tmp_path / "validation.parquet", table))
    assert [(e.id, e.captions, e.split) for e in data.examples] == [
        *((7, ("a", "c"), "val"), (8, ("b", "d"), "val"))
    ]


def test_a_row_without_an_image_is_a_problem(tmp_path):
    table = {"image": [encoded(COLOURS[0]), None], "caption": ["a dog", "a cat"]}
    path = write(tmp_path / "a.parquet", table)
    with pytest.raises(InputError, match=r"a.parquet, row 2: the image .*00000001 is missing"):
        read_captions(path)


def test_images_named_in_a_table(tmp_path):
    touch(tmp_path / "images" / "0.jpg")
    path = write(tmp_path / "a.parquet", {"filename": ["0.jpg"], "captions": [["a", "b"]]})
    example = read_captions(path).examples[0]
    assert (example.path, example.captions) == (tmp_path / "images" / "0.jpg", ("a", "b"))
    assert example.id == "0.jpg"


def test_tables_that_cannot_be_read(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"has the columns a, b; it needs an image column and a"):
        read_captions(write(tmp_path / "a.parquet", {"a": [1], "b": [2]}))
    (tmp_path / "b.parquet").write_text("no table")
    with pytest.raises(InputError, match=r"b.parquet is not a readable Parquet file: "):
        read_captions(tmp_path / "b.parquet")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"need pyarrow; run pip install 'captioner\["):
        open_table(tmp_path / "a.parquet")
