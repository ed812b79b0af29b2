"""COCO caption annotations (2014, 2017 or no year) and image directories."""

import re
from pathlib import Path
from typing import Any

from ...errors import InputError
from ..dataset import SPLITS
from .reading import RawExample, ReadResult, SourceLocation, find_image_directory, read_json


def recognise(root: Path) -> dict[str, Path]:
    """Return the caption files by split; if there are several years, only the latest."""
    files = sorted((root / "annotations").glob("captions_*.json"))
    found = {
        split: [file for file in files if re.fullmatch(f"captions_{split}[0-9]*", file.stem)]
        for split in SPLITS
    }
    return {split: paths[-1] for split, paths in found.items() if paths}


def read(root: Path) -> ReadResult:
    """Read the caption files of all splits."""
    result = ReadResult()
    for split, path in recognise(root).items():
        _read_file(root, path, split, result)
    return result


def _read_file(root: Path, path: Path, split: str, result: ReadResult) -> None:
    content = read_json(path)
    images, annotations = (_objects(content, key, path) for key in ("images", "annotations"))
    name = path.stem.removeprefix("captions_")
    candidates = [root / name, root / "images" / name, root / "images", root / split]
    directory = find_image_directory(candidates, path) if images else root
    examples: dict[str, RawExample] = {}  # by the repr of the id, since 1 is not "1"
    for number, image in enumerate(images, start=1):
        location = SourceLocation(path, number, "image")
        example = RawExample(image.get("id"), directory, image.get("file_name"), split, location)
        examples.setdefault(repr(example.id), example)
        result.examples.append(example)
    _add_captions(path, annotations, examples, result)


def _add_captions(
    path: Path,
    annotations: list[dict[str, Any]],
    examples: dict[str, RawExample],
    result: ReadResult,
) -> None:
    """Add each annotation's caption to its image; report captions of unknown images."""
    first_locations: dict[str, SourceLocation] = {}  # by caption id
    for number, annotation in enumerate(annotations, start=1):
        location = first = SourceLocation(path, number, "annotation")
        if "id" in annotation:
            first = first_locations.setdefault(repr(annotation["id"]), location)
        example = examples.get(repr(annotation.get("image_id")))
        if example is None:
            image_id = annotation.get("image_id")
            message = f"the caption belongs to image {image_id!r}, which the file does not list"
            result.add_problem(location, message, "list the image, or remove the caption")
        elif first is not location:
            message = f"caption {annotation['id']!r} is listed twice, first at {first}"
            result.add_problem(location, message, "remove one of them, or change its id")
        else:
            example.captions.append((annotation.get("caption"), location))


def _objects(content: Any, key: str, path: Path) -> list[dict[str, Any]]:
    found = content.get(key) if isinstance(content, dict) else None
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise InputError(
            f"{path} is not a COCO caption file: it has no list of objects named {key!r}"
        )
    return found
