"""Flickr8k and Flickr30k from Kaggle: `captions.txt` and `results.csv`."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ..discovery import is_image_name
from .reading import (
    RawExample,
    ReadResult,
    SourceLocation,
    find_image_directory,
    first_line,
    read_lines,
    read_table,
    width_fault,
)
from .tables import IMAGES, caption_columns, find_delimiter

HEADER_30K = "image_name|comment_number|comment"
DIRECTORIES = ("Images", "images", "flickr30k_images", "flickr30k-images")
# One row of the published file has spaces instead of its second `|`.
_ROW_30K = re.compile(r"(?P<name>[^|]*)\| *\d+(?: *\| ?|  +)(?P<caption>.*)", re.DOTALL)


def recognise_8k(root: Path) -> Path | None:
    """Return the table of images: the path itself if it is a .txt file, or a file in the directory.

    The file is `captions.txt` or `results.csv`. It is such a table if its first line names the
    columns or begins with an image name and a comma, or if it is `captions.txt` beside the
    directory `Images`, but not if it has the header of Flickr30k's `results.csv`.
    """
    if root.is_file():
        return root if root.suffix == ".txt" and _is_table(root) else None
    files = [root / "captions.txt", root / "results.csv", root / "flickr30k_images" / "results.csv"]
    return next((path for path in files if path.is_file() and _is_table(path)), None)


def _is_table(path: Path) -> bool:
    if _has_header(path):
        return False
    if path.name == "captions.txt" and (path.parent / "Images").is_dir():
        return True
    first = first_line(path)
    names = _column_names(first.split(find_delimiter(path)))
    if set(names) & set(IMAGES) and caption_columns(names):
        return True
    return is_image_name(first.partition(",")[0].strip('" ')) and "," in first


def read_8k(root: Path) -> ReadResult:
    """Read `captions.txt` or `results.csv`; the data set has no splits."""
    source = recognise_8k(root)
    assert source is not None
    result = ReadResult()
    rows = list(_rows_8k(source, result))
    preferred = [source.parent / name for name in DIRECTORIES]
    directory = find_image_directory(source, (row.name for row in rows), preferred)
    result.add_rows(replace(row, directory=directory) for row in rows)
    return result


def _rows_8k(source: Path, result: ReadResult) -> Iterator[RawExample]:
    """Yield the rows of a CSV file: image and caption, or the columns named in the header."""
    columns, image, caption = 2, 0, 1
    delimiter = find_delimiter(source)
    for number, (location, row) in enumerate(read_table(source, delimiter, result)):
        header = _column_names(row)
        if number == 0 and set(header) & set(IMAGES) and caption_columns(header):
            columns = len(header)
            image = next(i for i, name in enumerate(header) if name in IMAGES)
            caption = header.index(caption_columns(header)[0])
        elif len(row) != columns:
            names = " (image, caption)" if columns == 2 else ""
            result.add_problem(location, *width_fault(row, columns, delimiter, names))
        else:
            name = row[image]
            captions = [(row[caption], location)]
            yield RawExample(name, source.parent, name, None, location, captions)


def _column_names(row: list[str]) -> list[str]:
    return [name.strip(' "').lower() for name in row]


def recognise_30k(root: Path) -> Path | None:
    """Return the path itself, or a file in the directory, if it has Flickr30k's header.

    The file is `results.csv` or, with the same header, `captions.txt`. None if there is none.
    """
    if root.is_file():
        return root if root.suffix in (".csv", ".txt") and _has_header(root) else None
    names = ("results.csv", "flickr30k_images/results.csv", "captions.txt")
    candidates = (root / name for name in names)
    return next((path for path in candidates if path.is_file() and _has_header(path)), None)


def read_30k(root: Path) -> ReadResult:
    """Read the file that `recognise_30k` finds; the data set has no splits."""
    source = recognise_30k(root)
    assert source is not None
    result = ReadResult()
    rows = list(_rows_30k(source, result))
    preferred = [source.parent / name for name in reversed(DIRECTORIES)]
    directory = find_image_directory(source, (row.name for row in rows), preferred)
    result.add_rows(replace(row, directory=directory) for row in rows)
    return result


def _rows_30k(source: Path, result: ReadResult) -> Iterator[RawExample]:
    """Yield the rows `NAME| 0| CAPTION`; quotes are ordinary characters."""
    for number, line in enumerate(read_lines(source)[1:], start=2):
        location = SourceLocation(source, number)
        if match := _ROW_30K.fullmatch(line):
            name, caption = match["name"].strip(), match["caption"]
            yield RawExample(name, source.parent, name, None, location, [(caption, location)])
        elif line.strip():
            result.add_problem(location, "expected a row image | number | caption", "correct it")


def _has_header(path: Path) -> bool:
    return first_line(path).replace(" ", "").strip() == HEADER_30K
