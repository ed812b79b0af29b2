"""A data set of captioned images in memory: examples, splits and problems.

The files are read by `readers`.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from .formats.reading import Problem, TextLabels
from .storage import files as storage
from .storage.location import Location

SPLITS = ("train", "val", "test")
MAX_LISTED = 20  # maximum number of problems listed in a message


@dataclass(frozen=True)
class Example:
    """An image file and its unmodified captions; `id` is unique within its split.

    labels: the relation of each caption to the image; empty if the data set has no such labels.
    """

    id: int | str
    path: Path | Location
    captions: tuple[str, ...]
    split: str
    labels: tuple[TextLabels, ...] = ()


@dataclass(frozen=True)
class CaptionData:
    """A data set with its name, its format and all usable examples.

    problems: rows and images that were omitted. note: how splits were drawn, or "" if the files
    define them. notes: sentences about how the files were interpreted.
    """

    name: str
    format: str
    root: Path | Location
    examples: tuple[Example, ...]
    problems: tuple[Problem, ...] = ()
    note: str = ""
    notes: tuple[str, ...] = ()

    def split(self, name: str) -> list[Example]:
        """Return the examples of a split: train, val (or dev) or test.

        Raises InputError if there are none, or if the name is unknown.
        """
        name = split_name(name)
        chosen = [example for example in self.examples if example.split == name]
        if not chosen:
            present = sorted({example.split for example in self.examples})
            raise InputError(
                f"{self.root} has no images in split {name!r}; choose {' or '.join(present)}"
            )
        return chosen

    def summary(self) -> str:
        """Summarise the data set in one line, followed by one line for each note.

        The first line has the path, the format, the numbers of images and captions in each split,
        how splits were drawn, and the number of problems.
        """
        parts = [self.format]
        for split in SPLITS:
            chosen = [example for example in self.examples if example.split == split]
            if chosen:
                captions = sum(len(example.captions) for example in chosen)
                parts.append(f"{split} {len(chosen)} images, {captions} captions")
        parts += [self.note] if self.note else []
        parts += [f"{len(self.problems)} problems skipped"] if self.problems else []
        lines = [f"{self.root}: {'; '.join(parts)}", *(f"note: {note}" for note in self.notes)]
        return "\n".join(lines)


def split_name(name: str) -> str:
    """Return train, val or test; `dev` is an alias of `val`. Raises InputError for other names."""
    name = {"dev": "val"}.get(name, name)
    if name not in SPLITS:
        raise InputError(f"unknown split {name!r}; choose train, val (or dev) or test")
    return name


def fingerprint(data: CaptionData) -> str:
    """Return the SHA-256 of all ids, splits, captions and labels; pixels are not included."""
    digest = hashlib.sha256()
    for example in data.examples:
        digest.update(json.dumps([example.id, example.split, *example.captions]).encode())
        if example.labels:
            labels = [[each.source, dict(each.values)] for each in example.labels]
            digest.update(json.dumps(labels).encode())
    return digest.hexdigest()


def image_sizes(data: CaptionData) -> str:
    """Return the SHA-256 of all ids and of the image files' sizes in bytes, to detect changes.

    The sizes of images on servers are not included.
    """
    digest = hashlib.sha256()
    for example in data.examples:
        size = storage.size_on_disk(example.path) if isinstance(example.path, Path) else None
        digest.update(json.dumps([example.id, size]).encode())
    return digest.hexdigest()


def problems_error(root: Path | Location, format: str, problems: Sequence[Problem]) -> InputError:
    """Return the error that lists the problems of a data set, raised with --on-error stop."""
    lines = problem_lines(problems)
    several = len(problems) > 1
    count = f"{len(problems)} problems; correct them" if several else "1 problem; correct it"
    return InputError(
        f"{root} (read as {format}) has {count} or pass --on-error skip:"
        + (f" {lines[0]}" if len(lines) == 1 else "".join(f"\n  {line}" for line in lines))
    )


def problem_lines(problems: Sequence[Problem]) -> list[str]:
    """Return a line for each of the first 20 problems and a count of any others."""
    more = len(problems) - MAX_LISTED
    return [*map(str, problems[:MAX_LISTED]), *([f"and {more} more"] if more > 0 else [])]
