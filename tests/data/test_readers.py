"""Reading data sets: Flickr8k, Kaggle and COCO layouts, and what all layouts share."""

import itertools
import json
import os
import random
import re
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captioner.data.convert import write_jsonl
from captioner.data.dataset import Example
from captioner.data.formats.reading import is_safe_name, read_lines
from captioner.data.readers import READERS, read_captions
from captioner.data.splits import assign_splits
from captioner.errors import InputError
from tests.support.layouts import (
    LISTS,
    WRITERS,
    coco,
    numbered_images,
    touch,
    write,
    write_coco,
    write_flickr8k,
    write_kaggle,
)

# Separators at which str.splitlines would split.
SEPARATORS = ["a\u2028b", "a\x0bb", "a\x85b", "a\x0cb", "a\x1cb", "a\u2029b"]


def ids(data, split):
    return [example.id for example in data.split(split)]


# ---- Flickr8k as published -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "present", [s for n in range(4) for s in itertools.combinations(LISTS, n)], ids="+".join
)
def test_flickr8k_with_any_of_its_lists_missing(tmp_path, present):
    captions = numbered_images(20)
    names = list(captions)
    lists = {"train": names[8:2:-1], "val": names[9:12], "test": names[12:15]}
    data = read_captions(write_flickr8k(tmp_path, captions, {s: lists[s] for s in present}))
    assert data.format == "flickr8k"
    found = {split: [e.id for e in data.examples if e.split == split] for split in LISTS}
    if not present:
        assert [len(found[split]) for split in LISTS] == [16, 2, 2]
    else:
        listed = {name for split in present for name in lists[split]}
        rest = [name for name in names if name not in listed]
        training = lists["train"] if "train" in present else rest
        if "val" in present:
            assert sorted(found["val"]) == sorted(lists["val"])
        else:  # a tenth of the training images
            assert len(found["val"]) == 1
        assert sorted(found["train"] + found["val"]) == sorted(
            [*training, *(lists["val"] if "val" in present else [])]
        )
        assert sorted(found["test"]) == (sorted(lists["test"]) if "test" in present else [])
    for example in data.examples:
        assert example.captions == tuple(captions[example.id])
        assert example.path == tmp_path / "Flicker8k_Dataset" / example.id


@pytest.mark.parametrize(
    ("text", "images"),
    [("Flickr8k_text", "Flickr8k_Dataset"), ("", "Flicker8k_Dataset"), ("", "Images")],
)
def test_flickr8k_unpacked_into_other_directories(tmp_path, text, images):
    write_flickr8k(tmp_path, numbered_images(3), {"train": ["00.jpg"]}, text=text, images=images)
    data = read_captions(tmp_path)
    assert (data.format, ids(data, "train")) == ("flickr8k", ["00.jpg"])


@pytest.mark.parametrize(
    "lists",
    [
        {"train": ["00.jpg", "02.jpg"]},
        {"train": ["00.jpg"], "val": ["02.jpg"]},
        {"val": ["02.jpg"]},
        {"test": ["02.jpg"]},
        {},
    ],
)
def test_flickr8k_captions_of_an_unlisted_missing_image_are_ignored(tmp_path, lists):
    """The published token file has such captions."""
    lost = "2258277193_586949ec62.jpg.1"
    captions = {"00.jpg": ["a dog"], lost: ["a cat", "the cat"], "02.jpg": ["a bird"]}
    write_flickr8k(tmp_path, captions, lists)
    (tmp_path / "Flicker8k_Dataset" / lost).unlink()
    assert [example.id for example in read_captions(tmp_path).examples] == ["00.jpg", "02.jpg"]


