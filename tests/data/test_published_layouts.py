"""Well-known data sets in the directories and columns in which they are downloaded.

docs/datasets.md lists the published copy that each test imitates.
"""

import gzip
import json

import pytest

from captioner.data.caption_files import read_caption_file
from captioner.data.readers import read_captions
from captioner.errors import InputError
from tests.support.layouts import touch, write, write_multi30k, write_pairs

NAMES = ("0.jpg", "1.jpg", "2.jpg")


def captions_of(data):
    return {example.path.name: list(example.captions) for example in data.examples}


def splits_of(data):
    return {example.path.name: example.split for example in data.examples}


# ---- Kaggle --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "header", "row"),
    [
        ("captions.txt", "image,caption", '{}," Two men, {} dogs ."'),
        ("captions.txt", "image_name,comment_number,comment", '{},{}," Two men, {} dogs ."'),
        ("results.csv", "image_name,comment_number,comment", '{},{}," Two men, {} dogs ."'),
        ("captions.txt", "image_name| comment_number| comment", "{}| {}|  Two men, {} dogs ."),
        ("results.csv", "image_name| comment_number| comment", "{}| {}|  Two men, {} dogs ."),
    ],
)
@pytest.mark.parametrize("images", ["Images", "flickr30k_images", "flickr30k_images/nested", "."])
def test_kaggles_copies_of_flickr(tmp_path, file, header, row, images):
    for name in NAMES:
        touch(tmp_path / images / name)
    rows = []
    for name in NAMES:
        for k in range(2):
            values = (name, k, k) if row.count("{}") == 3 else (name, k)
            rows.append(row.format(*values))
    write(tmp_path / file, "\n".join([header, *rows, ""]))
    data = read_captions(tmp_path)
    assert data.format in ("kaggle", "kaggle30k")
    assert data.problems == ()
    assert captions_of(read_captions(tmp_path / file)) == captions_of(data)
    assert captions_of(data) == {n: [f" Two men, {k} dogs ." for k in range(2)] for n in NAMES}


# ---- Karpathy's format: remote sensing -----------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "images", "suffix"),
    [
        ("dataset_rsicd.json", "RSICD_images", "jpg"),
        ("annotations_rsicd/dataset_rsicd.json", "annotations_rsicd/RSICD_images", "jpg"),
        ("dataset.json", "imgs", "tif"),  # UCM_captions and Sydney_captions
    ],
)
def test_remote_sensing(tmp_path, file, images, suffix):
    entries = []
    for i, split in enumerate(("train", "val", "test")):
        touch(tmp_path / images / f"{i}.{suffix}")
        sentence = {"tokens": ["many", "planes"], "raw": f"many planes {i} .", "imgid": i}
        entries.append({"filename": f"{i}.{suffix}", "imgid": i, "split": split})
        entries[-1]["sentences"] = [{**sentence, "sentid": i}]
    write(tmp_path / file, json.dumps({"images": entries, "dataset": "x"}))
    root = (tmp_path / file).parent
    for path in (root, tmp_path / file):
        data = read_captions(path)
        assert data.format == "karpathy"
        assert list(splits_of(data).values()) == ["train", "val", "test"]
        assert captions_of(data)[f"2.{suffix}"] == ["many planes 2 ."]


# ---- COCO's format -------------------------------------------------------------------------------


def vizwiz(tmp_path, prefix=""):
    """Three images per split; the last one has only captions to be left out."""
    for number, split in enumerate(("train", "val")):
        images, annotations = [], []
        for i in range(3):
            name = f"VizWiz_{split}_{i:08}.jpg"
            touch(tmp_path / split / name)
            images.append({"id": 100 * number + i, "file_name": name, "text_detected": False})
            for k in range(5):
                left_out = {"is_precanned": k >= 3 or i == 2, "is_rejected": k == 2}
                caption = {"id": len(annotations), "image_id": images[-1]["id"], **left_out}
                annotations.append({**caption, "caption": f"a can of beans number {k}"})
        content = {"info": {}, "images": images, "annotations": annotations}
        write(tmp_path / "annotations" / f"{prefix}{split}.json", json.dumps(content))
    test = {"images": [{"id": 900, "file_name": "VizWiz_test_00000000.jpg"}]}
    write(tmp_path / "annotations" / f"{prefix}test.json", json.dumps(test))


@pytest.mark.parametrize("prefix", ["", "captions_"])
def test_vizwiz(tmp_path, prefix):
    """As in the challenge, rejected and precanned captions do not count; test has no captions."""
    vizwiz(tmp_path, prefix)
    data = read_captions(tmp_path)
    assert [(e.id, e.split, len(e.captions)) for e in data.examples] == [
        *((0, "train", 2), (1, "train", 2), (100, "val", 2), (101, "val", 2))
    ]
    assert data.problems == ()
    notes = "\n".join(data.notes)
    train = f"{prefix}train.json"
    assert f"captions of {train} left out: 9 marked is_precanned and 3 marked is_rejected" in notes
    assert f"images of {train} left out because all their captions are left out: 1" in notes
    assert f"images of {prefix}test.json left out because the file has no captions: 1" in notes


