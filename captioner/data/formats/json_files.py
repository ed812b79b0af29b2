"""JSON files that contain table rows, COCO annotations or Karpathy's splits."""

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...errors import InputError
from ..discovery import is_image_name
from ..storage import files as storage
from .reading import ReadResult, SourceLocation, read_json

BEGINNING = 2**16  # bytes that are read at each end to recognise a file, which may be large


def json_kind(path: Path) -> str | None:
    """Return "rows", "coco" or "karpathy" from the keys in a JSON file; None if unknown.

    coco: COCO's format, unless its annotations are not captions, for example boxes of objects.

    rows: a list of objects, alone or as `data` in an object (TextCaps), or an object that maps
    image names to captions or to objects with captions.
    """
    status = path.stat()
    return _kind(path, status.st_size, status.st_mtime_ns)


def beginning(path: Path) -> str:
    with storage.open_file(path) as file:
        return file.read(BEGINNING).decode("utf-8-sig", "replace").lstrip()


def _end(path: Path) -> str:
    """Return the end of a file, which in COCO's format contains the captions."""
    with storage.open_file(path) as file:
        file.seek(max(0, path.stat().st_size - BEGINNING))
        return file.read().decode("utf-8", "replace")


@lru_cache(1024)
def _kind(path: Path, size: int, modified: int) -> str | None:  # noqa: ARG001  (parts of the key)
    text = beginning(path)
    keys = set(re.findall(r'"(\w+)"\s*:', text + _end(path)))
    if re.match(r"\[\s*\{", text) or re.search(r'"data"\s*:\s*\[\s*\{', text):
        return "rows"
    if {"sentences", "sentids"} & keys:
        return "karpathy"
    if {"images", "annotations"} & keys and not ("annotations" in keys and "caption" not in keys):
        return "coco"
    named = re.match(r'\{\s*"[^"]*\.\w{3,5}"\s*:\s*["\[{]', text)  # {"a.jpg": ["a dog"]}
    return "rows" if named else None


def json_rows(path: Path, result: ReadResult) -> Iterator[tuple[SourceLocation, dict[str, Any]]]:
    """Yield the rows of a file of the kind "rows"; raise InputError for any other file.

    Entries that are not objects are added to the problems of `result`.
    """
    rows = rows_of(read_json(path))
    if rows is None:
        raise InputError(
            f"{path} contains no rows; expected a list of objects, or an object that maps image "
            "names to captions"
        )
    for number, row in enumerate(rows, start=1):
        location = SourceLocation(path, number, "entry")
        if isinstance(row, dict):
            yield location, row
        else:
            result.add_problem(location, "the entry is not an object", "correct it")


def rows_of(content: Any) -> list[Any] | None:
    """Return the rows in the content of a file of the kind "rows"; None for any other content."""
    if isinstance(content, list):
        return content
    if not isinstance(content, dict):
        return None
    if isinstance(content.get("data"), list):
        return list(content["data"])
    named = content and all(map(is_image_name, content))
    return [_named_row(name, value) for name, value in content.items()] if named else None


def _named_row(name: str, value: object) -> dict[str, Any]:
    """Build a row from an image name and its value in an object that maps names to captions."""
    return (
        {**value, "image": name} if isinstance(value, dict) else {"image": name, "caption": value}
    )
