"""A data set of captioned images in memory: examples, splits, problems; how files are read is
readers.py's.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from .formats.reading import Problem
from .storage.location import Location

SPLITS = ("train", "val", "test")
SHOWN = 20  # problems listed in full


@dataclass(frozen=True)
class Example:
    """An image file and its captions as written; `id` is unique within the data set."""

    id: int | str
    path: Path | Location
    captions: tuple[str, ...]
    split: str


@dataclass(frozen=True)
class CaptionData:
    """A data set as read: its name, the format that was recognised, and all examples.

    `problems` are of what was left out; `note` tells where splits were drawn, and is else empty.
    """

    name: str
    format: str
    root: Path | Location
    examples: tuple[Example, ...]
    problems: tuple[Problem, ...] = ()
    note: str = ""

    def split(self, name: str) -> list[Example]:
        """The examples of train, val (alias dev) or test; an empty split is an InputError."""
        name = split_name(name)
        chosen = [example for example in self.examples if example.split == name]
        if not chosen:
            there = sorted({example.split for example in self.examples})
            raise InputError(
                f"{self.root} has no images in split {name!r}; it has {', '.join(there)}"
            )
        return chosen

    def summary(self) -> str:
        """One line for people: format, images and captions per split, what was left out."""
        parts = [self.format]
        for split in SPLITS:
            chosen = [example for example in self.examples if example.split == split]
            if chosen:
                captions = sum(len(example.captions) for example in chosen)
                parts.append(f"{split} {len(chosen)} images, {captions} captions")
        parts += [self.note] if self.note else []
        parts += [f"{len(self.problems)} problems skipped"] if self.problems else []
        return f"{self.root}: {'; '.join(parts)}"


def split_name(name: str) -> str:
    """`dev` means `val`; anything but train, val and test is an InputError."""
    name = {"dev": "val"}.get(name, name)
    if name not in SPLITS:
        raise InputError(f"unknown split {name!r}; choose train, val (or dev) or test")
    return name


def fingerprint(data: CaptionData) -> str:
    """SHA-256 of images' ids, splits and captions: changes with what is learned and scored."""
    digest = hashlib.sha256()
    for example in data.examples:
        digest.update(json.dumps([example.id, example.split, *example.captions]).encode())
    return digest.hexdigest()


def refuse(root: Path | Location, format: str, problems: Sequence[Problem]) -> InputError:
    """What is raised where a data set has problems and --on-error is stop."""
    lines = some(problems)
    return InputError(
        f"{root} (read as {format}) has {len(problems)} problem{'s' * (len(problems) > 1)}, "
        f"which --on-error skip would leave out:"
        + (f" {lines[0]}" if len(lines) == 1 else "".join(f"\n  {line}" for line in lines))
    )


def some(problems: Sequence[Problem]) -> list[str]:
    """The first 20 of some problems, a line each, and how many more there are."""
    more = len(problems) - SHOWN
    return [*map(str, problems[:SHOWN]), *([f"and {more} more"] if more > 0 else [])]