@pytest.mark.parametrize(
    "lists", [{"val": ["00.jpg", "01.jpg"]}, {"train": ["01.jpg"]}, {"test": ["00.jpg"]}, {}]
)
def test_flickr8k_missing_images_are_problems(tmp_path, lists):
    """Listed images must exist, and unlisted ones if they are training images."""
    write_flickr8k(tmp_path, numbered_images(3), lists)
    (tmp_path / "Flicker8k_Dataset" / "01.jpg").unlink()
    with pytest.raises(
        InputError, match=r"line \d: the image .*/01\.jpg is missing; add the file, or"
    ):
        read_captions(tmp_path)


@pytest.mark.parametrize("lists", [{}, {"train": ["00.jpg", "01.jpg"]}])
def test_flickr8k_without_any_images(tmp_path, lists):
    write_flickr8k(tmp_path, numbered_images(2), lists)
    for path in tmp_path.rglob("*.jpg"):
        path.unlink()
    with pytest.raises(
        InputError, match=r"has 2 problems(?s:.*)00.jpg is missing(?s:.*)01.jpg is missing"
    ):
        read_captions(tmp_path)


def test_flickr8k_without_a_val_list_takes_val_from_train(tmp_path):
    names = list(numbered_images(50))
    lists = {"train": names[:39], "test": names[39:]}
    data = read_captions(write_flickr8k(tmp_path, numbered_images(50), lists))
    val = ids(data, "val")
    assert len(val) == 3
    assert set(val) < set(names[:39])
    assert val != names[:3]
    assert ids(data, "train") == [name for name in names[:39] if name not in val]
    assert ids(data, "test") == names[39:]
    assert ids(read_captions(tmp_path), "val") == val
    write_flickr8k(tmp_path, dict(reversed(numbered_images(50).items())), {})
    assert sorted(ids(read_captions(tmp_path), "val")) == sorted(val)


def test_flickr8k_line_without_a_tab(tmp_path):
    write_flickr8k(tmp_path, {}, {}, images="Images")
    touch(tmp_path / "Images" / "a.jpg")
    source = tmp_path / "Flickr8k_text" / "Flickr8k.token.txt"
    source.write_text("a.jpg#0\ta dog\n\na.jpg#1 a dog\n")
    with pytest.raises(
        InputError,
        match=r"token.txt, line 3: the tab between image and caption is missing; insert it",
    ):
        read_captions(tmp_path)


def test_flickr8k_image_in_two_splits(tmp_path):
    write_flickr8k(
        tmp_path, numbered_images(3), {"train": ["00.jpg", "01.jpg"], "test": ["01.jpg"]}
    )
    with pytest.raises(
        InputError,
        match=r"test.*, line 1: 01.jpg is listed in test and also in train, at .*train.*, line 2;",
    ):
        read_captions(tmp_path)


def test_flickr8k_listed_images_without_captions_are_problems(tmp_path):
    write_flickr8k(tmp_path, numbered_images(3), {"val": ["00.jpg", "x.jpg", "y.jpg"]})
    with pytest.raises(
        InputError,
        match=r"dev.*, line 2: x.jpg has no captions in Flickr8k.token.txt(?s:.*)line 3: y.jpg has",
    ):
        read_captions(tmp_path)


# ---- Kaggle's Flickr8k ---------------------------------------------------------------------------


def test_kaggle(tmp_path):
    captions = numbered_images(30)
    captions["00.jpg"] = ['A dog , a "cat" and a man', "plain", "one, two, three", '"quoted"']
    data = read_captions(write_kaggle(tmp_path, captions))
    assert data.format == "kaggle"
    assert {e.id: list(e.captions) for e in data.examples} == captions
    assert {e.path for e in data.examples} == {tmp_path / "Images" / name for name in captions}
    assert [len(data.split(split)) for split in ("train", "val", "test")] == [24, 3, 3]


def test_kaggle_header_in_other_letter_case(tmp_path):
    write_kaggle(tmp_path, numbered_images(1))
    write(tmp_path / "captions.txt", "Image, Caption\n00.jpg,a dog\n")
    assert read_captions(tmp_path).examples[0].captions == ("a dog",)


