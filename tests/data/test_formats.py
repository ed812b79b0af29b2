"""Reading data sets: all other layouts as published, and their malformed variants."""

import json
from pathlib import Path

import pytest

from captioner.data.dataset import Example
from captioner.data.readers import read_captions
from captioner.data.storage import files as storage
from captioner.errors import InputError
from tests.support.layouts import (
    numbered_images,
    touch,
    write,
    write_csv,
    write_flickr30k,
    write_jsonl,
    write_kaggle30k,
    write_karpathy,
    write_pairs,
    write_tar,
)

TEN = numbered_images(10)


def by_split(data):
    return {
        split: [e.id for e in data.examples if e.split == split]
        for split in ("train", "val", "test")
    }


def problems(root, **options):
    """All problems as lines, without the directory."""
    data = read_captions(root, on_error="skip", **options)
    return [str(problem).replace(f"{root}/", "") for problem in data.problems]


# ---- Karpathy's splits ---------------------------------------------------------------------------

COCO_2014 = [
    ("test", "val2014", "COCO_val2014_000000391895.jpg", ["A man on a moped ", "a man"]),
    ("restval", "val2014", "COCO_val2014_000000060623.jpg", ["A girl"]),
    ("train", "train2014", "COCO_train2014_000000222016.jpg", ["a red bus"]),
    ("val", "val2014", "COCO_val2014_000000522418.jpg", ["A woman with a knife"]),
]


@pytest.mark.parametrize("moved", ["", "images", "json"])
def test_karpathy_coco(tmp_path, moved):
    """The file is beside the image directories, above images/, or in a sibling directory."""
    root = write_karpathy(tmp_path / "coco", COCO_2014)
    images = root
    if moved == "images":
        images = root / "images"
        images.mkdir()
        for name in ("train2014", "val2014"):
            (root / name).rename(images / name)
    elif moved == "json":
        (root / moved).mkdir()
        (root / "dataset_coco.json").rename(root / moved / "dataset_coco.json")
        root = root / moved
    for path in (root, root / "dataset_coco.json"):
        data = read_captions(path)
        assert data.format == "karpathy"
        assert by_split(data) == {"train": [1001, 1002], "val": [1003], "test": [1000]}
        name = COCO_2014[0][2]
        assert data.examples[0] == Example(
            1000, images / "val2014" / name, ("A man on a moped ", "a man"), "test"
        )
    assert read_captions(root / "dataset_coco.json").name == "dataset_coco"


@pytest.mark.parametrize("name", ["flickr8k", "flickr30k"])
def test_karpathy_flickr(tmp_path, name):
    """These files have neither subdirectories nor COCO ids."""
    images = [(s, None, f"{s}.jpg", [f"a dog for {s}"]) for s in ("train", "val", "test")]
    write_karpathy(tmp_path, images, name)
    assert by_split(read_captions(tmp_path)) == {s: [f"{s}.jpg"] for s in ("train", "val", "test")}


def test_karpathy_several_files_in_one_directory(tmp_path):
    for name in ("coco", "flickr8k"):
        write_karpathy(tmp_path, [("train", "train2014", "a.jpg", ["a dog"])], name)
    with pytest.raises(
        InputError,
        match=r"contains dataset_coco.json, dataset_flickr8k.json; pass one of the files",
    ):
        read_captions(tmp_path)
    assert len(read_captions(tmp_path / "dataset_coco.json").examples) == 1


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"split": "other"}, "image 1004 has the unknown split 'other'; choose train, val or test"),
        ({"split": ["train"]}, "image 1004 has the unknown split ['train']; choose train"),
        ({"filename": None}, "None is not the name of a file in "),
        ({"sentences": []}, "image 1004 has no caption with words"),
        ({"sentences": 3}, "image 1004 has no caption with words"),
        ({"sentences": [{"tokens": ["a"]}]}, "the caption None is not text"),
        ({"sentences": ["a"]}, "image 1004 is listed"),
        (
            {"cocoid": 1001},
            "image 1001 is listed in train and in val, first at d",
        ),
        ({"cocoid": 1.5}, "the id 1.5 is neither an integer nor text"),
    ],
)
def test_karpathy_malformed_images(tmp_path, change, wrong):
    root = write_karpathy(tmp_path, [*COCO_2014, ("val", "val2014", "more.jpg", ["more"])])
    content = json.loads((root / "dataset_coco.json").read_text())
    if "listed" in wrong:
        content["images"].append(content["images"][-1])
    content["images"][4].update(change)
    write(root / "dataset_coco.json", json.dumps(content))
    found = problems(root)
    assert wrong in found[0], found
    assert found[0].startswith("dataset_coco.json, image "), found


