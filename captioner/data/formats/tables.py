"""JSON, JSONL and CSV tables with an image column and one or more caption columns."""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import InputError
from ..discovery import directories
from .cells import split_caption
from .json_files import beginning, json_kind, json_rows
from .reading import (
    DELIMITERS,
    SAMPLE,
    RawExample,
    ReadResult,
    SourceLocation,
    first_line,
    first_names,
    parse_split,
    read_lines,
    read_table,
    search_images,
    split_in_name,
    width_fault,
)

IMAGES = (
    *("file_name", "image", "filename", "filepath", "image_path", "image_name", "path"),
    *("image_file_name", "image_file", "img_path", "image_filename"),
)
CAPTIONS = (
    *("caption", "text", "sentence", "comment", "description", "title", "prompt"),
    *("raw", "annotations_caption", "caption_str", "reference_str"),
)
MAX_COLUMNS = 5  # columns listed in a message; a file without a header has a caption there


def recognise_jsonl(path: Path) -> list[tuple[Path, str | None]]:
    """Return the file itself, or captions.jsonl, or train.jsonl, val.jsonl ..., with their splits.

    The files are in the directory or its subdirectory `annotations`. JSON files are returned as
    well if they contain a list of rows. The split is that in the name of a file; it is None for
    `path` itself and for captions.jsonl, whose rows may name splits.
    """
    return _find_tables(path, (".jsonl", ".ndjson", ".json"))


def recognise_csv(path: Path) -> list[tuple[Path, str | None]]:
    """Return the tables as `recognise_jsonl` does, but for .csv or .tsv (tab-separated) files."""
    return _find_tables(path, (".csv", ".tsv"))


def read_jsonl(path: Path) -> ReadResult:
    """Read the JSON or JSONL files at `path`."""
    return _read_tables(recognise_jsonl(path))


def read_csv(path: Path) -> ReadResult:
    """Read the CSV or TSV files at `path`."""
    return _read_tables(recognise_csv(path))


def _find_tables(path: Path, suffixes: Sequence[str]) -> list[tuple[Path, str | None]]:
    """Return the tables at `path`, each with its split, as described for `recognise_jsonl`."""
    if path.is_file():
        return [(path, None)] if path.suffix.lower() in suffixes and _is_table(path) else []
    for directory in (path, path / "annotations"):
        visible = sorted(directory.glob("[!.]*"))
        files = [file for suffix in suffixes for file in visible if file.suffix.lower() == suffix]
        if whole := next((f for f in files if f.stem == "captions" and _is_table(f)), None):
            return [(whole, None)]
        for split_of, fits in ((parse_split, _is_table), (split_in_name, _has_captions)):
            found = [file for file in files if split_of(file.stem) and fits(file)]
            if found:
                return [(file, split_of(file.stem)) for file in found]
    return []


def _is_table(path: Path) -> bool:
    return path.suffix.lower() != ".json" or json_kind(path) == "rows"


def _has_captions(path: Path) -> bool:
    """Return whether the beginning of a table names an image and a caption column.

    The name of a file is not enough: train_log.csv looks like a table of training captions.
    """
    if path.suffix.lower() in (".csv", ".tsv"):
        header = first_line(path).lower()
        names = {name.strip(' "') for name in header.split(find_delimiter(path))}
    else:
        names = set(map(str.lower, re.findall(r'"(\w+)"\s*:', beginning(path))))
    return _is_table(path) and _has_columns(names, IMAGES)


def _read_tables(tables: Sequence[tuple[Path, str | None]]) -> ReadResult:
    result = ReadResult()
    for path, split in tables:
        rows = list(table_examples(path, result))
        place_images(path, rows, split, result)
        result.add_rows(rows)
    return result


def place_images(
    path: Path, rows: Sequence[RawExample], split: str | None, result: ReadResult
) -> None:
    """Set the directory of the images named in a table, and the split of rows without one.

    Names may begin with directories of the computer on which the table was written. These are
    dropped, and a note is added to `result`.
    """
    directory, dropped = _locate_images(path, [row.name for row in rows], split)
    if dropped:
        first = "/".join(str(rows[0].name).split("/")[:dropped])
        result.notes.append(
            f"image names in {path.name} are read without {first}/, relative to {directory}"
        )
    for row in rows:
        name, row.split = row.name, row.split or split
        row.directory, row.scope = directory, (path, row.split)
        if dropped and isinstance(name, str):
            row.name = "/".join(name.split("/")[dropped:]) or name
            row.id = row.name if row.id is name else row.id


def _locate_images(path: Path, names: Sequence[object], split: str | None) -> tuple[Path, int]:
    """Return the directory of a table's images, and how many components of their names to drop.

    Directories named after the table's split are searched before others, which may contain images
    with the same names.
    """
    below = directories(path.parent, 2) if split else ()
    preferred = (path.parent, *(each for each in below if parse_split(each.name) == split))
    texts = [name for name in names[:SAMPLE] if isinstance(name, str)]
    parts = [text.split("/") for text in texts if ".." not in text and "\0" not in text]
    for dropped in range(max(map(len, parts), default=0)):
        tails = first_names("/".join(each[dropped:]) for each in parts)
        if found := search_images(path, tails, preferred):
            return found, dropped
    return path.parent, 0


