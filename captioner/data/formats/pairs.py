"""Directories of images, each with a text file of the same name beside it."""

from collections.abc import Iterator
from pathlib import Path

from ..storage.location import Location
from .reading import (
    IMAGE_SUFFIXES,
    RawExample,
    ReadResult,
    SourceLocation,
    parse_split,
    read_lines,
)

NOT_CAPTIONS = {"readme", "license", "licence"}  # text files about the data set


def recognise(root: Path) -> bool:
    """Return whether at least one image below `root` has a text file."""
    return any(path.with_suffix(".txt").is_file() for path in _find_images(root))


def read(root: Path) -> ReadResult:
    """Read one caption per line; a directory named after a split determines the split."""
    result, texts = ReadResult(), {path for path in root.rglob("*.txt") if path.is_file()}
    captioned = set()
    for path in sorted(_find_images(root)):
        name, text = path.relative_to(root).as_posix(), path.with_suffix(".txt")
        split = next(filter(None, map(parse_split, Path(name).parts[:-1])), None)
        example = RawExample(name, root, name, split, SourceLocation(path))
        if text in texts:
            captioned.add(text)
            example.captions = list(caption_lines(read_lines(text), text))
        result.examples.append(example)
    for text in sorted(texts - captioned):
        if text.stem.lower() not in NOT_CAPTIONS:
            advice = "add the image, or remove the text"
            result.add_problem(SourceLocation(text), "no image has the same name", advice)
    return result


def caption_lines(
    lines: list[str], source: Path | Location
) -> Iterator[tuple[str, SourceLocation]]:
    """Yield a caption for each line that is not blank."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield line.strip(), SourceLocation(source, number)


def _find_images(root: Path) -> Iterator[Path]:
    files = (path for path in root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    return (path for path in files if path.is_file())
