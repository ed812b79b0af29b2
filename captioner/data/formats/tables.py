"""Tables with named columns, JSONL and CSV: a row names an image and has a caption or several."""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...errors import InputError
from ..storage import files as storage
from .reading import (
    RawExample,
    ReadResult,
    SourceLocation,
    is_plain,
    read_lines,
    read_table,
    split_of,
)

IMAGES = ("file_name", "image", "filename", "filepath", "image_path", "image_name", "path")
CAPTIONS = ("caption", "text", "sentence", "comment", "description", "title", "prompt")


def recognise_jsonl(path: Path) -> list[tuple[Path, str | None]]:
    """The file itself; captions.jsonl in the directory; or train.jsonl, val.jsonl, test.jsonl."""
    return _files(path, (".jsonl",))


def recognise_csv(path: Path) -> list[tuple[Path, str | None]]:
    """As for JSONL, with .csv, or .tsv, which has tabs."""
    return _files(path, (".csv", ".tsv"))


def read_jsonl(path: Path) -> ReadResult:
    return _read(recognise_jsonl(path))


def read_csv(path: Path) -> ReadResult:
    return _read(recognise_csv(path))


def _files(path: Path, suffixes: Sequence[str]) -> list[tuple[Path, str | None]]:
    """Tables, and the split that the name of each tells."""
    if path.is_file():
        return [(path, None)] if path.suffix in suffixes else []
    files = [file for suffix in suffixes for file in sorted(path.glob(f"*{suffix}"))]
    if whole := next((file for file in files if file.stem == "captions"), None):
        return [(whole, None)]
    return [(file, split) for file in files if (split := split_of(file.stem))]


def _read(files: Sequence[tuple[Path, str | None]]) -> ReadResult:
    reading = ReadResult()
    for path, split in files:
        rows = list(table_entries(path, reading))
        directory = _image_directory(path, rows)
        reading.add_rows(
            replace(row, directory=directory, split=row.split or split) for row in rows
        )
    return reading


def table_entries(path: Path, reading: ReadResult) -> Iterator[RawExample]:
    """An entry for each row; names of images start at the table's directory."""
    for place, row in table_rows(path, reading):
        image = next((name for name in IMAGES if name in row), None)
        if image is None or not caption_columns(row):
            what = "an image or its caption is not there"
            reading.report(place, what, f"name {_needed(IMAGES)}")
            continue
        captions = [(caption, place) for caption in row_captions(row)]
        name, identity, told = row[image], row.get("image_id"), row.get("split")
        split = (split_of(told) or told) or None
        yield RawExample(
            name if identity in (None, "") else identity, path.parent, name, split, place, captions
        )


def table_rows(
    path: Path, reading: ReadResult, images: Collection[str] = IMAGES
) -> Iterator[tuple[SourceLocation, dict[str, Any]]]:
    """The rows of JSONL or CSV by the names of their columns in lower case; others are reported.

    images: the names of a column that tells the image. Raises InputError for a CSV header that
    has none of them, no captions, or one of these twice.
    """
    kind = path.suffix.lower()
    if kind in (".jsonl", ".ndjson"):
        return _json_rows(path, reading)
    return _csv_rows(path, "\t" if kind == ".tsv" else ",", reading, images)


def by_column(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row by the names of its columns as people mean them."""
    return {name.strip().lower(): value for name, value in row.items()}


def caption_columns(names: Iterable[str]) -> list[str]:
    """The columns of captions: of the first of the names known, also in plural or numbered."""
    for known in CAPTIONS:
        if found := [name for name in names if re.fullmatch(rf"{known}s?(_?\d+)?", name)]:
            return found
    return []


def row_captions(row: Mapping[str, Any]) -> list[Any]:
    """All captions in the columns of a row; of several columns some may be empty."""
    values = [row[name] for name in caption_columns(row)]
    if len(values) > 1:
        values = [value for value in values if value not in (None, "")]
    return [c for value in values for c in (value if isinstance(value, list) else [value])]


def _json_rows(path: Path, reading: ReadResult) -> Iterator[tuple[SourceLocation, dict[str, Any]]]:
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            row = error
        if isinstance(row, dict):
            yield SourceLocation(path, number), by_column(row)
        else:
            reading.report(SourceLocation(path, number), "the line is no JSON object", "correct it")


def _csv_rows(
    path: Path, delimiter: str, reading: ReadResult, images: Collection[str]
) -> Iterator[tuple[SourceLocation, dict[str, Any]]]:
    table = read_table(path, delimiter, reading)
    _, header = next(table, (None, []))
    names = [name.strip().lower() for name in header]
    used = [name for name in names if name in images] + caption_columns(names)
    if twice := [name for name, times in Counter(used).items() if times > 1]:
        advice = "remove one; captions of one image may be caption_1, caption_2"
        raise InputError(f"{path} has the column {twice[0]} twice; {advice}")
    if header and not (set(names) & set(images) and caption_columns(names)):
        raise InputError(f"{path} has the columns {', '.join(header)}; it needs {_needed(images)}")
    for place, row in table:
        if len(row) == len(header):
            yield place, dict(zip(names, row, strict=True))
        else:
            what = f"expected {len(header)} columns, found {len(row)}"
            reading.report(place, what, "a caption with commas needs quotes")


def _needed(images: Iterable[str]) -> str:
    return f"a column of images ({', '.join(images)}) and one of captions ({', '.join(CAPTIONS)})"


def _image_directory(path: Path, rows: Sequence[RawExample]) -> Path:
    """The table's directory, or the `images` in it where the first image lies there."""
    first = next((row.name for row in rows if is_plain(row.name)), None)
    places = (path.parent, path.parent / "images", path.parent / "Images")
    found = (place for place in places if first and storage.is_file(place / first))
    return next(found, path.parent)