def test_kaggle_without_a_header(tmp_path):
    write_kaggle(tmp_path, numbered_images(1))
    write(tmp_path / "captions.txt", "00.jpg,a dog\n\n  \n00.jpg,a cat\n")
    assert read_captions(tmp_path).examples[0].captions == ("a dog", "a cat")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            "00.jpg,a dog, running",
            r"line 4: expected 2 columns \(image, caption\), found 3; quote captions that contain",
        ),
        ("00.jpg", r"line 4: expected 2 columns \(image, caption\), found 1"),
        ('00.jpg,"a dog', "line 4: unexpected end of data"),
        ('00.jpg,"a dog" runs', "line 4: ',' expected after '\"'"),
        ("00.jpg,a\rdog", "line 4: new-line character seen in unquoted field"),
    ],
)
def test_kaggle_malformed_rows(tmp_path, row, message):
    write_kaggle(tmp_path, numbered_images(1))
    write(tmp_path / "captions.txt", f"image,caption\n00.jpg,a dog\n\n{row}\n")
    with pytest.raises(InputError, match=f"captions.txt, {message}"):
        read_captions(tmp_path)


CSV_TEXT = st.text(st.characters(exclude_characters="\r", codec="utf-8"))


@settings(deadline=None)  # it writes files
@given(
    st.lists(
        st.builds(
            "{}{}{}".format, CSV_TEXT, st.characters(min_codepoint=97, max_codepoint=122), CSV_TEXT
        ),
        min_size=1,
    )
)
def test_kaggle_reads_any_caption_that_csv_can_represent(tmp_path_factory, captions):
    root = write_kaggle(tmp_path_factory.mktemp("kaggle"), {"a.jpg": captions})
    assert list(read_captions(root).examples[0].captions) == captions


def test_splits_depend_on_ids_and_seed_but_not_on_the_order_of_rows(tmp_path):
    names = list(numbered_images(59))
    examples = [Example(name, tmp_path / name, ("a",), "train") for name in names]
    shuffled = random.Random(1).sample(examples, 59)
    split = {example.id: example.split for example in assign_splits(examples)}
    assert split == {example.id: example.split for example in assign_splits(shuffled)}
    assert split != {example.id: example.split for example in assign_splits(examples, seed=1)}
    assert [name for name in names if split[name] == "val"] != names[:5]
    assert [list(split.values()).count(s) for s in ("train", "val", "test")] == [49, 5, 5]


@pytest.mark.parametrize(
    ("count", "sizes"),
    [
        (0, [0, 0, 0]),
        (1, [1, 0, 0]),
        (2, [1, 1, 0]),
        (3, [1, 1, 1]),
        (9, [7, 1, 1]),
        (10, [8, 1, 1]),
        (20, [16, 2, 2]),
    ],
)
def test_splits_of_few_images(tmp_path, count, sizes):
    examples = [Example(name, tmp_path / name, ("a",), "train") for name in numbered_images(count)]
    found = [example.split for example in assign_splits(examples)]
    assert [found.count(split) for split in ("train", "val", "test")] == sizes


# ---- COCO ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("year", ["2014", "2017", ""])
def test_coco_years(tmp_path, year):
    write_coco(tmp_path, f"train{year}", coco({1: ["a dog", "the dog"], 2: ["a cat"]}))
    write_coco(tmp_path, f"val{year}", coco({3: ["a bird"]}))
    write(tmp_path / "annotations" / f"instances_train{year}.json", "{}")  # published together
    data = read_captions(tmp_path)
    assert data.format == "coco"
    directory = tmp_path / f"train{year}"
    assert data.split("train") == [
        Example(1, directory / "1.jpg", ("a dog", "the dog"), "train"),
        Example(2, directory / "2.jpg", ("a cat",), "train"),
    ]
    assert ids(data, "val") == [3]