def test_vizwiz_references(tmp_path):
    vizwiz(tmp_path)
    notes: list[str] = []
    references = read_caption_file(tmp_path / "annotations" / "val.json", notes)
    assert {id: len(texts) for id, texts in references.items()} == {100: 2, 101: 2, 102: 0}
    counts = "9 marked is_precanned and 3 marked is_rejected"
    assert notes == [f"captions of val.json left out: {counts}"]


def test_nocaps(tmp_path):
    images = [{"id": i, "file_name": f"{i}.jpg", "open_images_id": f"{i}"} for i in range(3)]
    annotations = [{"id": i, "image_id": i, "caption": f"a newt {i}"} for i in range(3)]
    file = tmp_path / "nocaps_val_4500_captions.json"
    content = {"licenses": [], "info": {}, "images": images, "annotations": annotations}
    write(file, json.dumps(content))
    for name in NAMES:
        touch(tmp_path / "images" / name)
    for path in (tmp_path, file):
        data = read_captions(path)
        assert (data.format, set(splits_of(data).values())) == ("coco", {"val"})
        assert captions_of(data)["2.jpg"] == ["a newt 2"]


# ---- tables --------------------------------------------------------------------------------------


def test_textcaps(tmp_path):
    """`image_path` names a directory that the archive of images does not have."""
    rows = [
        {
            **{"image_id": f"{i}", "image_name": f"{i}", "image_path": f"train/{i}.jpg"},
            **{"caption_str": f"a sign {i} {k}", "caption_id": k, "caption_tokens": ["a"]},
            "reference_strs": [f"a sign {i} 0", f"a sign {i} 1"],
        }
        for i in range(3)
        for k in range(2)
    ]
    content = {"dataset_type": "train", "dataset_name": "textcaps", "data": rows}
    write(tmp_path / "TextCaps_0.1_train.json", json.dumps(content))
    for name in NAMES:
        touch(tmp_path / "train_images" / name)
    data = read_captions(tmp_path)
    assert captions_of(data)["1.jpg"] == ["a sign 1 0", "a sign 1 1"]
    assert set(splits_of(data).values()) == {"train"}
    assert data.notes[0].endswith("without train/, relative to " + str(tmp_path / "train_images"))
    assert read_caption_file(tmp_path / "TextCaps_0.1_train.json")[1] == [
        "a sign 1 0",
        "a sign 1 1",
    ]


def test_lavis(tmp_path):
    """Lists of objects; one caption per row in train, a list of captions in val and test."""
    for split, many in (("train", False), ("val", True), ("test", True)):
        rows = [
            {"image": f"{split}2014/{split}_{i}.jpg", "image_id": f"coco_{i}", "caption": caption}
            for i in range(2)
            for caption in ([["a dog", "the dog"]] if many else ["a dog", "the dog"])
        ]
        for row in rows:
            touch(tmp_path / "images" / row["image"])
        file = f"coco_karpathy_{split}.json"
        write(tmp_path / "annotations" / file, json.dumps(rows))
    for path in (tmp_path, tmp_path / "annotations"):
        data = read_captions(path)
        assert splits_of(data) == {
            f"{s}_{i}.jpg": s for s in ("train", "val", "test") for i in (0, 1)
        }
        assert set(map(tuple, captions_of(data).values())) == {("a dog", "the dog")}


@pytest.mark.parametrize(
    "content",
    [
        [{"image": "0.jpg", "caption": "a dog"}, {"image": "0.jpg", "caption": "the dog"}],
        [{"image": "0.jpg", "captions": ["a dog", "the dog"]}],
        {"0.jpg": ["a dog", "the dog"]},
        {"0.jpg": {"captions": ["a dog", "the dog"], "tags": "x"}},
        {"data": [{"image_path": "0.jpg", "caption": ["a dog", "the dog"]}]},
        [{"file_name": "0.jpg", "sentences": [{"raw": "a dog"}, {"raw": "the dog"}]}],
    ],
)
def test_json_tables(tmp_path, content):
    touch(tmp_path / "images" / "0.jpg")
    write(tmp_path / "captions.json", json.dumps(content))
    for path in (tmp_path, tmp_path / "captions.json"):
        assert captions_of(read_captions(path)) == {"0.jpg": ["a dog", "the dog"]}
    assert read_caption_file(tmp_path / "captions.json") == {"0.jpg": ["a dog", "the dog"]}


