"""The types that readers return, and the parsing of text, CSV and JSON files.

The layouts are described in the other modules of this package.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import InputError
from ...git_lfs import refuse_pointer
from ..storage.location import Location

SPLIT_NAMES = {  # common name of a split: our name
    **dict.fromkeys(("train", "training", "restval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"}


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


@dataclass
class RawExample:
    """An image as read from a caption file, before validation.

    name: the file name, relative to `directory`. split: None if the files do not define one.
    captions: pairs of a caption and its location.
    """

    id: Any
    directory: Path | Location
    name: Any
    split: str | None
    location: SourceLocation
    captions: list[tuple[Any, SourceLocation]] = field(default_factory=list)


@dataclass
class ReadResult:
    """Everything found by a reader: images, and problems with rows that cannot be interpreted."""

    examples: list[RawExample] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def add_problem(self, location: SourceLocation, message: str, advice: str) -> None:
        self.problems.append(Problem(location, message, advice))

    def add_rows(self, rows: Iterable[RawExample]) -> None:
        """Add rows of one or more captions each, merging the rows of the same image."""
        merged: dict[str, RawExample] = {}
        for row in rows:
            # Keyed by repr, since unchecked values may be unhashable, and 1 is not "1".
            first = merged.setdefault(repr((row.id, row.directory, row.name, row.split)), row)
            if first is not row:
                first.captions += row.captions
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


def parse_split(name: object) -> str | None:
    """Return train, val or test for any of their common names, None for anything else."""
    return SPLIT_NAMES.get(name.strip().lower()) if isinstance(name, str) else None


def find_image_directory(candidates: Sequence[Path], source: Path) -> Path:
    """Return the first of the candidates that exists; raise InputError if none does.

    source: the caption file, named in the message.
    """
    found = next((path for path in candidates if path.is_dir()), None)
    if found is None:
        raise InputError(
            f"the images of {source} are missing: {candidates[0]} does not exist; unpack them there"
        )
    return found


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file; bytes that are not UTF-8 become lone surrogates.

    `text_problem` reports such surrogates. Only LF and CRLF end a line, since captions may contain
    other separators at which `str.splitlines` would split.
    """
    content = path.read_bytes()
    refuse_pointer(content, path)
    return split_lines(content)


def split_lines(content: bytes) -> list[str]:
    """Split the content of a file into lines as `read_lines` does."""
    text = content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    return text.replace("\r\n", "\n").split("\n")


def read_table(
    path: Path, delimiter: str, result: ReadResult
) -> Iterator[tuple[SourceLocation, list[str]]]:
    """Yield the nonblank rows of a CSV file, each with the location of its first line.

    Quoting follows Excel's dialect. A malformed row is added to the problems of `result`, with the
    range of lines that it makes unreadable.
    """
    lines = read_lines(path)
    end = len(lines) - (lines[-1] == "")
    reader = csv.reader((line + "\n" for line in lines), strict=True, delimiter=delimiter)
    while True:
        location = SourceLocation(path, reader.line_num + 1)
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            last = min(reader.line_num, end)
            message = str(error).split(" - ")[0]  # the rest is advice for programmers
            if last > location.number:
                message += f" (skipping lines {location.number} to {last})"
            result.add_problem(location, message, "quote the text, and double any quotes in it")
            continue
        if "".join(row).strip():
            yield location, row


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; raise InputError if it is not valid JSON in UTF-8."""
    content = path.read_bytes()
    refuse_pointer(content, path)
    try:
        return json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 (byte {error.start}); convert it first") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON: {error}") from error
