"""Flickr8k and Flickr30k as Kaggle has them: `captions.txt`, and `results.csv` with its `|`."""

import re
from collections.abc import Iterator
from pathlib import Path

from .reading import RawExample, ReadResult, SourceLocation, image_directory, read_lines, read_table

HEADER_30K = "image_name|comment_number|comment"
# One row of the published file lacks its second `|` and has spaces there.
_ROW_30K = re.compile(r"(?P<name>[^|]*)\| *\d+(?: *\| ?|  +)(?P<caption>.*)", re.DOTALL)


def recognise_8k(root: Path) -> bool:
    """`captions.txt` beside `Images/`."""
    return (root / "captions.txt").is_file() and (root / "Images").is_dir()


def read_8k(root: Path) -> ReadResult:
    reading = ReadResult()
    reading.add_rows(_rows_8k(root, reading))
    return reading


def _rows_8k(root: Path, reading: ReadResult) -> Iterator[RawExample]:
    """A table of two columns, with the header image,caption or without."""
    images = root / "Images"
    for number, (place, row) in enumerate(read_table(root / "captions.txt", ",", reading)):
        if len(row) != 2:
            what = f"expected image and caption, found {len(row)} columns"
            reading.report(place, what, "a caption with commas needs quotes")
        elif number or [name.strip().lower() for name in row] != ["image", "caption"]:
            yield RawExample(row[0], images, row[0], None, place, [(row[1], place)])


def recognise_30k(root: Path) -> Path | None:
    """`results.csv`, in the directory or in the one that the archive unpacks to."""
    places = (root / "results.csv", root / "flickr30k_images" / "results.csv")
    return next((path for path in places if path.is_file() and _has_header(path)), None)


def read_30k(root: Path) -> ReadResult:
    source = recognise_30k(root)
    assert source is not None
    here, reading = source.parent, ReadResult()
    names = ("flickr30k_images", "flickr30k-images", "images", "Images")
    images = image_directory([here / name for name in names], source)
    reading.add_rows(_rows_30k(source, images, reading))
    return reading


def _rows_30k(source: Path, images: Path, reading: ReadResult) -> Iterator[RawExample]:
    """`NAME| 0| CAPTION`, a caption a line; quotes mean nothing."""
    for number, line in enumerate(read_lines(source)[1:], start=2):
        place = SourceLocation(source, number)
        if match := _ROW_30K.fullmatch(line):
            name, caption = match["name"].strip(), match["caption"]
            yield RawExample(name, images, name, None, place, [(caption, place)])
        elif line.strip():
            reading.report(place, "the row is not image | number | caption", "correct it")


def _has_header(path: Path) -> bool:
    with path.open("rb") as file:
        header = file.readline(200).decode("utf-8-sig", "replace")
    return header.replace(" ", "").strip() == HEADER_30K
