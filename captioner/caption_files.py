"""Captions by picture from one file of any common kind; no pictures, no splits.

Read are COCO's results (a list of objects) and annotations (.json), objects a line (.jsonl) and
tables with a header (.csv).
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import InputError

Id = int | str
IDS = ("image_id", "image", "id")  # the first of these that a row has names its picture


def read_caption_file(path: Path | str) -> dict[Id, list[str]]:
    """The captions of each picture that the file names; none where it names the picture only.

    A row has `image_id`, `image` or `id`, and a `caption` or a list of `captions`. An id written
    as a whole number is that number, quoted or not. Raises InputError, naming file and row, for
    anything else, and listing them for pictures or captions whose id comes twice and captions of
    pictures that COCO annotations do not list.
    """
    path = Path(path)
    text, kind = _read(path), path.suffix.lower()
    if kind == ".csv":
        return _group(_csv_rows(path, text))
    if kind in (".jsonl", ".ndjson"):
        lines = enumerate(text.split("\n"), start=1)  # only line feeds end a line
        found = ((f"{path}, line {n}", line) for n, line in lines if line.strip())
        return _group((place, _json(place, line)) for place, line in found)
    content = _json(str(path), text)
    if isinstance(content, list):
        return _group(_numbered(path, content))
    if isinstance(content, dict) and isinstance(content.get("annotations"), list):
        return _coco(path, content)
    raise InputError(
        f"{path} holds no captions: neither a list of objects nor COCO's annotations; other "
        "files are read by their endings .jsonl and .csv"
    )


def read_predictions(path: Path | str) -> dict[Id, str]:
    """One caption for each picture; raises InputError, listing them, for pictures with others."""
    captions = read_caption_file(path)
    if not captions:
        raise InputError(f"{path} holds no captions")
    wrong = [id for id, several in captions.items() if len(several) != 1]
    if wrong:
        raise InputError(f"{path}: {_some(wrong)} must have one caption each, not none or several")
    return {id: several[0] for id, several in captions.items()}


def read_others(path: Path | str, ids: Iterable[Id], allow_more: bool = False) -> dict[Id, str]:
    """One caption for each of these pictures, by the ids as given and in their order.

    allow_more: where the file has captions of other pictures, they do not matter. Raises
    InputError, listing them, for pictures that the file lacks.
    """
    found, known = read_predictions(path), {identity(id): id for id in ids}
    lacking = [id for id in known if id not in found]
    strangers = [id for id in found if id not in known and not allow_more]
    if lacking or strangers:
        trouble = "lacks" if lacking else "has captions of pictures that are not scored:"
        raise InputError(f"{path} {trouble} {_some(lacking or strangers)}")
    return {id: found[each] for each, id in known.items()}


def identity(value: Any) -> Id:
    """A picture's id as all files agree on it; raises ValueError for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise ValueError(f"{value!r} is no picture's id")
    str(value).encode()  # half a sign, which JSON may hold, is a ValueError, too
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 19:
        return int(value) if str(int(value)) == value else value
    return value


def match(
    captions: Mapping[Id, str],
    references: Mapping[Id, Sequence[str]],
    allow_missing: bool = False,
) -> tuple[dict[Id, str], dict[Id, Sequence[str]], str]:
    """Captions and references of the pictures that have both, and a note where not all have.

    Raises InputError, listing the pictures, unless that is allowed, and where none is left.
    """
    both = [id for id in references if id in captions and references[id]]
    troubles = {
        "references but no caption": [id for id in references if id not in captions],
        "a caption but no place among the references": [
            id for id in captions if id not in references
        ],
        "no references": [id for id in references if id in captions and not references[id]],
    }
    said = "; ".join(f"{trouble}: {_some(ids)}" for trouble, ids in troubles.items() if ids)
    if not both:
        raise InputError(f"no picture has both a caption and references: {said or 'no pictures'}")
    if said and not allow_missing:
        raise InputError(f"{said}; --allow-missing scores the rest")
    note = f"note: {len(both)} pictures are scored; {said}" if said else ""
    return {id: captions[id] for id in both}, {id: references[id] for id in both}, note


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: byte {error.start}; convert it first") from error


def _json(place: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: no valid JSON: {error}") from error


def _csv_rows(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    first = 2
    try:
        for row in reader:
            if None in row or None in row.values():
                raise InputError(
                    f"{path}, line {first}: not as many columns as the header has "
                    "(a caption with commas needs quotes)"
                )
            yield f"{path}, line {first}", row
            first = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}, line {first}: {error}") from error


def _numbered(path: Path, rows: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    return ((f"{path}, entry {number}", row) for number, row in enumerate(rows, start=1))


def _group(rows: Iterable[tuple[str, Any]]) -> dict[Id, list[str]]:
    captions: dict[Id, list[str]] = {}
    for place, row in rows:
        captions.setdefault(_id_of(place, row), []).extend(_captions_of(place, row))
    return captions


def _id_of(place: str, row: Any) -> Id:
    name = next((name for name in IDS if isinstance(row, dict) and name in row), None)
    if name is None:
        raise InputError(f"{place}: expected one of {', '.join(IDS)}, got {str(row)[:80]}")
    try:
        return identity(row[name])
    except ValueError as error:
        raise InputError(f"{place}: {error}") from error


def _captions_of(place: str, row: dict[str, Any]) -> list[str]:
    several = row["captions"] if "captions" in row else [row.get("caption")]
    if not isinstance(several, list) or not all(isinstance(text, str) for text in several):
        raise InputError(f"{place}: no text for a caption, and no list of them for captions")
    return several


def _coco(path: Path, content: dict[str, Any]) -> dict[Id, list[str]]:
    captions = _group(_numbered(path, content["annotations"]))
    numbers = [
        _id_of(f"{path}, entry {n}", {"id": row["id"]})
        for n, row in enumerate(content["annotations"], start=1)
        if "id" in row
    ]
    images = content.get("images")
    if not isinstance(images, list):
        raise InputError(f"{path}: no list of images beside the annotations")
    listed = [_id_of(f"{path}, image {n}", image) for n, image in enumerate(images, start=1)]
    for what, ids in (("pictures", listed), ("captions", numbers)):
        twice = [id for id, times in Counter(ids).items() if times > 1]
        if twice:
            raise InputError(f"{path}: {what} listed twice: {_some(twice, 'id')}")
    strangers = captions.keys() - set(listed)
    if strangers:
        raise InputError(
            f"{path}: captions of {_some(sorted(strangers, key=str))}, which it does not list"
        )
    return {id: captions.get(id, []) for id in listed}


def _some(ids: Sequence[Any], noun: str = "picture") -> str:
    """How many, and the first ten."""
    shown = ", ".join(map(repr, ids[:10])) + (", ..." if len(ids) > 10 else "")
    return f"{len(ids)} {noun}{'s' * (len(ids) > 1)} ({shown})"