@pytest.mark.parametrize("text", ["[]", '{"images": 3}', '{"images": [3]}', '{"dataset": "coco"}'])
def test_files_that_are_not_karpathys(tmp_path, text):
    write(tmp_path / "dataset_coco.json", text)
    with pytest.raises(InputError, match=r"dataset_coco.json is not a Karpathy split: it has no"):
        read_captions(tmp_path)


def test_karpathy_without_its_images(tmp_path):
    write_karpathy(tmp_path, [("train", "train2014", "a.jpg", ["a dog"])])
    (tmp_path / "train2014").rename(tmp_path / "elsewhere")
    with pytest.raises(
        InputError, match=r"dataset_coco.json are missing: train2014/a.jpg is neither in "
    ):
        read_captions(tmp_path)


# ---- Flickr30k -----------------------------------------------------------------------------------


def test_flickr30k_has_no_splits(tmp_path):
    data = read_captions(write_flickr30k(tmp_path, TEN))
    assert data.format == "flickr30k"
    assert [len(ids) for ids in by_split(data).values()] == [8, 1, 1]
    note = "the files define no splits, so 80/10/10 % were drawn at random (seed 0)"
    assert data.summary().endswith(f"; {note}")
    assert {e.id: list(e.captions) for e in data.examples} == TEN
    assert data.examples[0].path == tmp_path / "flickr30k-images" / data.examples[0].id


def test_flickr30k_line_without_a_tab(tmp_path):
    root = write_flickr30k(tmp_path, TEN)
    source = root / "results_20130124.token"
    source.write_text(source.read_text() + "00.jpg#7 no tab\n")
    wrong = (
        "results_20130124.token, line 21: the tab between image and caption is missing; insert it"
    )
    assert problems(root) == [wrong]


def test_two_rows_of_a_token_file_in_one_line(tmp_path):
    """A public copy of Flickr8k has such a line. A tab alone is part of the caption."""
    root = write_flickr30k(
        tmp_path, {"0.jpg": ["a\tdog", "a cat .1.jpg#0\ta bird"], "1.jpg": ["x"]}
    )
    assert read_captions(root, on_error="skip").examples[0].captions == ("a\tdog",)
    wrong = "the line has more than one caption; put each on its own line"
    assert problems(root) == [f"results_20130124.token, line 2: {wrong}"]


@pytest.mark.parametrize("inner", ["", "flickr30k_images"])
def test_kaggle_flickr30k(tmp_path, inner):
    """The archive has a directory within a directory of the same name."""
    captions = {**TEN, "a.jpg": ['He says " no', "one | two", "", "a, b"]}
    write_kaggle30k(tmp_path / inner, captions)
    data = read_captions(tmp_path)
    assert data.format == "kaggle30k"
    assert {e.id: list(e.captions) for e in data.examples} == captions


def test_kaggle_row_without_its_second_bar(tmp_path):
    """The published file contains one."""
    root = write_kaggle30k(tmp_path, {"2199200615.jpg": ["a dog", "a cat"]})
    with (root / "results.csv").open("a") as file:
        file.write("2199200615.jpg| 4   A dog runs across the grass .\n")
    captions = ("a dog", "a cat", "A dog runs across the grass .")
    assert read_captions(root).examples[0].captions == captions
    with (root / "results.csv").open("a") as file:
        file.write("2199200615.jpg, 5, commas\n\nno bars\n")
    row = "expected a row image | number | caption; correct it"
    assert problems(root) == [f"results.csv, line {n}: {row}" for n in (5, 7)]


