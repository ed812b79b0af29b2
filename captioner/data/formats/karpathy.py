"""Karpathy's splits: dataset_coco.json, dataset_flickr8k.json, dataset_flickr30k.json."""

from pathlib import Path
from typing import Any

from ...errors import InputError
from .reading import (
    RawExample,
    ReadResult,
    SourceLocation,
    image_directory,
    is_plain,
    read_json,
    split_of,
)

DIRECTORIES = (
    *("Flicker8k_Dataset", "Flickr8k_Dataset", "flickr30k-images", "flickr30k_images"),
    *("images", "Images"),
)


def recognise(path: Path) -> list[Path]:
    """The file itself, or those in the directory."""
    named = path.name.startswith("dataset_") and path.suffix == ".json"
    return [path] if named and path.is_file() else sorted(path.glob("dataset_*.json"))


def read(path: Path) -> ReadResult:
    files = recognise(path)
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise InputError(f"{path} holds {names}; name one of the files instead of the directory")
    source, reading = files[0], ReadResult()
    content = read_json(source)
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list) or not all(isinstance(image, dict) for image in images):
        raise InputError(f"{source} is no split of Karpathy's: it has no list of objects 'images'")
    directory = _image_directory(source, images)
    for number, image in enumerate(images, start=1):
        reading.entries.append(_entry(image, directory, SourceLocation(source, number, "image")))
    return reading


def _entry(image: dict[str, Any], directory: Path, place: SourceLocation) -> RawExample:
    """`restval`, COCO's validation images that are in neither val nor test, is for training."""
    name, inner = image.get("filename"), image.get("filepath")
    if is_plain(name) and isinstance(inner, str):
        name = f"{inner}/{name}"
    sentences = image.get("sentences")
    captions = [
        (sentence.get("raw") if isinstance(sentence, dict) else sentence, place)
        for sentence in (sentences if isinstance(sentences, list) else [])
    ]
    split = split_of(image.get("split")) or image.get("split") or ""
    return RawExample(image.get("cocoid", name), directory, name, split, place, captions)


def _image_directory(source: Path, images: list[dict[str, Any]]) -> Path:
    """Where the names of images start: beside the file, or one directory up."""
    parents = (source.parent, source.parent.parent)
    inner = images[0].get("filepath") if images else None
    if isinstance(inner, str):  # COCO's: train2014 or val2014
        places = [place for parent in parents for place in (parent, parent / "images")]
        found = next((place for place in places if (place / inner).is_dir()), None)
        return found or image_directory([parents[0] / inner], source)
    places = [parent / name for parent in parents for name in DIRECTORIES]
    return image_directory(places, source) if images else source.parent
