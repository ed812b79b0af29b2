"""Flickr8k and Flickr30k as published: token files and split lists."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ..discovery import is_image_name
from ..storage import files as storage
from .reading import (
    RawExample,
    ReadResult,
    SourceLocation,
    find_image_directory,
    is_safe_name,
    read_lines,
)

LISTS = {"train": "train", "val": "dev", "test": "test"}  # split: its name in Flickr8k's file names
TOKENS_30K = ("results_20130124.token", "flickr30k.token", "results.token")
IMAGES_30K = ("flickr30k-images", "flickr30k_images", "images", "Images")


def recognise_8k(root: Path) -> tuple[Path, Path] | None:
    """Return the text directory and the image directory, which may be inside the text directory."""
    texts = (root / "Flickr8k_text", root)
    images = (root / "Flicker8k_Dataset", root / "Flickr8k_Dataset", root / "Images")
    text = next((path for path in texts if (path / "Flickr8k.token.txt").is_file()), None)
    image = next((path for path in images if path.is_dir()), None)
    return (text, image) if text and image else None


def read_8k(root: Path) -> ReadResult:
    """Read the token file and the split lists.

    Images in no list are ignored if there is a training list; otherwise, if there are other lists,
    they become the training images. The published token file has captions of an image that does not
    exist and whose name lacks an image extension; such an image is ignored unless it is listed.
    """
    directories = recognise_8k(root)
    assert directories is not None
    text, images = directories
    source = text / "Flickr8k.token.txt"
    result = ReadResult()
    result.add_rows(_token_rows(source, images, result))
    listed = _read_lists(text, result)
    captioned = {example.id for example in result.examples}
    for name, (_, location) in listed.items():
        if name not in captioned:
            message = f"{name} has no captions in {source.name}"
            result.add_problem(location, message, "add captions, or remove the name from the list")
    result.examples = [e for e in result.examples if e.id in listed or not _is_stray(e)]
    if listed:
        unlisted = None if (text / "Flickr_8k.trainImages.txt").is_file() else "train"
        for example in result.examples:
            example.split = listed[example.id][0] if example.id in listed else unlisted
        used = [example for example in result.examples if example.split]
        if unused := len(result.examples) - len(used):
            result.notes.append(
                f"images of {source.name} left out because they are in no list: {unused:,}"
            )
        result.examples = used
    return result


def recognise_30k(root: Path) -> Path | None:
    """Return Flickr30k's token file: the path itself, or a file in the directory."""
    if root.is_file():
        return root if root.name in TOKENS_30K else None
    return next((root / name for name in TOKENS_30K if (root / name).is_file()), None)


def read_30k(root: Path) -> ReadResult:
    """Read the token file; the data set has no splits."""
    source = recognise_30k(root)
    assert source is not None
    result = ReadResult()
    rows = list(_token_rows(source, root, result))
    preferred = [source.parent / name for name in IMAGES_30K]
    images = find_image_directory(source, (row.name for row in rows), preferred)
    result.add_rows(replace(row, directory=images) for row in rows)
    return result


def _token_rows(source: Path, images: Path, result: ReadResult) -> Iterator[RawExample]:
    """Yield an example for each row `NAME#0<tab>CAPTION`."""
    for number, line in enumerate(read_lines(source), start=1):
        location = SourceLocation(source, number)
        name, tab, caption = line.partition("\t")
        name = name.rpartition("#")[0] or name
        if re.search(r"#\d+\t", caption):
            result.add_problem(
                location, "the line has more than one caption", "put each on its own line"
            )
        elif tab:
            yield RawExample(name, images, name, None, location, [(caption, location)])
        elif line.strip():
            message = "the tab between image and caption is missing"
            result.add_problem(location, message, "insert it")


def _read_lists(text: Path, result: ReadResult) -> dict[str, tuple[str, SourceLocation]]:
    """Return the split of each listed image and the location of its line."""
    listed: dict[str, tuple[str, SourceLocation]] = {}
    for split, stem in LISTS.items():
        path = text / f"Flickr_8k.{stem}Images.txt"
        for number, line in enumerate(read_lines(path) if path.is_file() else [], start=1):
            if not (name := line.strip()):
                continue
            location = SourceLocation(path, number)
            first_split, first = listed.setdefault(name, (split, location))
            if first_split != split:
                message = f"{name} is listed in {split} and also in {first_split}, at {first}"
                result.add_problem(location, message, "remove it from one of the lists")
    return listed


def _is_stray(example: RawExample) -> bool:
    """Return whether the file is missing and not named like an image.

    The published token file contains one such name: 2258277193_586949ec62.jpg.1.
    """
    if not is_safe_name(example.name) or is_image_name(example.name):
        return False
    return not storage.is_file(example.directory / example.name)
