"""Cells and lines with more or less than one caption: in data sets and in files to score."""

import csv
import io
import json

import pytest

from captioner.data.caption_files import read_caption_file
from captioner.data.formats.cells import split_caption
from captioner.data.inspection import describe_data
from captioner.data.readers import read_captions
from captioner.errors import InputError
from tests.support.layouts import touch, write, write_pairs, write_tar

TWO = ["a red dog runs", 'it\'s a "dog", asleep']
LISTS = {
    "python": str(TWO),
    "tuple": str(tuple(TWO)),
    "json": json.dumps(TWO),
    "numpy": "['a red dog runs'\n 'it\\'s a \"dog\", asleep']",
    "numpy repr": f"array({TWO}, dtype=object)",
    "list in numpy": f"list({TWO})",
    "set": "{'a red dog runs', 'it\\'s a \"dog\", asleep'}",
    "postgres": '{"a red dog runs","it\'s a \\"dog\\", asleep"}',
    "karpathy": json.dumps([{"raw": caption, "tokens": []} for caption in TWO]),
}


def table(rows, delimiter=","):
    content = io.StringIO()
    csv.writer(content, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return content.getvalue()


@pytest.mark.parametrize("written", LISTS.values(), ids=LISTS)
@pytest.mark.parametrize(
    "name", ["captions.csv", "captions.tsv", "captions.jsonl", "captions.json"]
)
def test_a_list_in_a_cell_is_several_captions(tmp_path, written, name):
    touch(tmp_path / "1.jpg")
    rows = [["image", "captions"], ["1.jpg", written]]
    text = table(rows, "\t" if name.endswith("tsv") else ",")
    if "json" in name:
        row = json.dumps(dict(zip(*rows, strict=True)))
        text = f"[{row}]" if name.endswith(".json") else row
    write(tmp_path / name, text)
    assert list(read_captions(tmp_path).examples[0].captions) == TWO
    assert read_caption_file(tmp_path / name) == {"1.jpg": TWO}


def test_lists_in_the_lines_of_text_files(tmp_path):
    write_pairs(tmp_path, {"a.jpg": [json.dumps(TWO)]})
    assert list(read_captions(tmp_path).examples[0].captions) == TWO


@pytest.mark.parametrize(
    "caption",
    [
        "[a dog] runs",
        "[UNK] dog",
        "(a dog)",
        "a [red] dog",
        "['a' dog",
        "[1, 2]",
        "1",
        "{a dog}",
        "{'a': 'dog'}",
    ],
)
def test_brackets_alone_are_no_list(caption):
    assert split_caption(caption) == [caption]


def test_deep_lists_are_no_captions():
    deep = [[["a dog"]]]
    assert split_caption(deep) == [["a dog"]]
    for text in ("[" * 5000 + "]" * 5000, "['" + "a', '" * 50_000):
        assert split_caption(text) == [text]


def test_an_empty_list_has_no_captions():
    assert split_caption("[]") == []


@pytest.mark.parametrize("cell", ["['a dog' ... 'b']", "['a dog', 'a big d", '["a dog", "a'])
def test_a_list_that_cannot_be_parsed_is_a_problem(tmp_path, cell):
    """numpy abbreviates long arrays, and Excel cuts off long cells."""
    touch(tmp_path / "1.jpg")
    write(tmp_path / "captions.csv", table([["image", "caption"], ["1.jpg", cell]]))
    for read in (read_captions, read_caption_file):
        path = tmp_path / "captions.csv"
        with pytest.raises(InputError, match=r"line 2: the caption .* is a list that cannot"):
            read(path)


@pytest.mark.parametrize("delimiter", ["\t", ",", ";"])
@pytest.mark.parametrize("ids", ["{}.jpg", "{}"])
def test_a_quote_that_swallows_rows_is_a_problem(tmp_path, delimiter, ids):
    rows = [
        ["image_id" if ids == "{}" else "image", "caption"],
        [ids.format(0), "a plain row"],
        [ids.format(1), '"Happy birthday'],
        [ids.format(2), "a second cake"],
        [ids.format(3), 'the cake says to you"'],
        [ids.format(4), "a row behind"],
    ]
    path = tmp_path / ("captions.tsv" if delimiter == "\t" else "captions.csv")
    write(path, "".join(delimiter.join(row) + "\n" for row in rows))
    message = r"line 3: a quoted cell contains other rows \(skipping lines 3 to 5\); quote the text"
    with pytest.raises(InputError, match=message):
        read_caption_file(path)
    if ids != "{}":
        for i in range(5):
            touch(tmp_path / f"{i}.jpg")
        assert len(read_captions(path, on_error="skip").examples) == 2
        with pytest.raises(InputError, match=message):
            read_captions(path)


def test_a_caption_may_have_several_lines(tmp_path):
    caption = "a dog, brown\na second line, with 2 commas, 3 dots\n"
    write(tmp_path / "a.csv", table([["image_id", "caption"], ["7", caption]]))
    assert read_caption_file(tmp_path / "a.csv") == {7: [caption]}


WRAPPED = ["The image shows a red ball on a", "green lawn. Behind it stands", "a white fence."]


def test_wrapped_sentences_are_noted(tmp_path):
    write_pairs(tmp_path / "wrapped", {f"{i}.jpg": WRAPPED for i in range(3)})
    data = read_captions(tmp_path / "wrapped")
    assert sum(len(example.captions) for example in data.examples) == 9
    note = "in 3 of 3 text files with several lines, a sentence seems to continue on"
    assert f"note: {note}" in describe_data(data)
    assert f"note: {note}" in data.summary()  # training prints it
    members = [("0.jpg", b""), ("0.txt", "\n".join(WRAPPED).encode())]
    write_tar(tmp_path / "tar" / "0.tar", members)
    assert "in 1 of 1 text files" in read_captions(tmp_path / "tar").notes[0]


@pytest.mark.parametrize(
    "lines",
    [["a dog runs", "the dog"], ["A dog runs.", "a brown dog"], ["A dog", "The dog"], WRAPPED[:1]],
)
def test_a_caption_per_line_is_not_noted(tmp_path, lines):
    write_pairs(tmp_path, {f"{i}.jpg": lines for i in range(3)})
    assert read_captions(tmp_path).notes == ()


@pytest.mark.parametrize("separator", ["|", ";", "###"])
def test_separators_of_captions_are_noted(tmp_path, separator):
    for i in range(3):
        touch(tmp_path / f"{i}.jpg")
    rows = [[f"{i}.jpg", f"a dog {i}{separator}the dog"] for i in range(3)]
    write(tmp_path / "captions.csv", table([["image", "caption"], *rows]))
    assert f"3 of 3 captions contain {separator!r}" in read_captions(tmp_path).notes[0]


def test_spaces_after_delimiters_do_not_hide_quotes(tmp_path):
    """In "image, caption", the quote after the space would be part of the caption."""
    write(tmp_path / "captions.csv", 'image, caption\n1.jpg, "a dog, asleep"\n2.jpg, a cat\n')
    touch(tmp_path / "1.jpg")
    touch(tmp_path / "2.jpg")
    captions = {e.id: e.captions for e in read_captions(tmp_path).examples}
    assert captions == {"1.jpg": ("a dog, asleep",), "2.jpg": ("a cat",)}
