"""Conversion of a data set in any format to JSONL."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from ..atomic_io import atomic_write
from ..errors import InputError
from .dataset import CaptionData, Example
from .storage import files as storage
from .storage.location import Location

IMAGES = "images"  # the link to the images, in the directory of the JSONL file


def write_jsonl(data: CaptionData, directory: Path) -> Path:
    """Write a data set as `directory`/captions.jsonl, one image per line, and link to its images.

    The link `images` points to the common parent directory of all images. If any image is on a
    server, `images` is a directory with copies of all images instead. Returns the path of the JSONL
    file. Raises InputError if that file or `images` already exists.
    """
    target, link = directory / "captions.jsonl", directory / IMAGES
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
    lines = [_row(example, name) for example, name in zip(data.examples, names, strict=True)]
    directory.mkdir(parents=True, exist_ok=True)
    if any(isinstance(parent, Location) for parent in parents):
        _copy(data.examples, [link / name for name in names])
    else:
        link.symlink_to(base, target_is_directory=True)
    atomic_write(target, "".join(lines))
    return target


def _row(example: Example, name: Path) -> str:
    row = {
        "image_id": example.id,
        "image": (IMAGES / name).as_posix(),
        "captions": example.captions,
        "split": example.split,
    }
    return json.dumps(row, ensure_ascii=False) + "\n"


def _copy(examples: Sequence[Example], targets: Sequence[Path]) -> None:
    """Copy the images, which may be in archives or on servers, to the target paths."""
    images = zip(examples, targets, strict=True)
    for example, target in tqdm(images, total=len(targets), unit="image", leave=False):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(storage.read(example.path))
