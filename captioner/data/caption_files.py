"""Reading captions from files in common formats, by image id or as a plain list.

The formats are JSON (COCO results or another list of objects, COCO annotations, or an object that
maps image names to captions), JSON Lines (.jsonl, .ndjson), and tables with a header (.csv, .tsv).
Column names are the same as in data sets. A plain list may also be a text file with one caption
per line. Images and splits are not read.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from .discovery import split_lines
from .formats.coco import caption_marks, marks_note
from .formats.json_files import rows_of
from .formats.reading import (
    ReadResult,
    SourceLocation,
    caption_problem,
    read_json,
    read_lines,
    text_problem,
)
from .formats.tables import (
    CAPTIONS,
    IMAGES,
    caption_columns,
    normalise_columns,
    row_captions,
    table_rows,
)

Id = int | str
LocatedRow = tuple[SourceLocation, dict[str, Any]]
IDS = ("image_id", *IMAGES, "id")  # the first of these keys found in a row identifies its image
TABLES = (".jsonl", ".ndjson", ".csv", ".tsv")
MAX_DIGITS = 18  # maximum length of a string id that is read as a number, which fits in 64 bits


def read_caption_file(path: Path | str, notes: list[str] | None = None) -> dict[Id, list[str]]:
    """Return the captions of each image in the file; images without captions have empty lists.

    Each row has an id or a name of its image, in a column such as `image_id`, `file_name` or `id`,
    and a caption, or a list of captions, in a column such as `caption` or `text`. A string id of at
    most 18 digits without leading zeros is converted to an integer. In COCO annotations, captions
    that VizWiz marks as rejected or precanned are left out. notes: a list to which notes on how the
    file was read are appended.

    Raises InputError if the file cannot be read or has none of the formats of this module, for a
    malformed row, for image or caption ids listed twice in COCO annotations, and for captions of
    images that are not listed there.
    """
    path = Path(path)
    try:
        if path.suffix.lower() in TABLES:
            return _group_by_image(_read_rows(path, IDS))
        content = read_json(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; check the path") from error
    if _is_annotations(content):
        return _read_annotations(path, content, [] if notes is None else notes)
    return _group_by_image(_located_objects(path, _json_rows(path, content)))


def read_sentences(path: Path | str, column: str | None = None) -> list[tuple[str, str]]:
    """Return the captions of a file in order, each with its row's value of `column`.

    The file contains one caption per line, or has one of the formats of `read_caption_file`; rows
    need not name an image. Blank captions are skipped. column: name of a column, in upper or lower
    case, that contains text, numbers or Booleans, which are returned as text; if it is None, every
    value is "". Raises InputError if the file cannot be read, or if a row lacks a caption or a
    value in the column, or if there are no captions. Captions that VizWiz marks are included.
    """
    path = Path(path)
    name = None if column is None else column.strip().lower()
    if name is not None and path.suffix.lower() not in (*TABLES, ".json"):
        raise InputError(
            f"{path} is plain text without columns; choose a .csv, .tsv, .jsonl or .json file, or "
            "omit column"
        )
    try:
        pairs = [
            (caption, "" if name is None else _value(location, row, name))
            for location, row in _sentence_rows(path)
            for caption in _valid_captions(location, row)
            if caption.strip()
        ]
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; check the path") from error
    if not pairs:
        raise InputError(f"{path} has no captions; choose another file")
    return pairs


def split_sentences(content: bytes, name: str) -> list[str]:
    """Return the captions in `content`, one per line; blank lines are skipped.

    A line that is a list of strings, as written by JSON or Python, contains several captions. name:
    how error messages refer to the content. Raises InputError for content that is not UTF-8 and
    for a line that is a list but cannot be parsed.
    """
    return [
        caption
        for number, line in enumerate(split_lines(content, name), start=1)
        for caption in _valid_captions(SourceLocation(Path(name), number), {"caption": line})
        if caption.strip()
    ]


def read_predictions(path: Path | str) -> dict[Id, str]:
    """Return the caption of each image.

    Raises InputError in the same cases as `read_caption_file`, if there are no captions, and unless
    each image has exactly one.
    """
    captions = read_caption_file(path)
    if not captions:
        raise InputError(f"{path} has no captions; choose another file")
    wrong = [image_id for image_id, texts in captions.items() if len(texts) != 1]
    if wrong:
        raise InputError(
            f"{path}: expected exactly one caption per image; correct those of {_list_ids(wrong)}"
        )
    return {image_id: texts[0] for image_id, texts in captions.items()}


def read_comparison_captions(
    path: Path | str, ids: Iterable[Id], allow_more: bool = False
) -> dict[Id, str]:
    """Return one caption per image, keyed by `ids` in the same form and order.

    allow_more: whether to ignore captions of other images. Raises InputError, listing the ids, if
    images have no caption or, unless `allow_more` is true, if there are captions of other images.
    """
    captions, given_ids = read_predictions(path), {normalise_id(id): id for id in ids}
    lacking = [id for id in given_ids if id not in captions]
    if lacking:
        raise InputError(f"{path} has no caption for {_list_ids(lacking)}; add one for each")
    other = [id for id in captions if id not in given_ids]
    if other and not allow_more:
        raise InputError(
            f"{path} has captions of images that are not scored: {_list_ids(other)}; remove them"
        )
    return {given: captions[id] for id, given in given_ids.items()}


def normalise_id(value: Any) -> Id:
    """Return an image id in its canonical form; raise ValueError if it is not an id.

    "7" and 7 are the same id; "07", "7.jpg" and strings of 19 or more digits remain text.
    """
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise ValueError(f"{value!r} is not an id; use an integer, or text that is not empty")
    if isinstance(value, str) and (reason := text_problem(value)):
        raise ValueError(f"the id {value!r} {reason}; correct it")
    if (
        isinstance(value, str)
        and value.isascii()
        and value.isdecimal()
        and len(value) <= MAX_DIGITS
        and str(int(value)) == value
    ):
        return int(value)
    return value


def match(
    captions: Mapping[Id, str],
    references: Mapping[Id, Sequence[str]],
    allow_missing: bool = False,
) -> tuple[dict[Id, str], dict[Id, Sequence[str]], str]:
    """Return the captions and references of images that have both, and a note on other images.

    The note is empty if every image has both. Raises InputError, listing the ids, if an image lacks
    either and `allow_missing` is false, or if no image has both.
    """
    both = [id for id in references if id in captions and references[id]]
    unmatched = {
        "without a caption": [id for id in references if id not in captions],
        "not among the references": [id for id in captions if id not in references],
        "without references": [id for id in references if id in captions and not references[id]],
    }
    listing = "; ".join(f"{_list_ids(ids)} {reason}" for reason, ids in unmatched.items() if ids)
    if not both:
        raise InputError(
            f"no image has both a caption and references: {listing or 'there are no images'}; use "
            "the same image ids for both"
        )
    if listing and not allow_missing:
        raise InputError(
            f"captions and references do not match: {listing}; "
            "pass --allow-missing to score the rest"
        )
    scored = "1 image is" if len(both) == 1 else f"{len(both)} images are"
    note = f"note: {scored} scored; {listing}" if listing else ""
    return {id: captions[id] for id in both}, {id: references[id] for id in both}, note


def _sentence_rows(path: Path) -> Iterator[LocatedRow]:
    """Yield the rows of any format; a line of text is a row that has only a caption."""
    suffix = path.suffix.lower()
    if suffix in TABLES:
        yield from _read_rows(path, ())
    elif suffix == ".json":
        content = read_json(path)
        rows = content["annotations"] if _is_annotations(content) else _json_rows(path, content)
        yield from _located_objects(path, rows)
    else:
        for number, line in enumerate(read_lines(path), start=1):
            yield SourceLocation(path, number), {"caption": line}


def _is_annotations(content: Any) -> bool:
    """Return whether the content of a JSON file is COCO annotations."""
    return isinstance(content, dict) and isinstance(content.get("annotations"), list)


def _json_rows(path: Path, content: Any) -> list[Any]:
    """Return the rows of a JSON file that is not COCO annotations."""
    rows = rows_of(content)
    if rows is None:
        raise InputError(
            f"{path} has no captions: as JSON, it must be a list of objects, an object that maps "
            "image names to captions, or COCO annotations; other formats need the extension "
            ".jsonl, .csv or .tsv"
        )
    return rows


def _value(location: SourceLocation, row: Mapping[str, Any], name: str) -> str:
    """Return the value of a column as text; raise InputError if it is missing or not a scalar."""
    if not isinstance(row.get(name), str | int | float):
        raise InputError(
            f"{location}: expected text or a number in the column {name!r}, got "
            f"{row[name]!r:.80}; correct it"
            if name in row
            else f"{location}: the column {name!r} is missing; choose one of {', '.join(row)}"
        )
    value = str(row[name]).strip()
    if reason := text_problem(value):
        raise InputError(f"{location}: the value {value!r:.80} of {name!r} {reason}; correct it")
    return value


def _read_rows(path: Path, images: Collection[str]) -> Iterator[LocatedRow]:
    """Yield the rows of a JSON Lines file or a table; raise InputError at the first problem."""
    result = ReadResult()
    for row in table_rows(path, result, images):
        _raise_first(result)
        yield row
    _raise_first(result)


def _raise_first(result: ReadResult) -> None:
    if result.problems:
        raise InputError(str(result.problems[0]))


def _located_objects(
    path: Path, objects: Iterable[Any], part: str = "entry"
) -> Iterator[LocatedRow]:
    for number, row in enumerate(objects, start=1):
        location = SourceLocation(path, number, part)
        if not isinstance(row, dict):
            raise InputError(f"{location}: expected a JSON object, got {str(row)[:80]}; correct it")
        yield location, normalise_columns(row)


def _group_by_image(rows: Iterable[LocatedRow]) -> dict[Id, list[str]]:
    captions: dict[Id, list[str]] = {}
    for location, row in rows:
        captions.setdefault(_row_id(location, row), []).extend(_valid_captions(location, row))
    return captions


def _row_id(location: SourceLocation, row: Mapping[str, Any], keys: Sequence[str] = IDS) -> Id:
    key = next((key for key in keys if key in row), None)
    if key is None:
        raise _missing_key(location, row, keys)
    try:
        return normalise_id(row[key])
    except ValueError as error:
        raise InputError(f"{location}: {error}") from error


def _valid_captions(location: SourceLocation, row: Mapping[str, Any]) -> list[str]:
    if not caption_columns(row):
        raise _missing_key(location, row, CAPTIONS)
    captions = row_captions(row)
    for caption in captions:
        if reason := caption_problem(caption):
            raise InputError(f"{location}: the caption {caption!r:.80} {reason}; correct it")
    return captions


def _missing_key(
    location: SourceLocation, row: Mapping[str, Any], keys: Sequence[str]
) -> InputError:
    return InputError(
        f"{location}: expected one of the keys {', '.join(keys)}, got {str(row)[:80]}; add one"
    )


def _read_annotations(path: Path, content: dict[str, Any], notes: list[str]) -> dict[Id, list[str]]:
    """Return the captions in COCO annotations, in the order of the list of images."""
    rows = list(_located_objects(path, content["annotations"]))
    marks = Counter(mark for _, row in rows for mark in caption_marks(row))
    if marks:
        notes.append(marks_note(path, marks))
    captions = _group_by_image(each for each in rows if not caption_marks(each[1]))
    caption_ids = [_row_id(location, row, ("id",)) for location, row in rows if "id" in row]
    images = content.get("images")
    if not isinstance(images, list):
        raise InputError(f"{path} has annotations but no list of images; add the key images")
    image_rows = _located_objects(path, images, "image")
    image_ids = [_row_id(location, row, ("id",)) for location, row in image_rows]
    for noun, ids in (("images", image_ids), ("captions", caption_ids)):
        repeated = [id for id, count in Counter(ids).items() if count > 1]
        if repeated:
            raise InputError(
                f"{path} lists {noun} twice: {_list_ids(repeated, 'id')}; make their ids unique"
            )
    unlisted = captions.keys() - set(image_ids)
    if unlisted:
        ids = sorted(unlisted, key=str)
        raise InputError(
            f"{path} has captions of images that it does not list: {_list_ids(ids)}; list the "
            "images, or remove the captions"
        )
    return {id: captions.get(id, []) for id in image_ids}


def _list_ids(ids: Sequence[Any], noun: str = "image") -> str:
    """Format the number of ids and the first ten of them."""
    shown = ", ".join(map(repr, ids[:10])) + (", ..." if len(ids) > 10 else "")
    return f"{len(ids)} {noun}{'s' * (len(ids) > 1)} ({shown})"