@pytest.mark.parametrize("directory", ["images/train2017", "images", "train"])
def test_coco_image_directories(tmp_path, directory):
    write_coco(tmp_path, "train2017", coco({1: ["a dog"]}), directory=directory)
    assert read_captions(tmp_path).examples[0].path == tmp_path / directory / "1.jpg"


def test_coco_prefers_the_later_of_two_years(tmp_path):
    write_coco(tmp_path, "train2014", coco({1: ["old"]}))
    write_coco(tmp_path, "train2017", coco({1: ["new"]}))
    assert read_captions(tmp_path).examples[0].captions == ("new",)


def test_coco_ignores_files_of_other_splits(tmp_path):
    """`trainval` sorts after `train` and has it as a prefix."""
    write_coco(tmp_path, "train2017", coco({1: ["a dog"]}))
    for other in ("trainval2017", "train2017-old", "train_2018"):
        write_coco(tmp_path, other, coco({1: ["a dog"], 2: ["a cat"]}))
    data = read_captions(tmp_path)
    assert [(example.id, example.split) for example in data.examples] == [(1, "train")]
    (tmp_path / "annotations" / "captions_train2017.json").unlink()
    with pytest.raises(InputError, match="contains no captions in a known layout"):
        read_captions(tmp_path)


def test_coco_without_its_images(tmp_path):
    write_coco(tmp_path, "train2017", coco({1: ["a dog"]}), directory="elsewhere")
    assert read_captions(tmp_path).examples[0].path == tmp_path / "elsewhere" / "1.jpg"
    (tmp_path / "elsewhere" / "1.jpg").unlink()
    message = (
        rf"are missing: 1.jpg is neither in {tmp_path} nor below it; copy .* {tmp_path}/images$"
    )
    with pytest.raises(InputError, match=message):
        read_captions(tmp_path)


def test_coco_ids_are_unique_within_a_file(tmp_path):
    """Exporters count from 1 in each split; each split has its own images."""
    for split, captions in (("train", {1: ["a dog"], 2: ["a cat"]}), ("val", {2: ["a cow"]})):
        write_coco(tmp_path / "data", split, coco(captions))
    data = read_captions(tmp_path / "data")
    assert (ids(data, "train"), ids(data, "val")) == ([1, 2], [2])
    assert data.split("val")[0].captions == ("a cow",)
    again = read_captions(write_jsonl(data, tmp_path / "copy"))
    assert [(e.id, e.captions, e.split) for e in again.examples] == [
        (e.id, e.captions, e.split) for e in data.examples
    ]


def test_coco_image_in_two_splits(tmp_path):
    write_coco(tmp_path, "train2017", coco({1: ["a dog"], 2: ["a cat"]}), directory="images")
    write_coco(tmp_path, "val2017", coco({2: ["a cat"]}), directory="images")
    with pytest.raises(
        InputError,
        match=r"val2017.json, image 1: image 2 is listed in train and in val, first at .*image 2",
    ):
        read_captions(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c["images"].append(c["images"][0]),
            "image 3: image 1 is listed twice, first at .*, image 1; remove one",
        ),
        (
            lambda c: c["annotations"].append({"image_id": 7, "caption": "lost"}),
            "annotation 3: the caption belongs to image 7, which the file does not list; list",
        ),
        (
            lambda c: c["annotations"].append({"image_id": "1", "caption": "a text for a number"}),
            "annotation 3: the caption belongs to image '1', which the file does not list; it "
            "lists 1; write both ids as numbers",
        ),
        (
            lambda c: c["annotations"].append({**c["annotations"][1], "caption": "the cat"}),
            "annotation 3: caption 20 is listed twice, first at .*, annotation 2; remove",
        ),
        (
            lambda c: c.pop("annotations"),
            "is not a COCO caption file: it has no list of objects named 'annotations'",
        ),
        (
            lambda c: c["annotations"].append({"image_id": 1}),
            "annotation 3: the caption None is not text",
        ),
        (
            lambda c: c["annotations"].append({"caption": "a dog"}),
            "annotation 3: the caption belongs to image None, which",
        ),
        (
            lambda c: c["images"].append({"id": [], "file_name": "1.jpg"}),
            r"image 3: the id \[\] is neither an integer nor text",
        ),
        (
            lambda c: c["images"].append({"id": 9, "file_name": "1.jpg"}),
            "image 3: image 9 has the same file 1.jpg as image 1 at .*, image 1; remove one",
        ),
        (
            lambda c: c["images"].append({"id": "1", "file_name": "9.jpg"}),
            "image 3: image '1' has the same id as 1 at .*, image 1; write all ids as numbers, or",
        ),
        (lambda c: c["images"][0].update(file_name=5), "5 is not the name of a file"),
        (
            lambda c: c["images"][0].update(file_name="../1.jpg"),
            "'../1.jpg' is not the name of a file",
        ),
    ],
)
def test_coco_inconsistent_files(tmp_path, change, message):
    content = coco({1: ["a dog"], 2: ["a cat"]})
    write_coco(tmp_path, "train2017", content)
    change(content)
    write(tmp_path / "annotations" / "captions_train2017.json", json.dumps(content))
    with pytest.raises(InputError, match=rf"captions_train2017.json.*{message}"):
        read_captions(tmp_path)


