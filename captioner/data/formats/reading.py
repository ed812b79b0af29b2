"""What a reader hands over, and how text, tables and JSON are read; no layout is known here."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import InputError
from ..storage.location import Location

SPLIT_NAMES = {  # what people call the splits
    **dict.fromkeys(("train", "training", "restval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"}


class SourceLocation(NamedTuple):
    """Where something was read: the `number`th line, or other part, of a file; 0 for all of it."""

    file: Path | Location
    number: int = 0
    part: str = "line"

    def __str__(self) -> str:
        return f"{self.file}, {self.part} {self.number}" if self.number else str(self.file)


@dataclass(frozen=True)
class Problem:
    """A row or image that cannot be used: where, what is wrong, and what to do about it."""

    place: SourceLocation
    what: str
    advice: str

    def __str__(self) -> str:
        return f"{self.place}: {self.what}; {self.advice}"


@dataclass
class RawExample:
    """An image as a reader found it: nothing of it has been checked yet.

    `name` is the file's name in `directory`; a split of None is one that the files do not tell.
    """

    id: Any
    directory: Path | Location
    name: Any
    split: str | None
    place: SourceLocation
    captions: list[tuple[Any, SourceLocation]] = field(default_factory=list)


@dataclass
class ReadResult:
    """All that a reader found: images, and the rows that it could make nothing of."""

    entries: list[RawExample] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def report(self, place: SourceLocation, what: str, advice: str) -> None:
        self.problems.append(Problem(place, what, advice))

    def add_rows(self, rows: Iterable[RawExample]) -> None:
        """Add entries of which several may be of one image: rows with a caption each."""
        found: dict[str, RawExample] = {}
        for row in rows:
            first = found.setdefault(repr((row.id, row.directory, row.name, row.split)), row)
            if first is not row:
                first.captions += row.captions
        self.entries += found.values()


@dataclass(frozen=True)
class Reader:
    """One layout: does it lie at this path, what does it hold, how it is described to people.

    val_from_train: where no image is for validation, a seeded tenth of training's is.
    remote: whether `recognise` and `read` take a Location as well as a Path.
    """

    recognise: Callable[[Any], object]
    read: Callable[[Any], ReadResult]
    layout: str
    val_from_train: bool = True
    remote: bool = False


def is_plain(name: object) -> bool:
    """Whether this is the name of a file that cannot lie outside of the directory it is put in."""
    if not isinstance(name, str) or not name or "\\" in name or "\0" in name:
        return False
    return not name.startswith("/") and ".." not in name.split("/")


def text_problem(value: object) -> str | None:
    """What keeps a value from being text: it is something else, or was not UTF-8."""
    if not isinstance(value, str):
        return "is no text"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "is not UTF-8"
    return None


def split_of(name: object) -> str | None:
    """train, val or test for what people call them; None for anything else."""
    return SPLIT_NAMES.get(name.strip().lower()) if isinstance(name, str) else None


def image_directory(places: Sequence[Path], source: Path) -> Path:
    """The first of these directories that exists; raises InputError where none does."""
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        raise InputError(
            f"the images of {source} are missing; looked for the directory {places[0]}"
        )
    return found


def read_lines(path: Path) -> list[str]:
    """The lines of a text file; bytes that are not UTF-8 become signs that no text may hold.

    Only line feeds end a line, with or without a carriage return: captions may hold stranger signs.
    """
    return split_lines(path.read_bytes())


def split_lines(content: bytes) -> list[str]:
    """As `read_lines`, of a file's content."""
    text = content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    return text.replace("\r\n", "\n").split("\n")


def read_table(
    path: Path, delimiter: str, reading: ReadResult
) -> Iterator[tuple[SourceLocation, list[str]]]:
    """The rows of a CSV file that are not blank, each at its first line; quotes are as Excel's.

    A broken row is reported, and what it took with it of the lines that follow.
    """
    lines = read_lines(path)
    end = len(lines) - (lines[-1] == "")
    reader = csv.reader((line + "\n" for line in lines), strict=True, delimiter=delimiter)
    while True:
        place = SourceLocation(path, reader.line_num + 1)
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            last = min(reader.line_num, end)
            what = str(error).split(" - ")[0]  # the rest is advice for programmers
            what += f", lines {place.number} to {last} are lost" * (last > place.number)
            reading.report(place, what, "quote the text, and double the quotes in it")
            continue
        if "".join(row).strip():
            yield place, row


def read_json(path: Path) -> Any:
    """The content of a JSON file; raises InputError where it is none, or not UTF-8."""
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: byte {error.start}; convert it first") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no valid JSON: {error}") from error
