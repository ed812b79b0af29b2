"""Flickr8k and Flickr30k as they were published: token files, and Flickr8k's lists of splits."""

import re
from collections.abc import Iterator
from pathlib import Path

from ..storage import files as storage
from .reading import (
    IMAGE_SUFFIXES,
    RawExample,
    ReadResult,
    SourceLocation,
    image_directory,
    is_plain,
    read_lines,
)

LISTS = {"train": "train", "val": "dev", "test": "test"}  # split: what Flickr8k calls its list
TOKENS_30K = ("results_20130124.token", "flickr30k.token", "results.token")
IMAGES_30K = ("flickr30k-images", "flickr30k_images", "images", "Images")


def recognise_8k(root: Path) -> tuple[Path, Path] | None:
    """Flickr8k's text and image directories, unpacked side by side or one in the other."""
    texts = (root / "Flickr8k_text", root)
    images = (root / "Flicker8k_Dataset", root / "Flickr8k_Dataset", root / "Images")
    text = next((t for t in texts if (t / "Flickr8k.token.txt").is_file()), None)
    image = next((p for p in images if p.is_dir()), None)
    return (text, image) if text and image else None


def read_8k(root: Path) -> ReadResult:
    """Without a train list, what no other list names is for training.

    The published files caption an image that does not exist, called as no image is: such a name
    that no list has and no file is dropped, and where there is a train list, what no list names.
    """
    directories = recognise_8k(root)
    assert directories is not None
    text, images = directories
    source = text / "Flickr8k.token.txt"
    reading = ReadResult()
    reading.add_rows(_token_rows(source, images, reading))
    listed = _read_lists(text, reading)
    captioned = {entry.id for entry in reading.entries}
    for name, (_, place) in listed.items():
        if name not in captioned:
            what = f"{name} has no captions in {source.name}"
            reading.report(place, what, "add some, or take it off the list")
    reading.entries = [e for e in reading.entries if e.id in listed or not _is_stray(e)]
    if listed:
        rest = None if (text / "Flickr_8k.trainImages.txt").is_file() else "train"
        for entry in reading.entries:
            entry.split = listed[entry.id][0] if entry.id in listed else rest
        reading.entries = [entry for entry in reading.entries if entry.split]
    return reading


def recognise_30k(root: Path) -> Path | None:
    """Flickr30k's token file."""
    return next((root / name for name in TOKENS_30K if (root / name).is_file()), None)


def read_30k(root: Path) -> ReadResult:
    source = recognise_30k(root)
    assert source is not None
    reading = ReadResult()
    images = image_directory([root / name for name in IMAGES_30K], source)
    reading.add_rows(_token_rows(source, images, reading))
    return reading


def _token_rows(source: Path, images: Path, reading: ReadResult) -> Iterator[RawExample]:
    """`NAME#0<tab>CAPTION`, a caption a line."""
    for number, line in enumerate(read_lines(source), start=1):
        place = SourceLocation(source, number)
        name, tab, caption = line.partition("\t")
        name = name.rpartition("#")[0] or name
        if re.search(r"#\d+\t", caption):
            reading.report(place, "two rows are in this one line", "put each on a line of its own")
        elif tab:
            yield RawExample(name, images, name, None, place, [(caption, place)])
        elif line.strip():
            reading.report(place, "no tab between image and caption", "put one there")


def _read_lists(text: Path, reading: ReadResult) -> dict[str, tuple[str, SourceLocation]]:
    """The split of every image that a list names, and where it does."""
    listed: dict[str, tuple[str, SourceLocation]] = {}
    for split, stem in LISTS.items():
        path = text / f"Flickr_8k.{stem}Images.txt"
        for number, line in enumerate(read_lines(path) if path.is_file() else [], start=1):
            if not (name := line.strip()):
                continue
            place = SourceLocation(path, number)
            first, where = listed.setdefault(name, (split, place))
            if first != split:
                what = f"{name} is listed in {split}, and in {first} at {where}"
                reading.report(place, what, "take it off one of the lists")
    return listed


def _is_stray(entry: RawExample) -> bool:
    """Whether this is the published 2258277193_586949ec62.jpg.1, or alike."""
    named = Path(entry.name).suffix.lower() in IMAGE_SUFFIXES or not is_plain(entry.name)
    return not named and not storage.is_file(entry.directory / entry.name)
