"""Captions by image from one file of any common kind; no images, no splits.

Read are COCO's results (a list of objects) and annotations (.json), objects a line (.jsonl) and
tables with a header (.csv, .tsv), whose columns are called as those of data sets are.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from .formats.reading import ReadResult, SourceLocation, read_json, text_problem
from .formats.tables import CAPTIONS, IMAGES, by_column, caption_columns, row_captions, table_rows

Id = int | str
Rows = Iterable[tuple[SourceLocation, Any]]
IDS = ("image_id", *IMAGES, "id")  # the first of these that a row has names its image


def read_caption_file(path: Path | str) -> dict[Id, list[str]]:
    """The captions of each image that the file names; none where it names the image only.

    A row has `image_id`, `file_name`, `image` or `id`, and a `caption` or `text`, or a list of
    them. An id written as a whole number is that number, quoted or not. Raises InputError, naming
    file and row, for anything else, and listing them for images or captions whose id comes twice
    and captions of images that COCO annotations do not list.
    """
    path = Path(path)
    try:
        if path.suffix.lower() in (".jsonl", ".ndjson", ".csv", ".tsv"):
            return _group(_table(path))
        content = read_json(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if isinstance(content, list):
        return _group(_numbered(path, content))
    if isinstance(content, dict) and isinstance(content.get("annotations"), list):
        return _coco(path, content)
    raise InputError(
        f"{path} holds no captions: neither a list of objects nor COCO's annotations; other "
        "files are read by their endings .jsonl, .csv and .tsv"
    )


def read_predictions(path: Path | str) -> dict[Id, str]:
    """One caption for each image; raises InputError, listing them, for images with others."""
    captions = read_caption_file(path)
    if not captions:
        raise InputError(f"{path} holds no captions")
    wrong = [id for id, several in captions.items() if len(several) != 1]
    if wrong:
        raise InputError(f"{path}: {_some(wrong)} must have one caption each, not none or several")
    return {id: several[0] for id, several in captions.items()}


def read_others(path: Path | str, ids: Iterable[Id], allow_more: bool = False) -> dict[Id, str]:
    """One caption for each of these images, by the ids as given and in their order.

    allow_more: where the file has captions of other images, they do not matter. Raises
    InputError, listing them, for images that the file lacks.
    """
    found, known = read_predictions(path), {identity(id): id for id in ids}
    lacking = [id for id in known if id not in found]
    strangers = [id for id in found if id not in known and not allow_more]
    if lacking or strangers:
        trouble = "lacks" if lacking else "has captions of images that are not scored:"
        raise InputError(f"{path} {trouble} {_some(lacking or strangers)}")
    return {id: found[each] for each, id in known.items()}


def identity(value: Any) -> Id:
    """An image's id as all files agree on it; raises ValueError for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise ValueError(f"{value!r} is no image's id")
    str(value).encode()  # half a sign, which JSON may hold, is a ValueError, too
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 19:
        return int(value) if str(int(value)) == value else value
    return value


def match(
    captions: Mapping[Id, str],
    references: Mapping[Id, Sequence[str]],
    allow_missing: bool = False,
) -> tuple[dict[Id, str], dict[Id, Sequence[str]], str]:
    """Captions and references of the images that have both, and a note where not all have.

    Raises InputError, listing the images, unless that is allowed, and where none is left.
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
        raise InputError(f"no image has both a caption and references: {said or 'no images'}")
    if said and not allow_missing:
        raise InputError(f"{said}; --allow-missing scores the rest")
    note = f"note: {len(both)} images are scored; {said}" if said else ""
    return {id: captions[id] for id in both}, {id: references[id] for id in both}, note


def _table(path: Path) -> Iterator[tuple[SourceLocation, Any]]:
    reading = ReadResult()
    for row in table_rows(path, reading, IDS):
        _refuse_problems(reading)
        yield row
    _refuse_problems(reading)


def _refuse_problems(reading: ReadResult) -> None:
    if reading.problems:
        raise InputError(str(reading.problems[0]))


def _numbered(
    path: Path, rows: Iterable[Any], part: str = "entry"
) -> Iterator[tuple[SourceLocation, Any]]:
    for number, row in enumerate(rows, start=1):
        place = SourceLocation(path, number, part)
        if not isinstance(row, dict):
            raise InputError(f"{place}: expected an object, got {str(row)[:80]}")
        yield place, by_column(row)


def _group(rows: Rows) -> dict[Id, list[str]]:
    captions: dict[Id, list[str]] = {}
    for place, row in rows:
        captions.setdefault(_id_of(place, row), []).extend(_captions_of(place, row))
    return captions


def _id_of(place: SourceLocation, row: Mapping[str, Any], names: Sequence[str] = IDS) -> Id:
    name = next((name for name in names if name in row), None)
    if name is None:
        raise _lacking(place, row, names)
    try:
        return identity(row[name])
    except ValueError as error:
        raise InputError(f"{place}: {error}") from error


def _captions_of(place: SourceLocation, row: Mapping[str, Any]) -> list[str]:
    if not caption_columns(row):
        raise _lacking(place, row, CAPTIONS)
    captions = row_captions(row)
    for caption in captions:
        if trouble := text_problem(caption):
            raise InputError(f"{place}: the caption {caption!r:.80} {trouble}; correct it")
    return captions


def _lacking(place: SourceLocation, row: Mapping[str, Any], names: Sequence[str]) -> InputError:
    return InputError(f"{place}: expected one of {', '.join(names)}, got {str(row)[:80]}")


def _coco(path: Path, content: dict[str, Any]) -> dict[Id, list[str]]:
    rows = list(_numbered(path, content["annotations"]))
    captions = _group(rows)
    numbers = [_id_of(place, row, ("id",)) for place, row in rows if "id" in row]
    images = content.get("images")
    if not isinstance(images, list):
        raise InputError(f"{path}: no list of images beside the annotations")
    listed = [_id_of(*each, names=("id",)) for each in _numbered(path, images, "image")]
    for what, ids in (("images", listed), ("captions", numbers)):
        twice = [id for id, times in Counter(ids).items() if times > 1]
        if twice:
            raise InputError(f"{path}: {what} listed twice: {_some(twice, 'id')}")
    strangers = captions.keys() - set(listed)
    if strangers:
        raise InputError(
            f"{path}: captions of {_some(sorted(strangers, key=str))}, which it does not list"
        )
    return {id: captions.get(id, []) for id in listed}


def _some(ids: Sequence[Any], noun: str = "image") -> str:
    """How many, and the first ten."""
    shown = ", ".join(map(repr, ids[:10])) + (", ..." if len(ids) > 10 else "")
    return f"{len(ids)} {noun}{'s' * (len(ids) > 1)} ({shown})"
