"""Flickr8k and Flickr30k from Kaggle: `captions.txt` and `results.csv`."""

import re
from collections.abc import Iterator
from pathlib import Path

from .reading import (
    RawExample,
    ReadResult,
    SourceLocation,
    find_image_directory,
    read_lines,
    read_table,
)

HEADER_30K = "image_name|comment_number|comment"
# One row of the published file has spaces instead of its second `|`.
_ROW_30K = re.compile(r"(?P<name>[^|]*)\| *\d+(?: *\| ?|  +)(?P<caption>.*)", re.DOTALL)


def recognise_8k(root: Path) -> bool:
    """Return whether the directory contains `captions.txt` and `Images/`."""
    return (root / "captions.txt").is_file() and (root / "Images").is_dir()


def read_8k(root: Path) -> ReadResult:
    """Read `captions.txt`; the data set has no splits."""
    result = ReadResult()
    result.add_rows(_rows_8k(root, result))
    return result


def _rows_8k(root: Path, result: ReadResult) -> Iterator[RawExample]:
    """Yield the rows of a two-column CSV file, with or without the header `image,caption`."""
    images = root / "Images"
    for number, (location, row) in enumerate(read_table(root / "captions.txt", ",", result)):
        if len(row) != 2:
            message = f"expected 2 columns (image, caption), found {len(row)}"
            result.add_problem(location, message, "quote captions that contain commas")
        elif number or [name.strip().lower() for name in row] != ["image", "caption"]:
            yield RawExample(row[0], images, row[0], None, location, [(row[1], location)])


def recognise_30k(root: Path) -> Path | None:
    """Return `results.csv` in the directory, or in the one created by unpacking the archive."""
    candidates = (root / "results.csv", root / "flickr30k_images" / "results.csv")
    return next((path for path in candidates if path.is_file() and _has_header(path)), None)


def read_30k(root: Path) -> ReadResult:
    """Read `results.csv`; the data set has no splits."""
    source = recognise_30k(root)
    assert source is not None
    names = ("flickr30k_images", "flickr30k-images", "images", "Images")
    images = find_image_directory([source.parent / name for name in names], source)
    result = ReadResult()
    result.add_rows(_rows_30k(source, images, result))
    return result


def _rows_30k(source: Path, images: Path, result: ReadResult) -> Iterator[RawExample]:
    """Yield the rows `NAME| 0| CAPTION`; quotes are ordinary characters."""
    for number, line in enumerate(read_lines(source)[1:], start=2):
        location = SourceLocation(source, number)
        if match := _ROW_30K.fullmatch(line):
            name, caption = match["name"].strip(), match["caption"]
            yield RawExample(name, images, name, None, location, [(caption, location)])
        elif line.strip():
            result.add_problem(location, "the row is not image | number | caption", "correct it")


def _has_header(path: Path) -> bool:
    with path.open("rb") as file:
        header = file.readline(200).decode("utf-8-sig", "replace")
    return header.replace(" ", "").strip() == HEADER_30K
