"""Annotations of concepts in MIRFlickr's layout."""

from pathlib import Path

import pytest

from captioner.data.concepts import image_number, read_concepts
from captioner.data.dataset import Example
from captioner.errors import InputError


def test_files_are_concepts(tmp_path):
    (tmp_path / "dog.txt").write_text("3\n1\n\n25000\n")
    (tmp_path / "dog_r1.txt").write_text("3\r\n")
    (tmp_path / "plant_life.txt").write_text("")
    (tmp_path / "README.txt").write_text("About these files")
    found = read_concepts(tmp_path)
    assert found == {"dog": {1, 3, 25000}, "dog_r1": {3}, "plant_life": set()}


def test_unusable_annotations_are_refused(tmp_path):
    with pytest.raises(InputError, match="contains no concepts; pass a directory of files such as"):
        read_concepts(tmp_path)
    with pytest.raises(InputError, match="contains no concepts"):
        read_concepts(tmp_path / "gone")
    (tmp_path / "dog.txt").write_text("1\nim2.jpg\n")
    with pytest.raises(InputError, match=r"dog\.txt, line 2: 'im2\.jpg' is not an image number"):
        read_concepts(tmp_path)
    (tmp_path / "dog.txt").write_bytes(b"\xff")
    with pytest.raises(
        InputError, match=r"^concept file .*dog\.txt cannot be read: it is not UTF-8"
    ):
        read_concepts(tmp_path)


@pytest.mark.parametrize(
    ("name", "number"), [("im12.jpg", 12), ("IM7.PNG", 7), ("image1.jpg", None), ("12.jpg", None)]
)
def test_the_number_of_an_image_is_in_its_name(name, number):
    assert image_number(Example(1, Path("photos") / name, ("a dog",), "test")) == number