def test_results_csv_of_another_program(tmp_path):
    write_kaggle30k(tmp_path, TEN)
    write(tmp_path / "results.csv", "epoch,loss\n1,2\n")
    with pytest.raises(InputError, match="contains no captions in a known layout"):
        read_captions(tmp_path)


# ---- JSONL and CSV with named columns ------------------------------------------------------------


def rows_to_jsonl(path, rows):
    write(path, "".join(json.dumps(row) + "\n" for row in rows))


def test_jsonl_with_all_kinds_of_rows(tmp_path):
    for name in ("a.jpg", "b.jpg", "c.jpg", "d.jpg"):
        touch(tmp_path / "images" / name)
    rows = [
        {"image": "a.jpg", "caption": "a dog", "split": "train", "more": 1},
        {"Image": "b.jpg", "captions": ["a cat", "the cat"], "split": "validation"},
        {"image": "a.jpg", "caption": "the dog", "split": "train"},
        {"image": "c.jpg", "caption_0": "one", "caption_1": "", "caption_2": "two", "split": "dev"},
        {"image": "d.jpg", "text": "a bird", "image_id": 7, "split": "Test"},
    ]
    rows_to_jsonl(tmp_path / "my.jsonl", rows)
    data = read_captions(tmp_path / "my.jsonl")
    images = tmp_path / "images"
    assert data.examples == (
        Example("a.jpg", images / "a.jpg", ("a dog", "the dog"), "train"),
        Example("b.jpg", images / "b.jpg", ("a cat", "the cat"), "val"),
        Example("c.jpg", images / "c.jpg", ("one", "two"), "val"),
        Example(7, images / "d.jpg", ("a bird",), "test"),
    )
    assert (data.format, data.name, data.note) == ("jsonl", "my", "")


@pytest.mark.parametrize(
    ("row", "wrong"),
    [
        ("[1]", "the line is not a JSON object; correct it"),
        ("{", "the line is not a JSON object"),
        ("[" * 100_000, "the line is not a JSON object"),
        (
            {"caption": "a dog"},
            "the image is missing; add an image column",
        ),
        ({"image": "a.jpg"}, "the caption is missing; add a caption column"),
        ({"image": 3, "caption": "x"}, "3 is not the name of a file in "),
        ({"image": "a.jpg", "caption": None}, "the caption None is not text; write a caption"),
        ({"image": "a.jpg", "captions": ["b", 3]}, "the caption 3 is not text"),
        ({"image": "a.jpg", "caption": "half \ud83d"}, "the caption 'half \\ud83d' is not UTF-8"),
        ({"image": "\ud83d.jpg", "caption": "x"}, "the name '\\ud83d.jpg' is not UTF-8"),
        ({"image": "b.jpg", "caption": "x", "image_id": []}, "the id [] is neither an integer nor"),
        ({"image": "b.jpg", "caption": "x", "image_id": True}, "the id True is neither an int"),
        ({"image": "b.jpg", "caption": "x", "image_id": "\ud83d"}, "the id '\\ud83d' is not UTF-8"),
        (
            {"image": "b.jpg", "caption": "x", "image_id": "a.jpg"},
            "image a.jpg is listed twi",
        ),
        (
            {"image": "a.jpg", "caption": "x", "image_id": 1},
            "image 1 has the same file a.jpg as image a.jpg at",
        ),
        ({"image": "a.jpg", "caption": "x", "split": "val"}, "image a.jpg has no split; choose"),
        ({"image": "b.jpg", "caption": "x"}, None),
    ],
)
def test_jsonl_malformed_rows(tmp_path, row, wrong):
    write_jsonl(tmp_path, {"a.jpg": ["a dog"]})
    touch(tmp_path / "b.jpg")
    with (tmp_path / "captions.jsonl").open("a") as file:
        file.write((row if isinstance(row, str) else json.dumps(row)) + "\n")
    found = problems(tmp_path)
    assert len(found) == (wrong is not None)
    if wrong:
        line = 1 if "no split" in wrong else 2  # the first row is the one without a split
        assert found[0].startswith(f"captions.jsonl, line {line}: {wrong}")


