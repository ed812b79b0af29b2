"""Captions by image id from every kind of file, and the errors for malformed files."""

import json
from pathlib import Path

import pytest

from captioner.data.caption_files import (
    match,
    normalise_id,
    read_caption_file,
    read_comparison_captions,
    read_predictions,
    read_sentences,
)
from captioner.errors import InputError

TWO = {1: ["a dog", "the dog, red"], "b.jpg": ["a\u2028cat"]}
COCO = {
    "info": {},
    "images": [{"id": 1, "file_name": "1.jpg"}, {"id": "b.jpg"}, {"id": 3}],
    "annotations": [
        {"id": 7, "image_id": 1, "caption": "a dog"},
        {"id": 8, "image_id": "b.jpg", "caption": "a\u2028cat"},
        {"id": 9, "image_id": 1, "caption": "the dog, red"},
    ],
}
ROWS = [
    {"image_id": 1, "caption": "a dog"},
    {"image": "1", "caption": "the dog, red", "split": "val"},
    {"id": "b.jpg", "caption": "a\u2028cat"},
]
FILES = {
    "coco.json": json.dumps(COCO | {"images": COCO["images"][:2]}),
    "results.json": json.dumps(ROWS),
    "rows.jsonl": "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\n\n",
    "crlf.jsonl": "\r\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS),
    "lists.JSONL": '{"image": 1, "captions": ["a dog", "the dog, red"]}\n'
    '{"image": "b.jpg", "captions": ["a\\u2028cat"]}',
    "table.csv": 'id,x,caption\n1,,a dog\n1,,"the dog, red"\nb.jpg,,a\u2028cat\n',
    "tabs.tsv": "Image\tCaption\n1\ta dog\n1\tthe dog, red\nb.jpg\ta\u2028cat\n",
    "names.csv": 'id,File_Name, TEXT \n8,1,a dog\n9,1,"the dog, red"\n10,b.jpg,a\u2028cat\n',
    "names.json": json.dumps(
        [
            {"Image_ID": 1, "Text": ["a dog", "the dog, red"]},
            {"file_name": "b.jpg", "caption": "a\u2028cat"},
        ]
    ),
    "numbered.csv": 'image,caption_1,caption_2\n1,a dog,"the dog, red"\nb.jpg,,a\u2028cat\n',
    "bom.csv": '\ufeffcaption,image\r\na dog,1\r\n"the dog, red",1\r\na\u2028cat,b.jpg\r\n',
}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_gives_the_same_captions(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(FILES[name].encode())
    assert read_caption_file(path) == TWO


def test_coco_images_without_captions_have_an_empty_list(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(COCO))
    assert read_caption_file(str(path)) == {**TWO, 3: []}


def test_a_quoted_caption_may_span_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('image,caption\n1,"a\ndog"\n2\n')
    with pytest.raises(InputError, match=r"a\.csv, line 4: expected 2 columns, found 1"):
        read_caption_file(path)
    path.write_text('image,caption\n1,"a ""big""\ndog"\n')
    assert read_caption_file(path) == {1: ['a "big"\ndog']}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"", r"a\.json is not valid JSON"),
        ("a.json", b"[" * 100_000, r"a\.json is not valid JSON"),
        ("a.json", b"[1" + b"0" * 5000 + b"]", r"a\.json is not valid JSON"),
        ("a.json", b'[{"image_id": 1}', r"a\.json is not valid JSON"),
        ("a.json", b"\xff\xfe", r"a\.json seems to be UTF-16 or UTF-32; save it as UTF-8"),
        (
            "a.json",
            b"7",
            r"a\.json has no captions: as JSON, it must be .*, or COCO annotations; other formats",
        ),
        ("a.json", b"{}", r"a\.json has no captions: as JSON"),
        ("a.json", b'{"annotations": []}', r"a\.json has annotations but no list of images"),
        ("a.json", b"[1]", r"a\.json, entry 1: expected a JSON object, got 1"),
        (
            "a.json",
            b'[{"caption": "a"}]',
            r"entry 1: expected one of the keys image_id, file_name, .*, id, got {'c",
        ),
        (
            "a.json",
            b'[{"id": null, "caption": ""}]',
            "entry 1: None is not an id; use an integer, or text",
        ),
        ("a.json", b'[{"id": true, "caption": ""}]', "entry 1: True is not an id"),
        ("a.json", b'[{"id": 1.5, "caption": ""}]', r"entry 1: 1\.5 is not an id"),
        ("a.json", b'[{"id": "", "caption": ""}]', "entry 1: '' is not an id"),
        ("a.json", b'[{"id": "\\ud800"}]', r"entry 1: the id '\\ud800' is not UTF-8"),
        (
            "a.json",
            b'[{"id": 1}]',
            "entry 1: expected one of the keys caption, text, .*, got {'id': 1}",
        ),
        ("a.json", b'[{"id": 1, "caption": 2}]', "entry 1: the caption 2 is not text; correct it"),
        ("a.json", b'[{"id": 1, "captions": ["a", 2]}]', "entry 1: the caption 2 is not text"),
        (
            "a.json",
            b'[{"id": 1, "caption": "a \\ud83d"}]',
            r"entry 1: the caption 'a \\ud83d' is not UTF-8; correct it",
        ),
        (
            "a.jsonl",
            b'{"id": 1, "caption": "a"}\n\n{"id"',
            r"a\.jsonl, line 3: .* is not a JSON object",
        ),
        ("a.jsonl", b"\n3", r"a\.jsonl, line 2: the line is not a JSON object; correct it"),
        ("a.jsonl", b'{"id": 1' + b"0" * 5000, r"a\.jsonl, line 1: the line is not a JSON object"),
        ("a.csv", b"photo,caption\n1,a\n", r"a\.csv has the columns photo, caption; it needs"),
        ("a.csv", b"image,words\n1,a\n", r"it needs an image column \(image_id, .*, id\) and"),
        ("a.csv", b"image,caption,Caption\n1,a,b", r"a\.csv has the column caption twice; remove"),
        ("a.tsv", b"id\tcaption\tid\n1\ta\t1", r"a\.tsv has the column id twice; remove one"),
        ("a.csv", b"image,caption\n1,\xff\n", r"a\.csv, line 2: the caption .* is not UTF-8"),
        (
            "a.csv",
            b"image,caption\n1,a, b\n",
            r"a\.csv, line 2: expected 2 columns, .*; quote captions",
        ),
        ("a.csv", b'image,caption\n1,"a\n', r"a\.csv, line 2: unexpected end of data"),
    ],
)
def test_malformed_files(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_caption_file(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.csv cannot be read: No such file or directory"):
        read_caption_file(tmp_path / "gone.csv")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": [{"id": 1}, {"id": "b.jpg"}, {"id": "1"}]}, r"lists images twice: 1 id \(1\)"),
        ({"annotations": COCO["annotations"][:1] * 2}, r"lists captions twice: 1 id \(7\)"),
        (
            {"annotations": [{"image_id": 1, "id": [7], "caption": "a"}]},
            r"a\.json, entry 1: \[7\] is not an id",
        ),
        ({"images": [{"id": 5}]}, r"does not list: 2 images \(1, 'b.jpg'\); list"),
        (
            {"images": [{"file_name": "1.jpg"}]},
            r"a\.json, image 1: expected one of the keys id, got",
        ),
    ],
)
def test_inconsistent_annotations(change: dict, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(COCO | change))
    with pytest.raises(InputError, match=message):
        read_caption_file(path)


