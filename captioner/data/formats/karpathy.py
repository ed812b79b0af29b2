"""Karpathy's splits: dataset_coco.json, dataset_flickr8k.json etc."""

from pathlib import Path
from typing import Any

from ...errors import InputError
from .reading import (
    RawExample,
    ReadResult,
    SourceLocation,
    find_image_directory,
    is_safe_name,
    parse_split,
    read_json,
)

DIRECTORIES = (
    *("Flicker8k_Dataset", "Flickr8k_Dataset", "flickr30k-images", "flickr30k_images"),
    *("images", "Images"),
)


def recognise(path: Path) -> list[Path]:
    """Return the file itself, or all matching files in the directory."""
    matches = path.name.startswith("dataset_") and path.suffix == ".json"
    return [path] if matches and path.is_file() else sorted(path.glob("dataset_*.json"))


def read(path: Path) -> ReadResult:
    """Read the file; raise InputError if the directory contains several."""
    files = recognise(path)
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise InputError(f"{path} contains {names}; pass one of the files, not the directory")
    source, result = files[0], ReadResult()
    content = read_json(source)
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list) or not all(isinstance(image, dict) for image in images):
        raise InputError(
            f"{source} is not a Karpathy split: it has no list of objects named 'images'"
        )
    directory = _image_directory(source, images)
    for number, image in enumerate(images, start=1):
        location = SourceLocation(source, number, "image")
        result.examples.append(_parse_image(image, directory, location))
    return result


def _parse_image(image: dict[str, Any], directory: Path, location: SourceLocation) -> RawExample:
    """Convert one entry; `restval` (COCO validation images outside val and test) is train."""
    name, subdirectory = image.get("filename"), image.get("filepath")
    if is_safe_name(name) and isinstance(subdirectory, str):
        name = f"{subdirectory}/{name}"
    sentences = image.get("sentences")
    captions = [
        (sentence.get("raw") if isinstance(sentence, dict) else sentence, location)
        for sentence in (sentences if isinstance(sentences, list) else [])
    ]
    split = parse_split(image.get("split")) or image.get("split") or ""
    return RawExample(image.get("cocoid", name), directory, name, split, location, captions)


def _image_directory(source: Path, images: list[dict[str, Any]]) -> Path:
    """Return the directory that contains the image paths: beside `source` or one level up."""
    parents = (source.parent, source.parent.parent)
    subdirectory = images[0].get("filepath") if images else None
    if isinstance(subdirectory, str):  # COCO's train2014 or val2014
        bases = [base for parent in parents for base in (parent, parent / "images")]
        found = next((base for base in bases if (base / subdirectory).is_dir()), None)
        return found or find_image_directory([parents[0] / subdirectory], source)
    candidates = [parent / name for parent in parents for name in DIRECTORIES]
    return find_image_directory(candidates, source) if images else source.parent