def test_links_that_lead_out_of_the_directory(tmp_path):
    """A stranger's archive may contain links; the file is never opened."""
    write_coco(tmp_path / "data", "train2017", coco({1: ["a dog"], 2: ["a cat"], 3: ["a cow"]}))
    images = tmp_path / "data" / "train2017"
    (tmp_path / "secret.jpg").write_bytes((images / "1.jpg").read_bytes())
    (images / "1.jpg").unlink()
    (images / "1.jpg").symlink_to("../../secret.jpg")
    (images / "2.jpg").unlink()
    (images / "2.jpg").symlink_to("3.jpg")
    message = (
        f"the image {images / '1.jpg'} is a link to {(tmp_path / 'secret.jpg').resolve()}, outside "
        f"{images}; copy the file, or link its whole directory"
    )
    with pytest.raises(InputError, match=f"has 1 problem.*{re.escape(message)}"):
        read_captions(tmp_path / "data")
    images.rename(tmp_path / "disk")
    (tmp_path / "disk" / "1.jpg").unlink()
    (tmp_path / "disk" / "1.jpg").symlink_to("3.jpg")
    images.symlink_to(tmp_path / "disk")  # the owner's link to a disk is followed
    assert len(read_captions(tmp_path / "data").examples) == 3


def test_links_into_the_cache_of_the_hub_are_followed(tmp_path):
    repository = tmp_path / "datasets--me--set"
    write_coco(repository / "snapshots" / "0123", "train2017", coco({1: ["a dog"], 2: ["a cat"]}))
    (repository / "blobs").mkdir()
    image = repository / "snapshots" / "0123" / "train2017" / "1.jpg"
    image.rename(repository / "blobs" / "1f")
    image.symlink_to("../../../blobs/1f")
    assert len(read_captions(repository / "snapshots" / "0123").examples) == 2


@pytest.mark.parametrize("name", ["captions.jsonl", "captions.csv", "captions.txt", "train.json"])
def test_a_pipe_as_caption_file_is_refused_at_once(tmp_path, name):
    os.mkfifo(tmp_path / name)
    for path in (tmp_path, tmp_path / name):
        started = time.monotonic()
        with pytest.raises(InputError):
            read_captions(path)
        assert time.monotonic() - started < 5
    with pytest.raises(InputError, match=f"{name} is not a regular file; save its content as a f"):
        read_lines(tmp_path / name)
    with pytest.raises(InputError, match=r"is a directory; choose a file$"):
        read_lines(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ("", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ("[]", "is not a COCO caption file"),
        ("7", "is not a COCO caption file"),
        ('{"images": {}, "annotations": 3}', "is not a COCO caption file"),
    ],
)
def test_files_that_are_not_coco(tmp_path, text, message):
    write_coco(tmp_path, "val2014", coco({1: ["a dog"]}))
    write(tmp_path / "annotations" / "captions_val2014.json", text)
    with pytest.raises(InputError, match=f"captions_val2014.json {message}"):
        read_captions(tmp_path)


