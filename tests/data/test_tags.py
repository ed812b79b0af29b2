"""Tags from CSV files and from NUS-WIDE's directories."""

import pytest

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