def test_an_image_in_two_jsonl_files(tmp_path):
    write_jsonl(tmp_path, {"a.jpg": ["a dog"], "b.jpg": ["a cat"]}, "train.jsonl")
    write_jsonl(tmp_path, {"b.jpg": ["the cat"], "c.jpg": ["a bird"]}, "validation.jsonl")
    wrong = (
        "validation.jsonl, line 1: image b.jpg is listed in train and in val, "
        "first at train.jsonl, line 2; remove one of them"
    )
    assert problems(tmp_path) == [wrong]
    data = read_captions(tmp_path, on_error="skip")
    assert by_split(data) == {"train": ["a.jpg", "b.jpg"], "val": ["c.jpg"], "test": []}
    assert data.examples[1].captions == ("a cat",)


def test_tables_with_splits_get_no_val_from_train(tmp_path):
    for write_table, name in ((write_jsonl, "train.jsonl"), (write_csv, "train.csv")):
        data = read_captions(write_table(tmp_path / name, TEN, name))
        assert by_split(data) == {"train": list(TEN), "val": [], "test": []}
        assert not data.note


def test_csv_with_quotes_commas_and_line_breaks(tmp_path):
    captions = {"a.jpg": ['one, two, "three"', "over\ntwo lines", " spaces "], "b,c.jpg": ["x"]}
    for path in (tmp_path, write_csv(tmp_path, captions) / "captions.csv"):
        data = read_captions(path)
        assert data.format == "csv"
        assert {e.id: list(e.captions) for e in data.examples} == captions


def test_tsv(tmp_path):
    touch(tmp_path / "a.jpg")
    write(tmp_path / "captions.tsv", "filepath\ttitle\na.jpg\tone, two\n")
    assert read_captions(tmp_path).examples[0].captions == ("one, two",)


def test_csv_malformed_rows(tmp_path):
    touch(tmp_path / "a.jpg")
    table = 'image,caption\na.jpg,a dog\na.jpg,one, two\na.jpg\n\na.jpg,"one" two\na.jpg,"open\n'
    write(tmp_path / "captions.csv", table)
    advice = "quote captions that contain commas"
    quotes = "quote the text, and double any quotes in it"
    assert problems(tmp_path) == [
        f"captions.csv, line 3: expected 2 columns, found 3; {advice}",
        "captions.csv, line 4: expected 2 columns, found 1; add the missing values",
        f"captions.csv, line 6: ',' expected after '\"'; {quotes}",
        f"captions.csv, line 7: unexpected end of data; {quotes}",
    ]
    write(tmp_path / "captions.csv", "image;caption\na.jpg;a dog\na.jpg;one; two\n")
    assert problems(tmp_path) == [
        "captions.csv, line 3: expected 2 columns, found 3; quote captions that contain semicolons"
    ]


def test_csv_reports_the_lines_that_a_stray_quote_makes_unreadable(tmp_path):
    touch(tmp_path / "a.jpg")
    rows = [
        "image,caption",
        'a.jpg,"a dog',
        "a.jpg,one",
        'a.jpg,"two"',
        "a.jpg,three",
        'a.jpg,"x',
        "",
    ]
    write(tmp_path / "captions.csv", "\n".join([*rows, "a.jpg,four", ""]))
    assert read_captions(tmp_path, on_error="skip").examples[0].captions == ("three",)
    quotes = "quote the text, and double any quotes in it"
    assert problems(tmp_path) == [
        f"captions.csv, line 2: ',' expected after '\"' (skipping lines 2 to 4); {quotes}",
        f"captions.csv, line 6: unexpected end of data (skipping lines 6 to 8); {quotes}",
    ]


