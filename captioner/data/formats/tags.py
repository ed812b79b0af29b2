"""Images with tags instead of captions: a CSV table, or NUS-WIDE's directories.

A table has an image column, a tags column, and optionally a split column. NUS-WIDE lists images in
ImageList/*.txt, one per line, and has a file for each label with a 0 or 1 for each of these images:

    ImageList/Imagelist.txt        Groundtruth/AllLabels/Labels_dog.txt
    ImageList/TrainImagelist.txt   Groundtruth/TrainTestLabels/Labels_dog_Train.txt
    ImageList/TestImagelist.txt    Groundtruth/TrainTestLabels/Labels_dog_Test.txt
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ...errors import InputError
from .reading import (
    DELIMITERS,
    RawExample,
    ReadResult,
    SourceLocation,
    first_line,
    parse_split,
    read_table,
    width_fault,
)
from .tables import IMAGES, caption_columns, place_images, recognise_csv

TAGS = ("tags", "labels")  # names of the column, in order of preference
BETWEEN = ", "  # tags in a caption; no tag contains a comma
_SEPARATOR = re.compile(r"\s*[;,|]\s*")
_PREFIX = "Labels_"


class TagRow(NamedTuple):
    """The tags of an image, in lower case and without duplicates.

    split: None if the files do not define one.
    """

    location: SourceLocation
    image: str
    tags: tuple[str, ...]
    split: str | None


def recognise(path: Path) -> Path | None:
    """Return a table of tags, which may be tags.csv in a directory, or a NUS-WIDE directory.

    None if the path is neither, or if it has captions, too.
    """
    if path.is_dir() and recognise_csv(path):
        return None
    table = path / "tags.csv" if path.is_dir() else path
    if table.is_file() and table.suffix.lower() in (".csv", ".tsv"):
        names, _ = _header(table)
        return table if _columns(names) and not caption_columns(names) else None
    return path if path.is_dir() and any(_nuswide_lists(path)) else None


def read(path: Path) -> ReadResult:
    """Read the tags of each image as one caption, in which commas separate them.

    Images without tags are left out, and counted in a note.
    """
    source, result = recognise(path) or path, ReadResult()
    rows = list(tag_rows(source, result))
    if any(row.split for row in rows):  # NUS-WIDE lists the images of its splits twice
        rows = [row for row in rows if row.split]
    if untagged := sum(not row.tags for row in rows):
        result.notes.append(f"images left out because they have no tags: {untagged:,}")
    examples = [
        RawExample(
            *(row.image, source.parent, row.image, row.split, row.location),
            [(BETWEEN.join(row.tags), row.location)],
        )
        for row in rows
        if row.tags
    ]
    place_images(source if source.is_file() else source / "ImageList", examples, None, result)
    result.add_rows(examples)
    return result


def tag_rows(path: Path, result: ReadResult) -> Iterator[TagRow]:
    """Yield the tags of each image in a table or a NUS-WIDE directory.

    In a table, tags are separated by commas, semicolons or vertical bars, or by spaces if no row
    contains any of these. Rows that cannot be read are added to the problems of `result`. Raises
    InputError if a table has no column of images or of tags, if a directory does not have
    NUS-WIDE's layout or a file of its labels does not match its list of images; OSError if a table
    cannot be opened.
    """
    return _nuswide_rows(path) if path.is_dir() else _table_rows(path, result)


def _table_rows(path: Path, result: ReadResult) -> Iterator[TagRow]:
    names, delimiter = _header(path)
    columns = _columns(names)
    if columns is None:
        raise InputError(
            f"tags {path} must have a header with the columns image and tags, got {names}"
        )
    image, cell = columns
    split = names.index("split") if "split" in names else None
    _, *table = read_table(path, delimiter, result)
    rows = [(place, row) for place, row in table if len(row) == len(names)]
    for place, row in table:
        if len(row) != len(names):
            message, advice = width_fault(row, len(names), delimiter)
            if len(row) > len(names):
                advice = f"quote tags that are separated by {DELIMITERS[delimiter]}"
            result.add_problem(place, message, advice)
    separated = any(_SEPARATOR.search(row[cell]) for _, row in rows)
    for place, row in rows:
        found = _SEPARATOR.split(row[cell]) if separated else row[cell].split()
        given = row[split] if split is not None else ""
        yield TagRow(
            place,
            row[image].strip().replace("\\", "/"),
            tuple(dict.fromkeys(_plain(tag) for tag in found if tag.strip())),
            (parse_split(given) or given) or None,
        )


def _header(path: Path) -> tuple[list[str], str]:
    """Return the column names of a table in lower case, and its delimiter."""
    line = first_line(path).lower()
    usual = "\t" if path.suffix.lower() == ".tsv" else ","
    for delimiter in (usual, *DELIMITERS):
        names = [name.strip(' "') for name in line.split(delimiter)]
        if _columns(names):
            return names, delimiter
    return [name.strip(' "') for name in line.split(usual) if line], usual


def _columns(names: list[str]) -> tuple[int, int] | None:
    """Return the numbers of the image column and of the tag column; None if one is missing."""
    found = [next((names.index(n) for n in known if n in names), -1) for known in (IMAGES, TAGS)]
    return (found[0], found[1]) if min(found) >= 0 else None


def _plain(tag: str) -> str:
    """Return a tag in lower case, with single spaces in place of underscores and white space."""
    return " ".join(tag.replace("_", " ").lower().split())


def _nuswide_rows(directory: Path) -> Iterator[TagRow]:
    lists = list(_nuswide_lists(directory))
    if not lists:
        raise InputError(
            f"{directory} contains no tags in NUS-WIDE's layout, with ImageList/ and Groundtruth/; "
            "pass a CSV file of tags or another directory"
        )
    for listed, split, labels in lists:
        images, tags = _lines(listed), dict[int, list[str]]()
        for name, file in labels:
            values = _lines(file)
            wrong = next((value for value in values if value not in ("0", "1")), None)
            if len(values) != len(images) or wrong is not None:
                found = f"the line {wrong!r:.40}" if wrong else f"{len(values)} lines"
                raise InputError(
                    f"{file} must have {len(images)} lines, one per image, each of which is 0 or "
                    f"1; it has {found}"
                )
            for i, value in enumerate(values):
                if value == "1":
                    tags.setdefault(i, []).append(_plain(name))
        for i, image in enumerate(images):
            place = SourceLocation(listed, i + 1)
            yield TagRow(place, image.replace("\\", "/"), tuple(tags.get(i, ())), split)


def _nuswide_lists(directory: Path) -> Iterator[tuple[Path, str | None, list[tuple[str, Path]]]]:
    """Yield lists of images, each with its split, and with the names and files of its labels."""
    lists = {file.stem.lower(): file for file in sorted((directory / "ImageList").glob("*.txt"))}
    truth = directory / "Groundtruth"
    for stem, split, folder, suffix in (
        ("imagelist", None, truth / "AllLabels", ""),
        ("trainimagelist", "train", truth / "TrainTestLabels", "_Train"),
        ("testimagelist", "test", truth / "TrainTestLabels", "_Test"),
    ):
        files = sorted(folder.glob(f"{_PREFIX}*{suffix}.txt"))
        if stem in lists and files:
            names = [file.stem.removeprefix(_PREFIX).removesuffix(suffix) for file in files]
            yield lists[stem], split, list(zip(names, files, strict=True))


def _lines(path: Path) -> list[str]:
    """Return the lines that are not empty, without white space around them."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise InputError(f"{path} cannot be read: {reason}; replace the file") from error
    return [line.strip() for line in lines if line.strip()]