def test_predictions_have_one_caption_per_image(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"image_id": 2, "caption": "a dog"}, {"image_id": 1, "caption": ""}]')
    assert read_predictions(path) == {2: "a dog", 1: ""}
    path.write_text(json.dumps([{"id": i // 2, "caption": ""} for i in range(25)]))
    images = r"12 images \(0, 1, .*, 9, \.\.\.\)"
    message = rf"a\.json: expected exactly one .*; correct those of {images}$"
    with pytest.raises(InputError, match=message):
        read_predictions(path)
    path.write_text('[{"image_id": 2, "captions": []}]')
    with pytest.raises(InputError, match=r"one caption per image; correct those of 1 image \(2\)$"):
        read_predictions(path)
    path.write_text("[]")
    with pytest.raises(InputError, match=r"a\.json has no captions"):
        read_predictions(path)


def test_quoted_whole_numbers_are_numbers() -> None:
    assert [normalise_id(id) for id in (7, "7", "07", "-7", "7.jpg", "٣", "9" * 30)] == [
        *(7, 7, "07", "-7", "7.jpg", "٣", "9" * 30)
    ]


def test_quoted_numbers_of_at_most_18_digits_are_numbers(tmp_path: Path) -> None:
    """A quoted id of 18 digits is the same as the number in JSON; one of 19 digits is not."""
    assert normalise_id("123456789012345678") == 123456789012345678
    assert normalise_id("1234567890123456789") == "1234567890123456789"
    assert normalise_id(1234567890123456789) == 1234567890123456789
    path = tmp_path / "a.jsonl"
    ids = [123456789012345678, "123456789012345678", 1234567890123456789, "1234567890123456789"]
    path.write_text("".join(json.dumps({"id": id, "caption": "a dog"}) + "\n" for id in ids))
    assert read_caption_file(path) == {
        123456789012345678: ["a dog", "a dog"],
        1234567890123456789: ["a dog"],
        "1234567890123456789": ["a dog"],
    }


# ---- captions and references ---------------------------------------------------------------------


def test_match_of_the_same_images() -> None:
    references = {"b": ["x", "y"], 1: ["z"]}
    assert match({1: "one", "b": "two"}, references) == ({"b": "two", 1: "one"}, references, "")


def test_match_lists_images_without_counterpart() -> None:
    captions = dict.fromkeys(range(20), "a")
    references = {**{id: ["b"] for id in range(15, 32)}, 16: []}
    message = (
        r"^captions and references do not match: 12 images \(20, 21, .*, 29, \.\.\.\) without a "
        r"caption; 15 images \(0, .*\) not among the references; 1 image \(16\) without references"
        r"; pass --allow-missing to score the rest$"
    )
    with pytest.raises(InputError, match=message):
        match(captions, references)
    left, right, note = match(captions, references, allow_missing=True)
    assert list(left) == list(right) == [15, 17, 18, 19]
    assert note.startswith("note: 4 images are scored; 12 images (20, ")
    for empty in (False, True):
        with pytest.raises(
            InputError, match=r"^no image has both a caption and references: 1 image"
        ):
            match({1: "a"}, {2: ["b"]}, allow_missing=empty)
    with pytest.raises(InputError, match="references: there are no images; use the same image"):
        match({}, {})
    assert match({1: "a"}, {1: ["b"], 2: ["c"]}, True)[2].startswith("note: 1 image is scored; ")


def test_comparison_captions_have_the_ids_and_the_order_of_the_request(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("image,caption\n2,two\n1,one\n")
    assert list(read_comparison_captions(path, ["1", 2]).items()) == [("1", "one"), (2, "two")]
    with pytest.raises(
        InputError, match=r"a\.csv has no caption for 2 images \(3, '4.jpg'\); add one for each$"
    ):
        read_comparison_captions(path, ["1", 2, 3, "4.jpg"], allow_more=True)
    with pytest.raises(
        InputError, match=r"a\.csv has captions of images that are not scored: 1 image \(2\)"
    ):
        read_comparison_captions(path, [1])
    assert read_comparison_captions(path, [1], allow_more=True) == {1: "one"}


# ---- as a plain list ----------------------------------------------------------------------------

LINES = {
    "a.txt": "a dog\r\n\n the dog, red \na\u2028cat",
    "captions": "a dog\n the dog, red \na\u2028cat\n",
}
WITHOUT_IMAGES = {
    "a.jsonl": '{"text": "a dog"}\n{"captions": [" the dog, red ", "a\\u2028cat", " "]}\n',
    "a.csv": 'x,Caption\n1,a dog\n,\n2," the dog, red "\n3,a\u2028cat\n',
    "a.tsv": "caption\na dog\n the dog, red \na\u2028cat\n",
    "a.json": '[{"caption": "a dog"}, {"caption": [" the dog, red ", "a\\u2028cat"]}]',
}


def test_sentences_of_images_by_name(tmp_path: Path) -> None:
    """The layouts of JSON are the same as in `read_caption_file`."""
    for content in ({"a.jpg": ["a dog", "red"], "b.jpg": "a cat"}, {"data": [{"text": "a dog"}]}):
        (tmp_path / "a.json").write_text(json.dumps(content))
        found = [sentence for sentence, _ in read_sentences(tmp_path / "a.json")]
        assert found == (["a dog", "red", "a cat"] if "a.jpg" in content else ["a dog"])


@pytest.mark.parametrize("name", [*LINES, *WITHOUT_IMAGES])
def test_sentences_need_no_images(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes((LINES | WITHOUT_IMAGES)[name].encode())
    found = read_sentences(path)
    assert [sentence for sentence, _ in found] == ["a dog", " the dog, red ", "a\u2028cat"]
    assert {value for _, value in found} == {""}


def test_sentences_of_coco_are_in_order(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(COCO))
    found = read_sentences(str(tmp_path / "a.json"), "image_id")
    assert found == [("a dog", "1"), ("a\u2028cat", "b.jpg"), ("the dog, red", "1")]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "caption,KIND\na dog, x \na cat,\na bird,7\n"),
        (
            "a.jsonl",
            '{"caption": "a dog", "kind": "x"}\n{"caption": "a cat", "kind": ""}\n'
            '{"caption": "a bird", "Kind": 7}\n',
        ),
    ],
)
def test_sentences_have_the_values_of_a_column(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    found = read_sentences(tmp_path / name, " Kind")
    assert found == [("a dog", "x"), ("a cat", ""), ("a bird", "7")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"a dog", r"a\.txt is plain text without columns; choose a \.csv"),
        ("a.csv", b"image,kind\n1,2\n", r"has the columns image, kind; it needs a caption column"),
        (
            "a.csv",
            b"caption,sort\na,b\n",
            "line 2: the column 'kind' is missing; choose one of",
        ),
        ("a.jsonl", b'{"kind": 1}', r"line 1: expected one of the keys caption, text"),
        ("a.jsonl", b'{"caption": "a", "kind": [1]}', r"line 1: expected text or a .*, got \[1\]"),
        ("a.jsonl", b'{"caption": "a", "kind": null}', "line 1: expected text or a .*, got None"),
        ("a.jsonl", b'{"caption": "a", "kind": "\\ud800"}', "the value .* of 'kind' is not UTF-8"),
        ("a.jsonl", b'{"caption": null, "kind": 1}', "line 1: the caption None is not text"),
        ("a.json", b"7", r"a\.json has no captions: as JSON, it must be"),
        ("a.json", b"{}", r"a\.json has no captions: as JSON, it must be"),
        ("a.json", b"[]", r"a\.json has no captions; choose another"),
        ("a.csv", b"", r"a\.csv has no captions; choose another"),
    ],
)
def test_wrong_files_of_sentences(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_sentences(tmp_path / name, "kind")


def test_lines_that_are_not_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"a dog\n\x89PNG\xff\n")
    with pytest.raises(
        InputError, match=r"a\.txt, line 2: the caption .* is not UTF-8; correct it"
    ):
        read_sentences(tmp_path / "a.txt")
    (tmp_path / "a.txt").write_bytes(b" \n\n")
    with pytest.raises(InputError, match=r"a\.txt has no captions; choose"):
        read_sentences(tmp_path / "a.txt")
    with pytest.raises(InputError, match=r"gone\.txt cannot be read: No such file"):
        read_sentences(tmp_path / "gone.txt")
