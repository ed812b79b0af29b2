"""Tags of images, from a CSV file with the columns image and tags, or from NUS-WIDE's directories.

NUS-WIDE lists images in ImageList/*.txt, one per line, and has a file for each label with a 0 or 1
for each of these images:

    ImageList/Imagelist.txt        Groundtruth/AllLabels/Labels_dog.txt
    ImageList/TrainImagelist.txt   Groundtruth/TrainTestLabels/Labels_dog_Train.txt
    ImageList/TestImagelist.txt    Groundtruth/TrainTestLabels/Labels_dog_Test.txt
"""

import csv
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ..errors import InputError

IMAGE, TAGS = ("image", "file_name", "filename"), ("tags", "labels")
_SEPARATOR = re.compile(r"\s*[;,|]\s*")
_PREFIX = "Labels_"
Tags = dict[str, set[str]]


def read_tags(path: Path) -> Tags:
    """Return the tags of each image, in lower case, by file name.

    In a CSV file, tags are separated by commas, semicolons or vertical bars, or by spaces if no
    cell of tags contains any of these. The keys are the names in the file and also their last
    components, so that images can be looked up with or without directories. Raises InputError if
    the path cannot be read or contains no tags.
    """
    tags = _read_nuswide(path) if path.is_dir() else _read_csv(path)
    if not any(tags.values()):
        raise InputError(f"{path} contains no tags; choose another file or directory of tags")
    for name in list(tags):
        tags.setdefault(PurePosixPath(name).name, tags[name])
    return tags


def _read_csv(path: Path) -> Tags:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"tags {path} cannot be read: {error}") from error
    header = [name.strip().lower() for name in rows[0]] if rows else []
    columns = [next((header.index(n) for n in names if n in header), -1) for names in (IMAGE, TAGS)]
    if min(columns) < 0:
        raise InputError(
            f"tags {path} must have a header with the columns image and tags, got {header}"
        )
    image, cell = columns
    separated = any(_SEPARATOR.search(row[cell]) for row in rows[1:] if len(row) > cell)
    tags: Tags = {}
    for number, row in enumerate(rows[1:], start=2):
        if not row:
            continue
        if len(row) <= max(columns):
            raise InputError(
                f"tags {path}, line {number}: expected {len(header)} columns, found {len(row)}; "
                "correct it"
            )
        found = _SEPARATOR.split(row[cell]) if separated else row[cell].split()
        own = tags.setdefault(row[image].strip().replace("\\", "/"), set())
        own.update(_plain(tag) for tag in found if tag.strip())
    return tags


def _plain(tag: str) -> str:
    """Return a tag in lower case, with underscores and white space replaced by single spaces."""
    return " ".join(tag.replace("_", " ").lower().split())


def _read_nuswide(directory: Path) -> Tags:
    tags: Tags = {}
    found = False
    for images, labels in _nuswide_lists(directory):
        found = True
        for name, file in labels:
            values = _lines(file)
            wrong = next((value for value in values if value not in ("0", "1")), None)
            if len(values) != len(images) or wrong is not None:
                found_instead = f"the line {wrong!r:.40}" if wrong else f"{len(values)} lines"
                raise InputError(
                    f"{file} must have {len(images)} lines, one per image, each of which is 0 or "
                    f"1; it has {found_instead}"
                )
            for image, value in zip(images, values, strict=True):
                own = tags.setdefault(image.replace("\\", "/"), set())
                if value == "1":
                    own.add(_plain(name))
    if not found:
        raise InputError(
            f"{directory} contains no tags in NUS-WIDE's layout, with ImageList/ and Groundtruth/; "
            "pass a CSV file of tags or another directory"
        )
    return tags


def _nuswide_lists(directory: Path) -> Iterator[tuple[list[str], list[tuple[str, Path]]]]:
    """Yield each list of images with the names and files of its labels."""
    lists = {file.stem.lower(): file for file in sorted((directory / "ImageList").glob("*.txt"))}
    truth = directory / "Groundtruth"
    for stem, folder, suffix in (
        ("imagelist", truth / "AllLabels", ""),
        ("trainimagelist", truth / "TrainTestLabels", "_Train"),
        ("testimagelist", truth / "TrainTestLabels", "_Test"),
    ):
        files = sorted(folder.glob(f"{_PREFIX}*{suffix}.txt"))
        if stem in lists and files:
            names = [file.stem.removeprefix(_PREFIX).removesuffix(suffix) for file in files]
            yield _lines(lists[stem]), list(zip(names, files, strict=True))


def _lines(path: Path) -> list[str]:
    """Return the nonempty lines of a file, stripped of white space."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    return [line.strip() for line in lines if line.strip()]
