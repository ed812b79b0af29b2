"""The types that readers return, and the parsing of text, CSV and JSON files.

The layouts are described in the other modules of this package.
"""

import csv
import json
import os
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import InputError
from ..discovery import decode_text, directories, existing_spelling, split_lines
from ..storage import files as storage
from ..storage.location import Location
from .cells import contains_rows, list_problem

SPLIT_NAMES = {  # common name of a split: our name
    **dict.fromkeys(("train", "training", "restval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
ANNOTATIONS = ("annotations", "captions")  # directories that contain only caption files
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
SAMPLE = 20  # number of image names that are looked for to find their directory


class SourceLocation(NamedTuple):
    """A line, or another numbered `part`, of a file; the whole file if `number` is 0."""

    file: Path | Location
    number: int = 0
    part: str = "line"

    def __str__(self) -> str:
        return f"{self.file}, {self.part} {self.number}" if self.number else str(self.file)


@dataclass(frozen=True)
class Problem:
    """A row or an image that cannot be used: its location, the reason and what to do."""

    location: SourceLocation
    message: str
    advice: str

    def __str__(self) -> str:
        return f"{self.location}: {self.message}; {self.advice}"


@dataclass(frozen=True)
class TextLabels:
    """The relation of a text to its image: values by the name of the label, such as {"cmi": 0.5}.

    A value may be missing; without values, the relation is unknown. source: where the text comes
    from, such as "news".
    """

    values: Mapping[str, float] = field(default_factory=dict)
    source: str = ""


@dataclass
class RawExample:
    """An image as read from a caption file, before validation.

    name: the file name, relative to `directory`. split: None if the files do not define one.
    captions: pairs of a caption and its location. scope: ids are unique among the examples with the
    same scope, for example a file. labels: one for each caption, or empty.
    """

    id: Any
    directory: Path | Location
    name: Any
    split: str | None
    location: SourceLocation
    captions: list[tuple[Any, SourceLocation]] = field(default_factory=list)
    scope: Hashable = None
    labels: list[TextLabels] = field(default_factory=list)

    @property
    def texts(self) -> list[str]:
        """The captions without their locations."""
        return [str(caption) for caption, _ in self.captions]


@dataclass
class ReadResult:
    """Everything found by a reader: images, and problems with rows that cannot be interpreted.

    notes: sentences about how the files were interpreted.
    """

    examples: list[RawExample] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add_problem(self, location: SourceLocation, message: str, advice: str) -> None:
        self.problems.append(Problem(location, message, advice))

    def add_rows(self, rows: Iterable[RawExample]) -> None:
        """Add rows of one or more captions each, merging rows of the same image."""
        merged: dict[str, RawExample] = {}
        for row in rows:
            # Keyed by repr, since unchecked values may be unhashable, and 1 is not "1".
            first = merged.setdefault(repr((row.id, row.directory, row.name, row.split)), row)
            if first is not row:
                first.captions += row.captions
                first.labels += row.labels
        self.examples += merged.values()


@dataclass(frozen=True)
class Reader:
    """The functions that recognise and read one layout, and a description for messages.

    recognise: function that returns a truthy value if the path has this layout. val_from_train:
    whether a seeded random tenth of the training images becomes the validation split if the data
    set has none. remote: whether `recognise` and `read` accept a Location as well as a Path.
    """

    recognise: Callable[[Any], object]
    read: Callable[[Any], ReadResult]
    layout: str
    val_from_train: bool = True
    remote: bool = False


def is_safe_name(name: object) -> bool:
    """Return whether `name` is a relative file name that stays within its directory."""
    if not isinstance(name, str) or not name or "\\" in name or "\0" in name:
        return False
    return not name.startswith("/") and ".." not in name.split("/")


def text_problem(value: object) -> str | None:
    """Return why a value is not valid text ("is not text", "is not UTF-8"), or None if it is."""
    if not isinstance(value, str):
        return "is not text"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "is not UTF-8"
    return None


def caption_problem(value: object) -> str | None:
    """Return why a value is not valid text or not one caption, or None if it is."""
    return text_problem(value) or list_problem(value)


def parse_split(name: object) -> str | None:
    """Return train, val or test for a common name of that split, and None for anything else."""
    return SPLIT_NAMES.get(name.strip().lower()) if isinstance(name, str) else None


def split_in_name(name: str) -> str | None:
    """Return the split named by a word of a file name, as in a-train2, if there is exactly one.

    Only the last two components of a path are considered.
    """
    words = re.findall(r"[a-z]+", "/".join(name.lower().split("/")[-2:]))
    splits = set(filter(None, map(parse_split, words)))
    return splits.pop() if len(splits) == 1 else None


def find_image_directory(
    source: Path, names: Iterable[object], preferred: Sequence[Path] = ()
) -> Path:
    """Return the directory that contains the images named in a caption file.

    This is the directory found by `search_images`, otherwise the first preferred directory that
    exists. If there is none, InputError is raised or, if no names are given, the directory of the
    caption file is returned.
    """
    first = first_names(names)
    found = search_images(source, first, preferred)
    found = found or next((path for path in preferred if path.is_dir()), None)
    if found is None and first:
        root = _search_root(source)
        raise InputError(
            f"the images of {source} are missing: {first[0]} is neither in {root} nor below it; "
            f"copy them to {root / 'images'}"
        )
    return found or source.parent


def search_images(source: Path, names: Sequence[str], preferred: Sequence[Path]) -> Path | None:
    """Return the directory that contains one of these images; None if there is none.

    The images are searched for in the preferred directories, in the directory of the caption file
    `source`, and at most two levels below it, or below its parent if it is named `annotations` or
    `captions`. Other directories may belong to other data sets, which may use the same names.
    """
    below = directories(_search_root(source), 2)
    for directory in (*preferred, source.parent, *below) if names else ():
        if any(os.path.isfile(existing_spelling(directory / name)) for name in names):
            return directory
    return None


def _search_root(source: Path) -> Path:
    """Return the directory below which the images of a caption file are searched for."""
    beside = source.parent
    return beside.absolute().parent if beside.name in ANNOTATIONS else beside


def first_names(names: Iterable[object]) -> list[str]:
    """Return the first SAMPLE safe names, which are used to find the image directory."""
    return [str(name) for name in islice(filter(is_safe_name, names), SAMPLE)]


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file; bytes that are not UTF-8 become lone surrogates.

    `text_problem` reports such surrogates. Lines end as described for `split_lines`.
    """
    return split_lines(storage.read_file(path), path)


def first_line(path: Path) -> str:
    """Return the first line that is not blank in the first 64 KiB of a text file, or ""."""
    with storage.open_file(path) as file:
        lines = split_lines(file.read(2**16), path)
    return next((line for line in lines if line.strip()), "")


def read_table(
    path: Path, delimiter: str, result: ReadResult, *, spaced: bool = False
) -> Iterator[tuple[SourceLocation, list[str]]]:
    """Yield the nonblank rows of a CSV file, each with the location of its first line.

    Quoting follows Excel's dialect. spaced: whether to drop spaces after delimiters, which would
    hide a quote. A malformed row, or one whose quotes contain other rows, is added to the problems
    of `result`, with the range of lines that it makes unreadable.
    """
    lines = read_lines(path)
    end = len(lines) - (lines[-1] == "")
    reader = csv.reader(
        (line + "\n" for line in lines),
        strict=True,
        delimiter=delimiter,
        skipinitialspace=spaced,
    )
    columns = 0
    while True:
        location = SourceLocation(path, reader.line_num + 1)
        message = ""
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            row, message = [], str(error).split(" - ")[0]  # the rest is advice for programmers
        last = min(reader.line_num, end)
        if contains_rows(row, delimiter, columns):
            message = "a quoted cell contains other rows"
        if message:
            if last > location.number:
                message += f" (skipping lines {location.number} to {last})"
            result.add_problem(location, message, "quote the text, and double any quotes in it")
        elif "".join(row).strip():
            columns = columns or len(row)
            yield location, row


def width_fault(
    row: Sequence[str], columns: int, delimiter: str, names: str = ""
) -> tuple[str, str]:
    """Return what is wrong with a row that has too many or too few values, and what to do.

    names: text that follows "columns" in the message, such as " (image, caption)".
    """
    advice = "add the missing values"
    if len(row) > columns:
        advice = f"quote captions that contain {DELIMITERS[delimiter]}"
    return f"expected {columns} columns{names}, found {len(row)}", advice


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; raise InputError if it is not valid JSON in UTF-8."""
    content = storage.read_file(path)
    text = decode_text(content, path)
    if text_problem(text):
        byte = next(m.start() for m in re.finditer("[\ud800-\udfff]", text))
        byte = len(text[:byte].encode()) + 3 * content.startswith(b"\xef\xbb\xbf")
        raise InputError(f"{path} is not UTF-8 (byte {byte}); convert it to UTF-8")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON: {error}; correct it") from error