# ---- all layouts ---------------------------------------------------------------------------------

JSON_LAYOUTS = {"coco", "karpathy"}  # a file is read completely or not at all


NOT_EDITED = ("webdataset", "multi30k", "parquet", "relations")


@pytest.fixture(params=[name for name in WRITERS if name not in NOT_EDITED])
def layout(request):
    """Any layout except those whose captions these tests cannot edit together with the names."""
    return request.param


def find_file(root, needle):
    """The file below `root` that contains these bytes."""
    return next(p for p in root.rglob("*") if p.is_file() and needle in p.read_bytes())


def test_every_reader_has_a_writer():
    # parquet needs an extra package, and test_tags.py writes tags, which are no sentences
    assert WRITERS.keys() == READERS.keys() - {"parquet", "tags"}


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_bom_crlf_and_unicode_line_separators(tmp_path, layout, bom, line_end):
    captions = {f"{i}.jpg": [caption, f"plain {i}"] for i, caption in enumerate(SEPARATORS)}
    WRITERS[layout](tmp_path, captions)
    for path in (p for p in tmp_path.rglob("*") if p.is_file() and p.suffix != ".jpg"):
        path.write_bytes(bom + path.read_bytes().replace(b"\n", line_end))
    found = read_captions(tmp_path).examples
    assert [list(example.captions) for example in found] == list(captions.values())
    assert [example.path.name for example in found] == list(captions)


def test_captions_in_any_script(tmp_path, layout):
    captions = {"0.jpg": ["ein Hund läuft", "собака бежит", "犬が走る", "a dog 🐕 runs"]}
    WRITERS[layout](tmp_path, captions)
    assert list(read_captions(tmp_path).examples[0].captions) == captions["0.jpg"]


EMPTY = {
    "coco": '{"images": [], "annotations": []}',
    "karpathy": '{"images": []}',
    "kaggle30k": "image_name| comment_number| comment\n",
}


def test_file_without_captions(tmp_path, layout):
    if layout == "pairs":
        pytest.skip("without captions the directory is not recognised")
    WRITERS[layout](tmp_path, {"0.jpg": ["a dog"]})
    for path in tmp_path.rglob("Flickr_8k.*"):
        path.unlink()
    find_file(tmp_path, b"a dog").write_text(EMPTY.get(layout, ""))
    message = rf"{tmp_path} \(read as {layout}\) has no usable captions; choose another data set$"
    with pytest.raises(InputError, match=message):
        read_captions(tmp_path)


def test_kaggle_with_only_a_header(tmp_path):
    write_kaggle(tmp_path, {})
    (tmp_path / "Images").mkdir()
    with pytest.raises(InputError, match=r"has no usable captions; choose another data set$"):
        read_captions(tmp_path)


def test_captions_that_are_not_utf8(tmp_path, layout):
    WRITERS[layout](tmp_path, {"0.jpg": ["a dog"], "1.jpg": ["a caf\xe9"]})
    source = find_file(tmp_path, "\xe9".encode())
    start = source.read_bytes().index("\xe9".encode())
    source.write_bytes(source.read_bytes().replace("\xe9".encode(), b"\xe9"))
    line = source.read_bytes()[:start].count(b"\n") + 1
    wrong = ", line {line}: the caption 'a caf\\udce9' is not UTF-8; write it as UTF-8"
    if layout in JSON_LAYOUTS:
        wrong = f" is not UTF-8 (byte {start}); convert it to UTF-8"
    with pytest.raises(InputError, match=re.escape(source.name + wrong.format(line=line))):
        read_captions(tmp_path)


