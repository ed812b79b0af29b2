"""Tags from CSV files and from NUS-WIDE's directories."""

import pytest
from PIL import Image

from captioner.data.labels import own_tags, tag_words
from captioner.data.readers import read_captions
from captioner.data.tags import read_tags
from captioner.errors import InputError


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_csv_of_separated_tags(tmp_path):
    text = 'image,tags\na.jpg,"dog, Black_Cat"\nsub/b.jpg,sea;SKY|red\na.jpg,sun\n'
    tags = read_tags(write(tmp_path / "tags.csv", text))
    assert tags["a.jpg"] == {"dog", "black cat", "sun"}
    assert tags["b.jpg"] == tags["sub/b.jpg"] == {"sea", "sky", "red"}


def test_spaces_separate_tags_if_nothing_else_does(tmp_path):
    tags = read_tags(write(tmp_path / "tags.csv", "file_name,labels\na.jpg,dog cat\nb.jpg,\n"))
    assert tags == {"a.jpg": {"dog", "cat"}, "b.jpg": set()}


def test_nuswide(tmp_path):
    write(tmp_path / "ImageList" / "Imagelist.txt", "actor\\1.jpg\nsky\\2.jpg\n")
    write(tmp_path / "Groundtruth" / "AllLabels" / "Labels_dog.txt", "1\n0\n")
    write(tmp_path / "Groundtruth" / "AllLabels" / "Labels_blue_sky.txt", "1\n1\n")
    tags = read_tags(tmp_path)
    assert tags["actor/1.jpg"] == tags["1.jpg"] == {"dog", "blue sky"}
    assert tags["2.jpg"] == {"blue sky"}


def test_nuswide_train_and_test_lists(tmp_path):
    for split, value in (("Train", "1"), ("Test", "0")):
        write(tmp_path / "ImageList" / f"{split}Imagelist.txt", f"{split}.jpg\n")
        folder = tmp_path / "Groundtruth" / "TrainTestLabels"
        write(folder / f"Labels_dog_{split}.txt", f"{value}\n")
    assert read_tags(tmp_path) == {"Train.jpg": {"dog"}, "Test.jpg": set()}
    write(folder / "Labels_dog_Test.txt", "0\n1\n")
    with pytest.raises(InputError, match=r"must have 1 lines, one per image, .* it has 2 lines$"):
        read_tags(tmp_path)
    write(folder / "Labels_dog_Test.txt", "yes\n")
    with pytest.raises(InputError, match=r"each of which is 0 or 1; it has the line 'yes'$"):
        read_tags(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "name,tags\na.jpg,dog\n",
            r"must have a header .* image and tags, got \['na",
        ),
        ("image,tags\na.jpg\n", "line 2: expected 2 columns, found 1"),
        ("image,tags\na.jpg,\n", "contains no tags; choose another"),
        ("", r"must have a header with the columns image and tags, got \[\]"),
    ],
)
def test_unusable_tables(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_tags(write(tmp_path / "tags.csv", text))


def test_missing_files(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_tags(tmp_path / "gone.csv")
    with pytest.raises(InputError, match="contains no tags in NUS-WIDE's layout"):
        read_tags(tmp_path)


# ---- tags as a data set ----


def paint(path, color="red"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), color).save(path)


def test_a_table_of_tags_is_a_data_set(tmp_path):
    """Tags are one caption, and labels as a whole, also if they have several words."""
    for name in ("a.png", "sub/b.png", "c.png"):
        paint(tmp_path / "images" / name)
    rows = 'train;a.png;Polar_Bear,ice\nval;sub/b.png;"sky, sea"\ntrain;c.png;\n'
    table = write(tmp_path / "tags.csv", f"split;image;tags\n{rows}")
    data = read_captions(table)
    assert data.format == read_captions(tmp_path).format == "tags"
    found = [(e.id, e.path, e.captions, e.split) for e in data.examples]
    assert found == [
        ("a.png", tmp_path / "images" / "a.png", ("polar bear, ice",), "train"),
        ("sub/b.png", tmp_path / "images" / "sub" / "b.png", ("sky, sea",), "val"),
    ]
    assert own_tags(data.examples) == [
        (frozenset({"polar bear", "ice"}), frozenset()),
        (frozenset({"sky", "sea"}), frozenset()),
    ]
    assert data.notes == ("images left out because they have no tags: 1",)


def test_captions_are_read_before_tags(tmp_path):
    paint(tmp_path / "a.png")
    write(tmp_path / "tags.csv", "image,tags\na.png,dog\n")
    write(tmp_path / "captions.csv", "image,caption\na.png,a red dog\n")
    assert read_captions(tmp_path).format == "csv"
    both = write(tmp_path / "both.csv", "image,caption,tags\na.png,a red dog,dog\n")
    assert read_captions(both).format == "csv"


def test_short_rows_are_problems(tmp_path):
    paint(tmp_path / "a.png")
    table = write(tmp_path / "tags.csv", "image,tags\na.png,dog\nb.png\nc.png,dog,cat\n")
    with pytest.raises(InputError, match="has 2 problems") as error:
        read_captions(table)
    assert "tags.csv, line 3: expected 2 columns, found 1; add the missing" in str(error.value)
    assert "line 4: expected 2 columns, found 3; quote tags that are separated by commas" in str(
        error.value
    )
    assert len(read_captions(table, on_error="skip").examples) == 1


def test_nuswide_is_a_data_set(tmp_path):
    """Images that are listed with and without a split belong to the split."""
    paint(tmp_path / "images" / "actor" / "1.png")
    paint(tmp_path / "images" / "sky" / "2.png")
    write(tmp_path / "ImageList" / "Imagelist.txt", "actor\\1.png\nsky\\2.png\n")
    write(tmp_path / "Groundtruth" / "AllLabels" / "Labels_dog.txt", "1\n1\n")
    for split, name in (("Train", "actor\\1.png"), ("Test", "sky\\2.png")):
        write(tmp_path / "ImageList" / f"{split}Imagelist.txt", f"{name}\n")
        labels = tmp_path / "Groundtruth" / "TrainTestLabels"
        write(labels / f"Labels_blue_sky_{split}.txt", "1\n")
    found = read_captions(tmp_path).examples
    assert {e.split: (e.id, e.captions) for e in found if e.split != "val"} == {
        "test": ("sky/2.png", ("blue sky",)),
        "train": ("actor/1.png", ("blue sky",)),
    }


def test_images_of_the_same_name_have_their_own_tags(tmp_path):
    for name in ("a", "b"):
        paint(tmp_path / name / "1.png")
    rows = "a/1.png,dog\nb/1.png,cat\n"
    data = read_captions(write(tmp_path / "tags.csv", f"image,tags\n{rows}"))
    tags = read_tags(tmp_path / "tags.csv")
    assert [set(present) for present, _ in tag_words(data.examples, tags)] == [{"dog"}, {"cat"}]
