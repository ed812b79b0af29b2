"""COCO caption annotations (2014, 2017 or no year), and data sets that use their format."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

from ...errors import InputError
from ..dataset import SPLITS
from .json_files import json_kind
from .reading import (
    SPLIT_NAMES,
    RawExample,
    ReadResult,
    SourceLocation,
    find_image_directory,
    read_json,
    split_in_name,
)

# VizWiz marks the captions that its evaluation leaves out.
MARKS = ("is_rejected", "is_precanned")
# Of the files for a split, the first pattern that matches any is used. A file with COCO's own name
# is one whatever it contains; others must look like COCO's.
_NAMES = (r"captions_{split}[0-9]*", r"{split}[0-9]*", r"(nocaps_)?{split}(_[0-9]+)?_captions")


def recognise(path: Path) -> dict[str | None, Path]:
    """Return the caption files by split; of several years, only the latest is used.

    The path is a file, or a directory with files in `annotations` or directly in it. A file
    whose name contains no split has the split None.
    """
    if path.is_file():
        is_coco = path.suffix.lower() == ".json" and json_kind(path) == "coco"
        return {split_in_name(path.stem): path} if is_coco else {}
    for directory in (path / "annotations", path):
        files = sorted(directory.glob("[!.]*.json"))
        found: dict[str | None, Path] = {
            split: file for split in SPLITS if (file := _file_of(split, files))
        }
        if found:
            return found
    return {}


def _file_of(split: str, files: list[Path]) -> Path | None:
    names = "|".join(name for name, meant in SPLIT_NAMES.items() if meant == split)
    for pattern in _NAMES:
        expression = pattern.format(split=f"({names})")
        matching = [file for file in files if re.fullmatch(expression, file.stem.lower())]
        kinds = ("coco", None) if pattern == _NAMES[0] else ("coco",)
        if matching := [file for file in matching if json_kind(file) in kinds]:
            return matching[-1]
    return None


def read(root: Path) -> ReadResult:
    """Read the caption files of all splits; a note reports a test file without captions."""
    result = ReadResult()
    for split, path in recognise(root).items():
        _read_file(path, split, result)
    return result


def _read_file(path: Path, split: str | None, result: ReadResult) -> None:
    content = read_json(path)
    images = _objects(content, "images", path)
    if split == "test" and not content.get("annotations"):  # VizWiz publishes no test captions
        result.notes.append(
            f"images of {path.name} left out because the file has no captions: {len(images):,}"
        )
        return
    annotations = _objects(content, "annotations", path)
    directory = _image_directory(path, split, images)
    examples: dict[str, RawExample] = {}  # by the repr of the id, since 1 is not "1"
    for number, image in enumerate(images, start=1):
        location = SourceLocation(path, number, "image")
        example = RawExample(image.get("id"), directory, image.get("file_name"), split, location)
        example.scope = path
        examples.setdefault(repr(example.id), example)
        result.examples.append(example)
    marked = _add_captions(path, annotations, examples, result)
    _drop_emptied(path, marked, result)


def _image_directory(path: Path, split: str | None, images: list[dict[str, Any]]) -> Path:
    root = path.parent.parent if path.parent.name == "annotations" else path.parent
    name = path.stem.removeprefix("captions_")
    candidates = [root / name, root / "images" / name, root / "images", root / (split or name)]
    return find_image_directory(path, (image.get("file_name") for image in images), candidates)


def caption_marks(annotation: dict[str, Any]) -> list[str]:
    """Return which of MARKS an annotation has; such captions are left out."""
    return [mark for mark in MARKS if annotation.get(mark) in (True, 1)]


def marks_note(source: Path, marks: Counter[str]) -> str:
    """Describe the captions that were left out because of their marks."""
    counts = " and ".join(f"{count:,} marked {mark}" for mark, count in sorted(marks.items()))
    return f"captions of {source.name} left out: {counts}"


def _add_captions(
    path: Path,
    annotations: list[dict[str, Any]],
    examples: dict[str, RawExample],
    result: ReadResult,
) -> set[str]:
    """Add each annotation's caption to its image, unless it is marked.

    Captions of unknown images, and captions with the id of an earlier one, are added to the
    problems of `result`. Returns the ids, as `repr` writes them, of images with marked captions.
    """
    first_locations: dict[str, SourceLocation] = {}  # by caption id
    marks: Counter[str] = Counter()
    marked = set()
    for number, annotation in enumerate(annotations, start=1):
        location = first = SourceLocation(path, number, "annotation")
        if "id" in annotation:
            first = first_locations.setdefault(repr(annotation["id"]), location)
        example = examples.get(repr(annotation.get("image_id")))
        if example is None:
            _add_unlisted(annotation.get("image_id"), location, examples, result)
        elif first is not location:
            message = f"caption {annotation['id']!r} is listed twice, first at {first}"
            result.add_problem(location, message, "remove one of them, or change its id")
        elif found := caption_marks(annotation):
            marks.update(found)
            marked.add(repr(example.id))
        else:
            example.captions.append((annotation.get("caption"), location))
    if marks:
        result.notes.append(marks_note(path, marks))
    return marked


def _add_unlisted(
    image_id: Any, location: SourceLocation, examples: dict[str, RawExample], result: ReadResult
) -> None:
    """Report that a caption's image is not listed, or only with an id of another type."""
    message = f"the caption belongs to image {image_id!r}, which the file does not list"
    advice = "list the image, or remove the caption"
    decimal = isinstance(image_id, str) and image_id.isdecimal()
    other = int(image_id) if decimal else str(image_id)
    if repr(other) in examples:
        message += f"; it lists {other!r}"
        advice = "write both ids as numbers, or both as text"
    result.add_problem(location, message, advice)


def _drop_emptied(path: Path, marked: set[str], result: ReadResult) -> None:
    """Remove the images of a file whose captions were all left out because of their marks."""
    emptied = [
        example
        for example in result.examples
        if example.scope == path and not example.captions and repr(example.id) in marked
    ]
    if emptied:
        gone = set(map(id, emptied))
        result.examples = [example for example in result.examples if id(example) not in gone]
        result.notes.append(
            f"images of {path.name} left out because all their captions are left out: "
            f"{len(emptied):,}"
        )


def _objects(content: Any, key: str, path: Path) -> list[dict[str, Any]]:
    found = content.get(key) if isinstance(content, dict) else None
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise InputError(
            f"{path} is not a COCO caption file: it has no list of objects named {key!r}; "
            "choose a file with captions"
        )
    return found