def test_missing_images_are_counted_and_twenty_are_listed(tmp_path, layout):
    if layout == "pairs":
        pytest.skip("it finds images by listing the directory")
    WRITERS[layout](tmp_path, {f"{i}.jpg": ["a dog"] for i in range(25)})
    for path in tmp_path.rglob("*.jpg"):
        if path.name not in ("0.jpg", "1.jpg", "2.jpg"):
            path.unlink()
    with pytest.raises(InputError, match="has 22 problems; correct them or pass --on") as caught:
        read_captions(tmp_path)
    lines = str(caught.value).splitlines()[1:]
    wrong = ".jpg is missing; add the file, or remove the row that names it"
    assert all(line.endswith(wrong) for line in lines[:-1])
    assert len(lines) == 21
    assert lines[-1] == "  and 2 more"
    data = read_captions(tmp_path, on_error="skip")
    assert sorted(e.path.name for e in data.examples) == ["0.jpg", "1.jpg", "2.jpg"]
    assert len(data.problems) == 22
    assert data.summary().endswith("; 22 problems skipped")


def test_problems_are_listed_if_no_image_is_left(tmp_path, layout):
    if layout == "pairs":
        pytest.skip("it finds images by listing the directory")
    WRITERS[layout](tmp_path, {"0.jpg": ["a dog"]})
    next(tmp_path.rglob("*.jpg")).unlink()
    message = (
        r"has no usable captions; correct the problems:\n  \S.*: the image .*\.jpg is missing; add"
    )
    with pytest.raises(InputError, match=message):
        read_captions(tmp_path, on_error="skip")


@pytest.mark.parametrize("wordless", ["", "  ", "...", "- ; -"])
def test_images_whose_captions_have_no_word(tmp_path, layout, wordless):
    WRITERS[layout](tmp_path, {"0.jpg": ["a dog"], "1.jpg": [wordless, wordless]})
    with pytest.raises(InputError, match=r"image (train/)?1.* has no caption with words; add one"):
        read_captions(tmp_path)


def test_an_empty_caption_is_kept_beside_others(tmp_path, layout):
    WRITERS[layout](tmp_path, {"0.jpg": ["", "a dog"]})
    # In `pairs` a blank line is not a caption.
    expected = ("a dog",) if layout == "pairs" else ("", "a dog")
    assert read_captions(tmp_path).examples[0].captions == expected


@pytest.mark.parametrize(
    "name", ["../0.jpg", "/etc/hostname", "a/../../0.jpg", "..\\0.jpg", "a\0b"]
)
def test_names_that_lead_out_of_the_directory(tmp_path, layout, name):
    """They are rejected without a look at the disk, so /etc/hostname is as bad as ../0.jpg."""
    if layout == "pairs":
        pytest.skip("it takes names from the directory")
    WRITERS[layout](tmp_path, {"0.jpg": ["a dog"]})
    source = find_file(tmp_path, b"a dog")
    written = json.dumps(name)[1:-1] if source.suffix.startswith(".json") else name
    source.write_text(source.read_text().replace("0.jpg", written))
    for path in tmp_path.rglob("Flickr_8k.*"):
        path.unlink()
    with pytest.raises(InputError, match=r"is not the name of a file in "):
        read_captions(tmp_path)


@pytest.mark.parametrize("name", ["n" * 300 + ".jpg", "a/" * 3000 + "b.jpg", "n" * 300 + ".tar/b"])
def test_names_that_are_too_long_for_the_file_system(tmp_path, layout, name):
    """The system raises OSError for them; they count as missing."""
    if layout == "pairs":
        pytest.skip("it takes names from the directory")
    WRITERS[layout](tmp_path, {"0.jpg": ["a dog"], "1.jpg": ["a cat"]})
    source = find_file(tmp_path, b"a dog")
    source.write_text(source.read_text().replace("0.jpg", name))
    for path in tmp_path.rglob("Flickr_8k.*"):
        path.write_text(path.read_text().replace("0.jpg", name))
    data = read_captions(tmp_path, on_error="skip")
    assert [example.path.name for example in data.examples] == ["1.jpg"]
    assert [problem.message.endswith(f"{name} is missing") for problem in data.problems] == [True]


