"""Images in directories, each with a text file of the same name beside it."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..discovery import is_image_name, same_name, split_lines, walk
from ..storage import files as storage
from ..storage.location import Location
from .cells import lines_notes
from .reading import RawExample, ReadResult, SourceLocation, parse_split
from .tables import row_captions

LINES = (".txt", ".caption")  # text files with a caption per line; diffusion trainers use both
TEXT_SUFFIXES = (*LINES, ".json")  # extensions of caption files, in order of preference
NOT_CAPTIONS = {"readme", "license", "licence"}  # text files about the data set


def recognise(root: Path) -> bool:
    """Return whether at least one image below `root` has a text file with one caption per line."""
    if not root.is_dir():
        return False
    images, texts = _find_files(root)
    return any(texts.get(key, {}).keys() & {*LINES} for key in map(_key, images))


def read(root: Path) -> ReadResult:
    """Read each image's text file; a directory named after a split determines the split."""
    result, (images, texts) = ReadResult(), _find_files(root)
    for path in images:
        name, files = path.relative_to(root).as_posix(), texts.get(_key(path), {})
        split = next(filter(None, map(parse_split, Path(name).parts[:-1])), None)
        example = RawExample(name, root, name, split, SourceLocation(path))
        if text := preferred_text(files):
            example.captions = read_text(text, storage.read_file(text), result)
        result.examples.append(example)
    for key in sorted(texts.keys() - set(map(_key, images))):
        text = preferred_text(texts[key])
        if text and text.suffix in LINES and text.stem.lower() not in NOT_CAPTIONS:
            advice = "add the image, or remove the text file"
            result.add_problem(SourceLocation(text), "no image has the same name", advice)
    result.notes += lines_notes(each.texts for each in result.examples)
    return result


def preferred_text(files: Mapping[str, Any]) -> Any:
    """Return the file whose suffix comes first in TEXT_SUFFIXES; None if there is none."""
    return next((files[suffix] for suffix in TEXT_SUFFIXES if suffix in files), None)


def read_text(
    source: Path | Location, content: bytes, result: ReadResult
) -> list[tuple[Any, SourceLocation]]:
    """Return the captions in a text file: its lines, or the caption columns of a JSON object."""
    location = SourceLocation(source)
    if source.suffix != ".json":
        return list(_line_captions(source, split_lines(content, source)))
    try:
        row = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError):  # also raised for numbers of more than 4300 digits
        row = None
    if not isinstance(row, dict):
        result.add_problem(location, "the file does not contain a JSON object", "correct it")
        return []
    return [(caption, location) for caption in row_captions(row)]


def _line_captions(
    source: Path | Location, lines: list[str]
) -> Iterator[tuple[Any, SourceLocation]]:
    """Yield a caption for each line that is not blank."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield line.strip(), SourceLocation(source, number)


def _find_files(root: Path) -> tuple[list[Path], dict[str, dict[str, Path]]]:
    """Return the sorted images, and the text files by the key of their image and by extension."""
    images: list[Path] = []
    texts: dict[str, dict[str, Path]] = {}
    for path in map(Path, walk(root)):
        if is_image_name(path.name):
            images.append(path)
        elif path.suffix in TEXT_SUFFIXES:
            texts.setdefault(_key(path), {})[path.suffix] = path
    return sorted(images), texts


def _key(path: Path) -> str:
    """Return the key that an image and its text file share: the path without its extension.

    The text file of a.jpg may also be called a.jpg.txt.
    """
    stem = os.path.splitext(path)[0]
    if not is_image_name(path.name) and is_image_name(stem):
        stem = os.path.splitext(stem)[0]
    return same_name(stem)
