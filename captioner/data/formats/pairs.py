"""A directory of images, each with a text file of its name beside it: a caption a line."""

from collections.abc import Iterator
from pathlib import Path

from ..storage.location import Location
from .reading import IMAGE_SUFFIXES, RawExample, ReadResult, SourceLocation, read_lines, split_of

ABOUT = {"readme", "license", "licence"}  # texts that people put beside the captions


def recognise(root: Path) -> bool:
    """Whether any image, in any directory below, has its text."""
    return any(path.with_suffix(".txt").is_file() for path in _images(root))


def read(root: Path) -> ReadResult:
    """A directory called as a split is that split; texts about the directory are no captions."""
    reading, texts = ReadResult(), {path for path in root.rglob("*.txt") if path.is_file()}
    captioned = set()
    for path in sorted(_images(root)):
        name, text = path.relative_to(root).as_posix(), path.with_suffix(".txt")
        split = next(filter(None, map(split_of, Path(name).parts[:-1])), None)
        entry = RawExample(name, root, name, split, SourceLocation(path))
        if text in texts:
            captioned.add(text)
            entry.captions = list(caption_lines(read_lines(text), text))
        reading.entries.append(entry)
    for text in sorted(texts - captioned):
        if text.stem.lower() in ABOUT:
            continue
        reading.report(
            SourceLocation(text), "there is no image of this name", "add it, or remove this"
        )
    return reading


def caption_lines(
    lines: list[str], source: Path | Location
) -> Iterator[tuple[str, SourceLocation]]:
    """A caption for every line that is not blank."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield line.strip(), SourceLocation(source, number)


def _images(root: Path) -> Iterator[Path]:
    files = (path for path in root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    return (path for path in files if path.is_file())