def test_safe_names():
    assert all(map(is_safe_name, ("a/b.jpg", "a..b.jpg", "..a.jpg", "ä.jpg")))
    assert not any(map(is_safe_name, ("", None, 3, "..", "a/../b")))


def test_the_data_path_may_contain_parent_directories(tmp_path, layout, monkeypatch):
    WRITERS[layout](tmp_path / "data", {"0.jpg": ["a dog"]})
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    path = read_captions("../data").examples[0].path
    assert path.parts[0] == ".."
    assert path.is_file()


def test_forced_format(tmp_path):
    write_kaggle(tmp_path, numbered_images(10))
    write_coco(tmp_path, "train", coco({1: ["a dog"]}))
    assert read_captions(tmp_path).format == "coco"
    assert len(read_captions(tmp_path, "kaggle").examples) == 10
    with pytest.raises(InputError, match="unknown format 'xml'; choose one of coco, flickr8k, kar"):
        read_captions(tmp_path, "xml")
    message = r"no captions in the layout of the given format \(flickr8k: [^;]*\)$"
    with pytest.raises(InputError, match=message):
        read_captions(tmp_path, "flickr8k")
    message = r"^https://a.b/0.tar is a URL, but format coco can only be .*; use webdataset$"
    with pytest.raises(InputError, match=message):
        read_captions("https://a.b/0.tar", "coco")


def test_paths_without_a_known_layout(tmp_path):
    with pytest.raises(InputError, match=r"data set .*gone does not exist"):
        read_captions(tmp_path / "gone")
    touch(tmp_path / "file")
    with pytest.raises(InputError, match=r"^file .*file contains no captions in a known layout"):
        read_captions(tmp_path / "file")
    with pytest.raises(InputError, match=r"contains no captions in a known layout") as caught:
        read_captions(tmp_path)
    assert all(f"{name}: {reader.layout}" in str(caught.value) for name, reader in READERS.items())


def test_splits_by_name(tmp_path):
    write_flickr8k(tmp_path, numbered_images(4), {"train": ["00.jpg", "01.jpg"], "val": ["02.jpg"]})
    data = read_captions(tmp_path)
    assert ids(data, "dev") == ids(data, "val") == ["02.jpg"]
    with pytest.raises(InputError, match="no images in split 'test'; choose train or val"):
        data.split("test")
    with pytest.raises(
        InputError, match=r"unknown split 'Val'; choose train, val \(or dev\) or tes"
    ):
        data.split("Val")


def test_summary_and_name(tmp_path, monkeypatch):
    root = write_flickr8k(
        tmp_path / "dogs", numbered_images(5), {"train": ["00.jpg", "01.jpg"], "val": ["02.jpg"]}
    )
    data = read_captions(root)
    assert data.summary() == (
        f"{root}: flickr8k; train 2 images, 4 captions; val 1 images, 2 captions\n"
        "note: images of Flickr8k.token.txt left out because they are in no list: 2"
    )
    monkeypatch.chdir(root)
    assert read_captions(".").name == data.name == "dogs"


@pytest.mark.parametrize(
    ("directory", "expected"),
    [("flickr8k", {"train": 6000, "val": 1000}), ("tiny_coco", {"train": 50, "val": 50})],
)
def test_published_data(directory, expected):
    root = Path(__file__).parents[3] / "shared" / directory
    if not root.is_dir():
        pytest.skip(f"{root} does not exist")
    data = read_captions(root)
    assert {split: len(data.split(split)) for split in expected} == expected
    assert sum(expected.values()) == len(data.examples)
    assert all(len(example.captions) >= 5 for example in data.examples)