def test_csv_header_with_repeated_or_missing_columns(tmp_path):
    write(tmp_path / "captions.csv", "image,Caption,caption\na.jpg,a dog,a cat\n")
    message = "has the column caption twice; remove one, or number the caption columns"
    with pytest.raises(InputError, match=message):
        read_captions(tmp_path)
    write(tmp_path / "captions.csv", "name,words\na.jpg,a dog\n")
    message = r"captions.csv has the columns name, words; it needs an image column \(file_name"
    with pytest.raises(InputError, match=message):
        read_captions(tmp_path)


# ---- Hugging Face image folders ------------------------------------------------------------------


@pytest.mark.parametrize("base", ["", "data"])
def test_huggingface_with_split_directories(tmp_path, base):
    root = tmp_path / base
    write_jsonl(root, {"0001.png": ["a dog"]}, "train/metadata.jsonl", "file_name")
    write_csv(root, {"0001.png": ["a cat"]}, "validation/metadata.csv")
    write(root / "validation/metadata.csv", 'file_name,text\n0001.png,"a cat, asleep"\n')
    touch(root / "test" / "deep" / "1.png")
    line = '{"file_name": "deep/1.png", "text": "a bird", "label": 3}'
    write(root / "test" / "metadata.jsonl", f"{line}\n")
    data = read_captions(tmp_path)
    assert data.format == "huggingface"
    assert {(e.id, e.path.relative_to(tmp_path).as_posix(), e.split) for e in data.examples} == {
        (name, name, split)
        for name, split in [
            (str(Path(base, "train/0001.png")), "train"),
            (str(Path(base, "validation/0001.png")), "val"),
            (str(Path(base, "test/deep/1.png")), "test"),
        ]
    }
    assert data.split("val")[0].captions == ("a cat, asleep",)


def test_huggingface_ids_are_unique_within_a_split(tmp_path):
    """Those of test stay there when val is drawn from train."""
    for split in ("train", "test"):
        rows = [
            {"file_name": f"{i}.png", "text": f"a {split} {i}", "image_id": i} for i in range(20)
        ]
        rows_to_jsonl(tmp_path / split / "metadata.jsonl", rows)
        for row in rows:
            touch(tmp_path / split / row["file_name"])
    data = read_captions(tmp_path)
    assert {split: len(ids) for split, ids in by_split(data).items()} == {
        **{"train": 18, "val": 2, "test": 20}
    }
    assert all("train" in example.captions[0] for example in data.split("val"))


def test_huggingface_with_one_metadata_file(tmp_path):
    write_jsonl(tmp_path, TEN, "metadata.jsonl", "file_name")
    data = read_captions(tmp_path)
    assert [len(ids) for ids in by_split(data).values()] == [8, 1, 1]
    named = {f"{'test' if n > '05' else 'train'}/{n}": c for n, c in TEN.items()}
    write_jsonl(tmp_path, named, "metadata.jsonl", "file_name")
    data = read_captions(tmp_path)
    assert by_split(data)["test"] == [name for name in named if name.startswith("test")]
    note = "the files define no val split, so a random tenth of train is used as val (seed 0)"
    assert data.note == note
    assert len(by_split(data)["val"]) == 1


# ---- a text file beside each image ---------------------------------------------------------------


def test_pairs(tmp_path):
    write_pairs(tmp_path, {f"some/{name}": captions for name, captions in TEN.items()})
    touch(tmp_path / "some" / "notes.md")
    data = read_captions(tmp_path)
    assert data.format == "pairs"
    found = {e.id: list(e.captions) for e in data.examples}
    assert found == {f"some/{name}": captions for name, captions in TEN.items()}
    assert [len(ids) for ids in by_split(data).values()] == [8, 1, 1]


