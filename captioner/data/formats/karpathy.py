"""Karpathy's splits: dataset_coco.json, dataset_flickr8k.json, and dataset.json of RSICD or UCM."""

from pathlib import Path
from typing import Any

from ...errors import InputError
from .json_files import json_kind
from .reading import (
    SAMPLE,
    RawExample,
    ReadResult,
    SourceLocation,
    find_image_directory,
    is_safe_name,
    parse_split,
    read_json,
)


def recognise(path: Path) -> list[Path]:
    """Return the file itself, or dataset.json and all dataset_*.json files in the directory.

    A file whose name does not begin with dataset_ must be in Karpathy's format.
    """
    if path.is_file():
        named = path.name.startswith("dataset_")
        is_split = path.suffix == ".json" and (named or json_kind(path) == "karpathy")
        return [path] if is_split else []
    whole = path / "dataset.json"
    found = [whole] if whole.is_file() and json_kind(whole) == "karpathy" else []
    return found + sorted(path.glob("dataset_*.json"))


def read(path: Path) -> ReadResult:
    """Read the file; raise InputError if there are several, or if it has no list of images."""
    files = recognise(path)
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise InputError(f"{path} contains {names}; pass one of the files, not the directory")
    source, result = files[0], ReadResult()
    content = read_json(source)
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list) or not all(isinstance(image, dict) for image in images):
        raise InputError(
            f"{source} is not a Karpathy split: it has no list of objects named 'images'; choose "
            "another file"
        )
    directory = _image_directory(source, images)
    for number, image in enumerate(images, start=1):
        location = SourceLocation(source, number, "image")
        result.examples.append(_parse_image(image, directory, location))
    return result


def _parse_image(image: dict[str, Any], directory: Path, location: SourceLocation) -> RawExample:
    """Convert one entry; `restval` (COCO validation images outside val and test) becomes train."""
    name, subdirectory = image.get("filename"), image.get("filepath")
    if is_safe_name(name) and isinstance(subdirectory, str):
        name = f"{subdirectory}/{name}"
    sentences = image.get("sentences")
    captions = [
        (sentence.get("raw") if isinstance(sentence, dict) else sentence, location)
        for sentence in (sentences if isinstance(sentences, list) else [])
    ]
    split = parse_split(image.get("split")) or image.get("split") or ""
    image_id = image.get("cocoid", name)
    return RawExample(image_id, directory, name, split, location, captions, location.file)


def _image_directory(source: Path, images: list[dict[str, Any]]) -> Path:
    """Return the directory that file names are relative to, beside `source` or one level up."""
    first = [
        _parse_image(image, source.parent, SourceLocation(source)) for image in images[:SAMPLE]
    ]
    parents = (source.parent, source.parent.parent)
    preferred = [base for parent in parents for base in (parent, parent / "images")]
    subdirectory = images[0].get("filepath") if images else None
    if isinstance(subdirectory, str):  # COCO's train2014 or val2014
        preferred = [base for base in preferred if (base / subdirectory).is_dir()]
    else:
        preferred = preferred[1::2]
    return find_image_directory(source, [example.name for example in first], preferred)
