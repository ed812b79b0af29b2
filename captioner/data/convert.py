"""Conversion of a data set in any format to JSONL, of captions or of labelled texts."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..atomic_io import atomic_write
from ..console import progress_bar
from ..errors import InputError
from .dataset import CaptionData, Example
from .formats.relations import RELATIONS
from .relations import with_relations
from .storage import files as storage
from .storage.location import Location

IMAGES = "images"  # the link to the images, in the directory of the JSONL file


def write_jsonl(data: CaptionData, directory: Path) -> Path:
    """Write a data set as `directory`/captions.jsonl, one image per line, and link to its images.

    The link `images` points to the common parent directory of all images. If any image is on a
    server, `images` is a directory with copies of all images instead. Returns the path of the JSONL
    file. Raises InputError if that file or `images` already exists.
    """
    return _write(data, directory / "captions.jsonl", _caption_rows)


def write_relations(data: CaptionData, directory: Path) -> Path:
    """Write labelled texts as `directory`/relations.jsonl, one text per line.

    Labels are generated as by `with_relations` if the data set has none. The images, the result and
    errors are as in `write_jsonl`.
    """
    return _write(with_relations(data), directory / RELATIONS, _relation_rows)


def _write(
    data: CaptionData, target: Path, rows_of: Callable[[Example, str], list[dict[str, Any]]]
) -> Path:
    """Write the rows of all examples to `target`, and link or copy the images beside it.

    rows_of(example, name): function that returns the rows of an example; name is the path of its
    image, relative to the directory of `target`.
    """
    directory, link = target.parent, target.parent / IMAGES
    for path in (target, link):
        if path.exists() or path.is_symlink():
            raise InputError(f"{path} already exists; choose another directory")
    parents = [storage.container(example.path).parent for example in data.examples]
    absolute = [Path("/") / str(storage.absolute(parent)) for parent in parents]
    base = Path(os.path.commonpath(absolute))
    names = [
        place.relative_to(base).joinpath(*example.path.parts[len(parent.parts) :])
        for example, parent, place in zip(data.examples, parents, absolute, strict=True)
    ]
    lines = [
        json.dumps(row, ensure_ascii=False) + "\n"
        for example, name in zip(data.examples, names, strict=True)
        for row in rows_of(example, (IMAGES / name).as_posix())
    ]
    directory.mkdir(parents=True, exist_ok=True)
    if any(isinstance(parent, Location) for parent in parents):
        _copy(data.examples, [link / name for name in names])
    else:
        link.symlink_to(base, target_is_directory=True)
    atomic_write(target, "".join(lines))
    return target


def _caption_rows(example: Example, name: str) -> list[dict[str, Any]]:
    row = {"image_id": example.id, "image": name, "captions": example.captions}
    return [{**row, "split": example.split}]


def _relation_rows(example: Example, name: str) -> list[dict[str, Any]]:
    return [
        {
            **{"image_id": example.id, "image": name, "split": example.split},
            **{"text": text.split("\n"), "labels": dict(labels.values), "source": labels.source},
        }
        for text, labels in zip(example.captions, example.labels, strict=True)
    ]


def _copy(examples: Sequence[Example], targets: Sequence[Path]) -> None:
    """Copy the images, which may be in archives or on servers, to the target paths."""
    images = zip(examples, targets, strict=True)
    for example, target in progress_bar(images, total=len(targets), unit="image"):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(storage.read(example.path))