def test_pairs_in_split_directories(tmp_path):
    for split in ("train", "dev", "test"):
        write_pairs(tmp_path / split, {"A.PNG": [f"a dog for {split}"]})
    found = by_split(read_captions(tmp_path))
    assert found == {"train": ["train/A.PNG"], "val": ["dev/A.PNG"], "test": ["test/A.PNG"]}


def test_readme_and_licence_beside_pairs_are_ignored(tmp_path):
    write_pairs(tmp_path, {"a.jpg": ["a dog"], "License.jpg": ["a car"]})
    for name in ("README.txt", "some/licence.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("where these are from\n")
    assert problems(tmp_path) == []
    found = {e.id: e.captions for e in read_captions(tmp_path).examples}
    assert found == {"a.jpg": ("a dog",), "License.jpg": ("a car",)}


def test_pairs_without_image_or_text(tmp_path):
    write_pairs(tmp_path, {"a.jpg": ["a dog"], "b.jpg": ["a cat"]})
    (tmp_path / "b.jpg").unlink()
    touch(tmp_path / "c.jpg")
    assert problems(tmp_path) == [
        "b.txt: no image has the same name; add the image, or remove the text file",
        "c.jpg: image c.jpg has no caption with words; add one, or remove the image",
    ]


# ---- tar shards ----------------------------------------------------------------------------------


def sample(key, caption=None, extension="txt", content=b"an image"):
    text = [] if caption is None else [(f"{key}.{extension}", caption.encode())]
    return [(f"{key}.jpg", content), *text]


def test_shards_as_img2dataset_writes_them(tmp_path):
    """Numbered shards with jpg, txt and json for each image; json repeats the caption."""
    for shard in range(2):
        members = []
        for i in range(5):
            key = f"{shard:05}{i:04}"
            metadata = {"caption": f"a dog {i}", "key": key, "status": "success", "url": "x"}
            members += sample(key, f"a dog {i}")
            members.append((f"{key}.json", json.dumps(metadata).encode()))
        write_tar(tmp_path / f"{shard:05}.tar", members)
        touch(tmp_path / f"{shard:05}.parquet")
    data = read_captions(tmp_path)
    assert data.format == "webdataset"
    assert [len(ids) for ids in by_split(data).values()] == [8, 1, 1]
    assert data.examples[7] == Example(
        "00001/000010002",
        tmp_path / "00001.tar" / "000010002.jpg",
        ("a dog 2",),
        data.examples[7].split,
    )
    assert len(read_captions(tmp_path / "00001.tar").examples) == 5


@pytest.mark.parametrize("name", ["{}-0001.tar", "{}/0001.tar", "coco-{}.tar"])
def test_shards_named_after_splits(tmp_path, name):
    for split in ("train", "val", "test"):
        write_tar(tmp_path / name.format(split), sample("a", f"for {split}"))
    found = by_split(read_captions(tmp_path))
    assert found == {s: [f"{name.format(s).removesuffix('.tar')}/a"] for s in found}


def test_captions_in_shards(tmp_path):
    many = json.dumps({"captions": ["one", "two"]})
    members = [
        *sample("directory/a", "\ufefffirst\r\n\r\nsecond \n"),
        *sample("b", many, "json"),
        *sample("c.seg", "its extension is seg.txt, not txt"),
        ("c.JPG", b"x"),
        ("c.txt", b"third"),
        ("._c.txt", b"a resource fork of macOS"),
        ("__meta__", b""),
    ]
    write_tar(tmp_path / "x.tar", members)
    data = read_captions(tmp_path)
    assert {e.id: e.captions for e in data.examples} == {
        "x/directory/a": ("first", "second"),
        "x/b": ("one", "two"),
        "x/c": ("third",),
    }
    assert {e.path.name for e in data.examples} == {"a.jpg", "b.jpg", "c.JPG"}


def test_a_directory_of_links_to_shards_on_several_disks(tmp_path):
    disks, data = [tmp_path / "disk0", tmp_path / "disk1", tmp_path / "disk2"], tmp_path / "data"
    for directory in (*disks, data):
        directory.mkdir()
    write_tar(disks[0] / "a.tar", sample("a", "a dog", content=b"image a"))
    write_tar(disks[1] / "b.tar", sample("b", "a cat", content=b"image b"))
    write_tar(disks[2] / "c.tar", sample("c", "a cow", content=b"image c"))
    (data / "train-0.tar").symlink_to(disks[0] / "a.tar")  # a shard
    (data / "train").symlink_to(disks[1])  # a disk full of them
    write_tar(data / "val-0.tar", sample("v", "a fox", content=b"image v"))
    (data / "val").symlink_to("../disk2")
    examples = {example.id: example for example in read_captions(data).examples}
    assert {id: example.split for id, example in examples.items()} == {
        **dict.fromkeys(("train-0/a", "train/b/b"), "train"),
        **dict.fromkeys(("val-0/v", "val/c/c"), "val"),
    }
    for id, example in examples.items():
        assert storage.read(example.path) == f"image {id[-1]}".encode()
    (disks[1] / "b.tar").unlink()
    disks[1].rmdir()  # unmounted
    (data / "train-1.tar").symlink_to(disks[1] / "b.tar")
    broken = "the link is broken; mount its disk, or remove the link"
    assert problems(data) == [f"train: {broken}", f"train-1.tar: {broken}"]


def test_problems_in_a_shard(tmp_path):
    members = [
        *sample("good", "a dog"),
        *sample("none"),
        *sample("latin", ""),
        *sample("broken", "[1]", "json"),
        *sample("empty", "{}", "json"),
        *sample("long", '{"caption": 1' + "0" * 5000 + "}", "json"),
        *sample("../out", "a dog"),
        *sample("/etc/away", "a dog"),
        ("/etc/passwd", b""),
        ("lone.txt", b"no image"),
        ("latin.txt", b"caf\xe9"),
        ("good.txt", b"again"),
    ]
    members.remove(("latin.txt", b""))
    write_tar(tmp_path / "x.tar", members)
    no_caption = "has no caption with words; add one, or remove the image"
    outside = [
        f"x.tar/{name.lstrip('/')}: {name!r} is not the name of a file in x.tar; "
        "use a relative path without .. or backslashes"
        for name in ("../out.jpg", "../out.txt", "/etc/away.jpg", "/etc/away.txt")
    ]
    assert problems(tmp_path) == [
        *outside[:2],
        "x.tar/broken.jpg: image x/broken " + no_caption,
        "x.tar/broken.json: the file does not contain a JSON object; correct it",
        "x.tar/empty.jpg: image x/empty " + no_caption,
        *outside[2:],
        "x.tar/good.txt: x.tar contains this name more than once; remove or rename all but one",
        "x.tar/latin.jpg: image x/latin " + no_caption,
        "x.tar/latin.txt, line 1: the caption 'caf\\udce9' is not UTF-8; write it as UTF-8 text",
        "x.tar/lone.txt: lone has no image; add the image, or remove the text file",
        "x.tar/long.jpg: image x/long " + no_caption,
        "x.tar/long.json: the file does not contain a JSON object; correct it",
        "x.tar/none.jpg: image x/none " + no_caption,
    ]


def test_shards_as_the_webdataset_package_writes_and_reads_them(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    tar = tmp_path / "train-0.tar"
    with tar.open("wb") as file, webdataset.TarWriter(file) as writer:
        for i in range(4):
            members = {"jpg": bytes([i] * 700), "txt": f"a dog {i}"}
            writer.write({"__key__": f"sub.x/{i}", **members})
    with tar.open("rb") as file:
        source = [{"url": tar.name, "stream": file}]
        expected = list(
            webdataset.tariterators.group_by_keys(webdataset.tariterators.tar_file_expander(source))
        )
    examples = read_captions(tmp_path).examples
    for sample, example in zip(expected, examples, strict=True):
        assert example.id == f"train-0/{sample['__key__']}"
        assert storage.read(example.path) == sample["jpg"]
        assert example.captions == (sample["txt"].decode(),)