def table_examples(path: Path, result: ReadResult) -> Iterator[RawExample]:
    """Yield an example for each row; file names are relative to the table's directory.

    Rows without an image or a caption are added to the problems of `result`.
    """
    for location, row in table_rows(path, result):
        image = next((name for name in IMAGES if name in row), None)
        if image is None:
            advice = f"add an image column ({', '.join(IMAGES)})"
            result.add_problem(location, "the image is missing", advice)
            continue
        if not caption_columns(row):
            advice = f"add {_needed_columns(())}"
            result.add_problem(location, "the caption is missing", advice)
            continue
        captions = [(caption, location) for caption in row_captions(row)]
        name, image_id, split = image_name(row), row.get("image_id"), row.get("split")
        yield RawExample(
            name if image_id in (None, "") else image_id,
            path.parent,
            name,
            (parse_split(split) or split) or None,
            location,
            captions,
        )


def image_name(row: Mapping[str, Any]) -> Any:
    """Return the image's file name from the column of a row that IMAGES names.

    In exports of the Hugging Face hub, the column has an object with a `path`. Karpathy's rows have
    the directory in the column `filepath` and the name in `filename`. A value that is not a file
    name, such as an image's bytes, is returned unchanged.
    """
    value = row[next(name for name in IMAGES if name in row)]
    directory = row.get("filepath")
    if isinstance(value, dict) and not value.get("bytes"):
        return value.get("path") or value
    if value == row.get("filename") and isinstance(value, str) and isinstance(directory, str):
        return f"{directory}/{value}"
    return value


def table_rows(
    path: Path, result: ReadResult, images: Collection[str] = IMAGES
) -> Iterator[tuple[SourceLocation, dict[str, Any]]]:
    """Yield the rows of a JSON, JSONL or CSV file by lower-case column name.

    images: possible names of the column that identifies the image; empty if none is needed.
    Malformed rows are added to the problems of `result`. Raises InputError if a JSON file contains
    no rows, or if a CSV header lacks an image or a caption column, or repeats such a column.
    """
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".ndjson"):
        return _json_lines(path, result)
    if suffix == ".json":
        return ((location, normalise_columns(row)) for location, row in json_rows(path, result))
    return _csv_rows(path, result, images)


def normalise_columns(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row with its column names stripped and in lower case."""
    return {name.strip().lower(): value for name, value in row.items()}


def caption_columns(names: Iterable[str]) -> list[str]:
    """Return the caption columns: those with the first name in CAPTIONS that occurs.

    The name may also be in the plural or followed by a number, as in caption_2.
    """
    for known in CAPTIONS:
        if found := [name for name in names if re.fullmatch(rf"{known}s?(_?\d+)?", name)]:
            return found
    return []


def row_captions(row: Mapping[str, Any]) -> list[Any]:
    """Return all captions of a row; empty ones are ignored if it has several caption columns."""
    values = [row[name] for name in caption_columns(row)]
    if len(values) > 1:
        values = [value for value in values if value not in (None, "")]
    return [caption for value in values for caption in split_caption(value)]


def _json_lines(path: Path, result: ReadResult) -> Iterator[tuple[SourceLocation, dict[str, Any]]]:
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
    path: Path, result: ReadResult, images: Collection[str]
) -> Iterator[tuple[SourceLocation, dict[str, Any]]]:
    delimiter = find_delimiter(path, images)
    spaced = f"{delimiter} " in first_line(path)  # "image, caption"
    table = read_table(path, delimiter, result, spaced=spaced)
    _, header = next(table, (None, []))
    names = [name.strip().lower() for name in header]
    used = [name for name in names if name in images] + caption_columns(names)
    if repeated := [name for name, count in Counter(used).items() if count > 1]:
        advice = "remove one, or number the caption columns: caption_1, caption_2"
        raise InputError(f"{path} has the column {repeated[0]} twice; {advice}")
    if header and not _has_columns(names, images):
        if any(cell.startswith(("http://", "https://")) for cell in header):
            raise InputError(
                f"{path} has no column names in its first line, and contains URLs instead of file "
                "names; download the images with img2dataset and pass its output"
            )
        shown = ", ".join(header[:MAX_COLUMNS]) + (", ..." if len(header) > MAX_COLUMNS else "")
        raise InputError(
            f"{path} has the columns {shown}; it needs {_needed_columns(images)} in its first line"
        )
    for location, row in table:
        if len(row) == len(header):
            yield location, dict(zip(names, row, strict=True))
        else:
            result.add_problem(location, *width_fault(row, len(header), delimiter))


def find_delimiter(path: Path, images: Collection[str] = IMAGES) -> str:
    """Return the delimiter that divides the first line into names of the required columns.

    Excel writes semicolons in locales with a decimal comma. If no delimiter fits, the usual one
    for the extension is returned.
    """
    usual = "\t" if path.suffix.lower() == ".tsv" else ","
    header = first_line(path).lower()
    for delimiter in (usual, *DELIMITERS):
        names = [name.strip(' "') for name in header.split(delimiter)]
        if _has_columns(names, images):
            return delimiter
    return usual


def _has_columns(names: Collection[str], images: Collection[str]) -> bool:
    has_image = not images or bool(set(names) & set(images))
    return has_image and bool(caption_columns(names))


def _needed_columns(images: Collection[str]) -> str:
    image = f"an image column ({', '.join(images)}) and " if images else ""
    return f"{image}a caption column ({', '.join(CAPTIONS)})"