HUB = {  # columns of tables on the Hugging Face hub, and what they contain for one image
    "jxie/flickr8k": {"image": "0.jpg", "caption_0": "a dog", "caption_1": "the dog"},
    "nlphuji/flickr30k": {
        **{"raw": '["a dog", "the dog"]', "sentids": "[1, 2]", "split": "train"},
        **{"filename": "0.jpg", "img_id": "0"},
    },
    "yerevann/coco-karpathy": {
        **{"filepath": "val2014", "filename": "0.jpg", "sentids": [1, 2], "imgid": 0},
        **{"split": "restval", "sentences": ["a dog", "the dog"], "cocoid": 391895},
    },
    "arampacha/rsicd": {"filename": "0.jpg", "captions": ["a dog", "the dog"]},
    "nocaps": {"image_file_name": "0.jpg", "annotations_captions": ["a dog", "the dog"]},
    "exported": {"image": {"bytes": None, "path": "0.jpg"}, "text": ["a dog", "the dog"]},
}


@pytest.mark.parametrize("name", HUB)
def test_columns_of_the_hub(tmp_path, name):
    row = HUB[name]
    touch(tmp_path / "images" / row.get("filepath", "") / "0.jpg")
    write(tmp_path / "captions.jsonl", json.dumps(row) + "\n")
    assert captions_of(read_captions(tmp_path)) == {"0.jpg": ["a dog", "the dog"]}


@pytest.mark.parametrize(
    ("image", "contents"),
    [
        ({"bytes": "/9j/4AAQSkZJRg", "path": "0.jpg"}, "the image's bytes"),
        ("/9j/4AAQSkZJRgABAQAAAQABAAD", "the image's bytes"),
        ("data:image/png;base64,iVBORw0KGgo", "the image's bytes"),
        ("b'\\xff\\xd8\\xff'", "the image's bytes"),
        ({"bytes": None, "path": None}, "an object without bytes or a path"),
        ("https://example.com/0.jpg", "the URL of an image"),  # Conceptual Captions
    ],
)
def test_image_columns_without_file_names(tmp_path, image, contents):
    write(tmp_path / "captions.jsonl", json.dumps({"image": image, "caption": "a dog"}))
    message = f"line 1: the image column contains {contents}, not a file name; save each image"
    with pytest.raises(InputError, match=message):
        read_captions(tmp_path)


@pytest.mark.parametrize("prefix", ["/content/data/images/", "data/set/", "../set/"])
def test_image_names_from_another_computer(tmp_path, prefix):
    """Paths of the computer where the table was written; a name with .. is never shortened."""
    touch(tmp_path / "images" / "a" / "0.jpg")
    write(tmp_path / "captions.csv", f"image,caption\n{prefix}a/0.jpg,a dog\n")
    if ".." in prefix:
        with pytest.raises(InputError, match=r"is not the name of a file in "):
            read_captions(tmp_path)
    else:
        data = read_captions(tmp_path)
        assert captions_of(data) == {"0.jpg": ["a dog"]}
        assert f"are read without {prefix[:9]}" in data.notes[0]


def test_images_of_another_data_set_are_not_used(tmp_path):
    """Neighbouring data sets may use the same names."""
    touch(tmp_path / "other" / "images" / "0.jpg")
    write(tmp_path / "mine" / "captions.csv", "image,caption\n0.jpg,a dog\n")
    with pytest.raises(InputError, match=r"0.jpg is missing"):
        read_captions(tmp_path / "mine")


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_other_delimiters_of_csv(tmp_path, delimiter):
    touch(tmp_path / "0.jpg")
    rows = [("image", "caption"), ("0.jpg", "a red ball, on grass")]
    text = "".join(delimiter.join(row) + "\n" for row in rows)
    write(tmp_path / "captions.csv", text)
    for read in (lambda path: captions_of(read_captions(path)), read_caption_file):
        assert read(tmp_path / "captions.csv") == {"0.jpg": ["a red ball, on grass"]}


# ---- text files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["{}.txt", "{}.caption", "{}.jpg.txt", "{}.json"])
def test_text_files_of_diffusion_trainers_and_img2dataset(tmp_path, text):
    for stem in ("0", "1.5"):
        touch(tmp_path / f"{stem}.jpg")
        content = '{"caption": "a dog, tag"}' if text.endswith("json") else "a dog, tag\n"
        write(tmp_path / text.format(stem), content)
    if text.endswith("json"):  # alone, it may be anything
        write(tmp_path / "0.txt", "a dog, tag")
    data = read_captions(tmp_path)
    assert (data.format, data.problems) == ("pairs", ())
    assert captions_of(data) == {"0.jpg": ["a dog, tag"], "1.5.jpg": ["a dog, tag"]}


