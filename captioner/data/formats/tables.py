"""JSONL and CSV tables with an image column and one or more caption columns."""

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
    is_safe_name,
    parse_split,
    read_lines,
    read_table,
)

IMAGES = ("file_name", "image", "filename", "filepath", "image_path", "image_name", "path")
CAPTIONS = ("caption", "text", "sentence", "comment", "description", "title", "prompt")


def recognise_jsonl(path: Path) -> list[tuple[Path, str | None]]:
    """Return the file itself, or captions.jsonl or train.jsonl, val.jsonl, ... in the directory."""
    return _find_tables(path, (".jsonl",))


def recognise_csv(path: Path) -> list[tuple[Path, str | None]]:
    """Return the tables as `recognise_jsonl` does, for .csv or .tsv (tab-separated)."""
    return _find_tables(path, (".csv", ".tsv"))


def read_jsonl(path: Path) -> ReadResult:
    """Read the JSONL files at `path`."""
    return _read_tables(recognise_jsonl(path))


def read_csv(path: Path) -> ReadResult:
    """Read the CSV or TSV files at `path`."""
    return _read_tables(recognise_csv(path))


def _find_tables(path: Path, suffixes: Sequence[str]) -> list[tuple[Path, str | None]]:
    """Return the tables at `path`, each with the split given by its file name, if any."""
    if path.is_file():
        return [(path, None)] if path.suffix in suffixes else []
    files = [file for suffix in suffixes for file in sorted(path.glob(f"*{suffix}"))]
    if whole := next((file for file in files if file.stem == "captions"), None):
        return [(whole, None)]
    return [(file, split) for file in files if (split := parse_split(file.stem))]


def _read_tables(tables: Sequence[tuple[Path, str | None]]) -> ReadResult:
    result = ReadResult()
    for path, split in tables:
        rows = list(table_examples(path, result))
        directory = _image_directory(path, rows)
        result.add_rows(replace(row, directory=directory, split=row.split or split) for row in rows)
    return result


def table_examples(path: Path, result: ReadResult) -> Iterator[RawExample]:
    """Yield an example for each row; file names are relative to the table's directory."""
    for location, row in table_rows(path, result):
        image = next((name for name in IMAGES if name in row), None)
        if image is None or not caption_columns(row):
            message = "the image or the caption is missing"
            result.add_problem(location, message, f"add {_needed_columns(IMAGES)}")
            continue
        captions = [(caption, location) for caption in row_captions(row)]
        name, image_id, split = row[image], row.get("image_id"), row.get("split")
        yield RawExample(
            name if image_id in (None, "") else image_id,
            path.parent,
            name,
            (parse_split(split) or split) or None,
            location,
            captions,
        )


def table_rows(
    path: Path, result: ReadResult, images: Collection[str] = IMAGES
) -> Iterator[tuple[SourceLocation, dict[str, Any]]]:
    """Yield the rows of a JSONL or CSV file by lower-case column name.

    images: possible names of the column that identifies the image; empty if rows need none.
    Malformed rows are added to the problems of `result`. Raises InputError if a CSV header lacks an
    image or a caption column, or repeats such a column.
    """
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".ndjson"):
        return _json_rows(path, result)
    return _csv_rows(path, "\t" if suffix == ".tsv" else ",", result, images)


def normalise_columns(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row with its column names stripped and in lower case."""
    return {name.strip().lower(): value for name, value in row.items()}


def caption_columns(names: Iterable[str]) -> list[str]:
    """Return the columns named after the first of CAPTIONS found, even if plural or numbered."""
    for known in CAPTIONS:
        if found := [name for name in names if re.fullmatch(rf"{known}s?(_?\d+)?", name)]:
            return found
    return []


def row_captions(row: Mapping[str, Any]) -> list[Any]:
    """Return all captions of a row; empty ones are ignored if it has several caption columns."""
    values = [row[name] for name in caption_columns(row)]
    if len(values) > 1:
        values = [value for value in values if value not in (None, "")]
    return [c for value in values for c in (value if isinstance(value, list) else [value])]


def _json_rows(path: Path, result: ReadResult) -> Iterator[tuple[SourceLocation, dict[str, Any]]]:
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        location = SourceLocation(path, number)
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            yield location, normalise_columns(row)
        else:
            result.add_problem(location, "the line is not a JSON object", "correct it")


def _csv_rows(
    path: Path, delimiter: str, result: ReadResult, images: Collection[str]
) -> Iterator[tuple[SourceLocation, dict[str, Any]]]:
    table = read_table(path, delimiter, result)
    _, header = next(table, (None, []))
    names = [name.strip().lower() for name in header]
    used = [name for name in names if name in images] + caption_columns(names)
    if repeated := [name for name, count in Counter(used).items() if count > 1]:
        advice = "remove one, or number caption columns: caption_1, caption_2"
        raise InputError(f"{path} has the column {repeated[0]} twice; {advice}")
    has_image = not images or set(names) & set(images)
    if header and not (has_image and caption_columns(names)):
        needed = _needed_columns(images)
        raise InputError(f"{path} has the columns {', '.join(header)}; it needs {needed}")
    for location, row in table:
        if len(row) == len(header):
            yield location, dict(zip(names, row, strict=True))
        else:
            message = f"expected {len(header)} columns, found {len(row)}"
            result.add_problem(location, message, "quote captions that contain commas")


def _needed_columns(images: Collection[str]) -> str:
    image = f"an image column ({', '.join(images)}) and " if images else ""
    return f"{image}a caption column ({', '.join(CAPTIONS)})"


def _image_directory(path: Path, rows: Sequence[RawExample]) -> Path:
    """Return the table's directory, or its subdirectory `images` if the first image is there."""
    first = next((row.name for row in rows if is_safe_name(row.name)), None)
    candidates = (path.parent, path.parent / "images", path.parent / "Images")
    found = (base for base in candidates if first and storage.is_file(base / first))
    return next(found, path.parent)
