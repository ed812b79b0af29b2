"""Texts of several sentences with an image each, and labels of how they relate, as JSONL.

    {"image": "a.jpg", "text": "A dog runs. It is wet.", "labels": {"cmi": 0.5, "sc": 1},
     "source": "news", "split": "train"}

A text may also be a list of sentences. Rows without labels are pairs whose relation is unknown. The
layout of Henning and Ewerth 2017 (`imgpath`, `text`, `annotation` with `mi` from 0 to 4, and `sc`)
is read, too.
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .json_files import beginning
from .reading import RawExample, ReadResult, SourceLocation, TextLabels, parse_split
from .tables import IMAGES, place_images, table_rows

RELATIONS = "relations.jsonl"
NAMES = (*IMAGES, "imgpath")
LEVELS = 4  # of `mi` in the layout of 2017, which is divided by it
LABELS = 'write numbers, for example {"cmi": 0.5, "sc": 1}'
ANNOTATION = 'write numbers, for example {"mi": 2, "sc": 1}'


def recognise(path: Path) -> Path | None:
    """Return `path`, or the file relations.jsonl in it, if it contains labelled texts; else None.

    A .jsonl file of any other name must have a text and labels in its first row.
    """
    if path.is_dir():
        path = path / RELATIONS
    if path.suffix.lower() != ".jsonl" or not path.is_file():
        return None
    if path.name == RELATIONS:
        return path
    try:
        row = json.loads(beginning(path).partition("\n")[0])
    except (ValueError, RecursionError, OSError):
        return None
    known = isinstance(row, dict) and "text" in row and {"labels", "annotation"} & row.keys()
    return path if known else None


def read(path: Path) -> ReadResult:
    """Read the texts, and merge those of the same image."""
    result = ReadResult()
    file = recognise(path)
    assert file is not None
    rows = list(_examples(file, result))
    place_images(file, rows, None, result)
    result.add_rows(rows)
    return result


def _examples(path: Path, result: ReadResult) -> Iterator[RawExample]:
    for location, row in table_rows(path, result):
        image = next((row[name] for name in NAMES if name in row), None)
        text, labels = _text(row.get("text")), _labels(row)
        if image is None:
            result.add_problem(location, "the image is missing", 'add its name as "image"')
        elif text is None:
            message = "the text is missing, empty or neither a string nor a list of strings"
            result.add_problem(location, message, 'write it as "text"')
        elif isinstance(labels, str):
            advice = LABELS if row.get("annotation") is None else ANNOTATION
            result.add_problem(location, labels, advice)
        else:
            yield _example(path, location, image, text, labels, row)


def _example(
    path: Path,
    location: SourceLocation,
    image: Any,
    text: Any,
    labels: Mapping[str, float],
    row: Mapping[str, Any],
) -> RawExample:
    split = row.get("split")
    return RawExample(
        row.get("image_id", image),
        path.parent,
        image,
        (parse_split(split) or split) or None,
        location,
        [(text, location)],
        labels=[TextLabels(labels, str(row.get("source", "")))],
    )


def _text(value: Any) -> Any:
    """Return a text; the sentences of a list become its lines. None for any other value."""
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        return "\n".join(value)
    return value if isinstance(value, str) and value.strip() else None


def _labels(row: Mapping[str, Any]) -> dict[str, float] | str:
    """Return the labels of a row, or an error message if they are invalid."""
    if (annotation := row.get("annotation")) is not None:
        if not isinstance(annotation, dict) or not {"mi", "sc"} & annotation.keys():
            return f"the annotation {annotation!r:.80} is not an object with mi or sc"
        labels = {name: annotation[name] for name in ("mi", "sc") if name in annotation}
    else:
        labels = row.get("labels") or {}
    if not isinstance(labels, dict):
        return f"the labels are {labels!r}, not an object"
    for name, value in labels.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value):
            return f"the label {name} is {value!r}, not a number"
    if annotation is not None and "mi" in labels:
        labels = {"cmi": labels["mi"] / LEVELS, **{n: v for n, v in labels.items() if n != "mi"}}
    return labels