def multi30k(tmp_path):
    for split, name in (("train", "0.jpg"), ("val", "1.jpg"), ("test_2016_flickr", "2.jpg")):
        for language, caption in (("en", "a dog"), ("de", "ein Hund")):
            write_multi30k(tmp_path, {name: [caption]}, split, language)
    write_multi30k(tmp_path, {"3.jpg": ["a test of 2017"]}, "test_2017_flickr", "de")
    packed = tmp_path / "raw" / "val.de"
    (tmp_path / "raw" / "val.de.gz").write_bytes(gzip.compress(packed.read_bytes()))
    packed.unlink()


def test_multi30k(tmp_path):
    multi30k(tmp_path)
    data = read_captions(tmp_path / "raw" / "train.de")
    assert data.format == "multi30k"
    assert splits_of(data) == {"0.jpg": "train", "1.jpg": "val", "2.jpg": "test"}
    assert set(map(tuple, captions_of(data).values())) == {("ein Hund",)}
    assert data.notes == ("test_2017_flickr.de was not read; the test split is that of 2016",)
    message = r"contains captions in de, en; pass a file of one language, such as .*test_2016_fl"
    with pytest.raises(InputError, match=message):
        read_captions(tmp_path)


def test_multi30k_with_five_captions(tmp_path):
    """Task 2: five files, each with a caption of every image."""
    for k in range(1, 6):
        write_multi30k(tmp_path, {n: [f"a dog {k}"] for n in NAMES}, "train", f"{k}.en")
    (tmp_path / "image_splits").rename(tmp_path / "lists")
    write(tmp_path / "image_splits" / "train.txt", "".join(f"{name}\n" for name in NAMES))
    data = read_captions(tmp_path)
    assert captions_of(data) == {name: [f"a dog {k}" for k in range(1, 6)] for name in NAMES}
    (tmp_path / "raw" / "train.1.en").write_text("one line\n")
    with pytest.raises(InputError, match=r"train.1.en has 1 lines, but .* lists 3 images; each"):
        read_captions(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train_log.csv", "epoch,loss\n1,2\n"),
        ("test_results.jsonl", '{"epoch": 1}\n'),
        ("val_boxes.json", '[{"image": "0.jpg", "box": [1, 2]}]'),
        ("train.json", '{"images": [{"file_name": "0.jpg"}], "annotations": [{"bbox": [1, 2]}]}'),
        ("dataset.json", '{"name": "mine"}'),
        ("annotations/instances_train2017.json", '{"images": [], "annotations": []}'),
    ],
)
def test_other_files_beside_pairs(tmp_path, name, content):
    write_pairs(tmp_path, {n: ["a dog"] for n in NAMES})
    write(tmp_path / name, content)
    data = read_captions(tmp_path)
    assert data.format == "pairs"
    assert set(captions_of(data)) == set(NAMES)


def test_tables_of_splits_beside_their_directories(tmp_path):
    """Each split may use the same names."""
    for split in ("train", "val"):
        touch(tmp_path / split / "0.jpg")
        write(tmp_path / f"{split}.csv", f"image,caption\n0.jpg,for {split}\n")
    data = read_captions(tmp_path)
    assert [(e.path.parent.name, e.captions) for e in data.examples] == [
        *(("train", ("for train",)), ("val", ("for val",)))
    ]


def test_conceptual_captions_as_published(tmp_path):
    """Two columns without a header: caption and URL."""
    write(tmp_path / "Train_GCC-training.tsv", "a dog runs\thttp://example.com/a.jpg\n")
    with pytest.raises(
        InputError, match="URLs instead of file names; download the images with img2"
    ):
        read_captions(tmp_path / "Train_GCC-training.tsv")


@pytest.mark.parametrize(
    ("names", "layout", "advised"),
    [
        (["set/captions.csv"], "csv", "set"),
        (["flickr_annotations_30k.csv"], "csv", "flickr_annotations_30k.csv"),
        (["a/b/c.csv"], None, None),
    ],
)
def test_a_layout_below_the_path_is_named(tmp_path, names, layout, advised):
    for name in names:
        write(tmp_path / name, "image,caption\n0.jpg,a dog\n")
    message = "contains no captions in a known layout"
    message += f"; .*{advised} has the layout {layout}; pass that path" if layout else r" \("
    with pytest.raises(InputError, match=message):
        read_captions(tmp_path)


def test_names_that_differ_in_case(tmp_path):
    touch(tmp_path / "IMG_1.JPG")
    write(tmp_path / "captions.csv", "image,caption\nIMG_1.jpg,a dog\n")
    message = r"IMG_1.jpg is missing; correct the case of its name; the file is IMG_1.JPG"
    with pytest.raises(InputError, match=message):
        read_captions(tmp_path)
