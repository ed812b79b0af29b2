"""COCO's caption files, of 2014, 2017 or no year, beside their directories of images."""

import re
from pathlib import Path
from typing import Any

from ...errors import InputError
from .reading import RawExample, ReadResult, SourceLocation, image_directory, read_json

SPLITS = ("train", "val", "test")


def recognise(root: Path) -> dict[str, Path]:
    """COCO caption files by split; of several years the newest."""
    files = sorted((root / "annotations").glob("captions_*.json"))
    found = {
        split: [file for file in files if re.fullmatch(f"captions_{split}[0-9]*", file.stem)]
        for split in SPLITS
    }
    return {split: paths[-1] for split, paths in found.items() if paths}


def read(root: Path) -> ReadResult:
    reading = ReadResult()
    for split, path in recognise(root).items():
        _read_file(root, path, split, reading)
    return reading


def _read_file(root: Path, path: Path, split: str, reading: ReadResult) -> None:
    content = read_json(path)
    images, annotations = (_dicts(content, key, path) for key in ("images", "annotations"))
    directory = path.stem.removeprefix("captions_")
    places = [root / directory, root / "images" / directory, root / "images", root / split]
    base = image_directory(places, path) if images else root
    listed: dict[str, RawExample] = {}  # by the id as JSON has it: 1 is not "1"
    for number, image in enumerate(images, start=1):
        place = SourceLocation(path, number, "image")
        entry = RawExample(image.get("id"), base, image.get("file_name"), split, place)
        listed.setdefault(repr(entry.id), entry)
        reading.entries.append(entry)
    first: dict[str, SourceLocation] = {}  # where each id of a caption comes for the first time
    for number, annotation in enumerate(annotations, start=1):
        place = SourceLocation(path, number, "annotation")
        example = listed.get(repr(annotation.get("image_id")))
        before = first.setdefault(repr(annotation["id"]), place) if "id" in annotation else place
        if example is None:
            what = f"the caption is of image {annotation.get('image_id')!r}"
            reading.report(place, f"{what}, which the file does not list", "list it or remove this")
        elif before is not place:
            what = f"the caption {annotation['id']!r} is listed twice, first at {before}"
            reading.report(place, what, "remove one of them, or give it another id")
        else:
            example.captions.append((annotation.get("caption"), place))


def _dicts(content: Any, key: str, path: Path) -> list[dict[str, Any]]:
    found = content.get(key) if isinstance(content, dict) else None
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise InputError(f"{path} is no COCO caption file: it has no list of objects {key!r}")
    return found
