"""Multi30k: text files per language with one caption per line, and lists of Flickr30k's images."""

import gzip
import re
from pathlib import Path

from ...errors import InputError
from ..discovery import split_lines
from ..storage import files as storage
from .reading import RawExample, ReadResult, SourceLocation, find_image_directory, read_lines

# For example train.en, val.de.gz, test_2016_flickr.fr and, with five captions, train.1.en.
_TEXT = re.compile(r"(?P<set>train|val|test\w*)\.(?:\d\.)?(?P<language>[a-z]{2})(?:\.gz)?")
IMAGES = ("flickr30k-images", "flickr30k_images", "images", "Images")


def recognise(path: Path) -> dict[str, list[Path]]:
    """Return the text files by language; if the path is a text file, only those of its language.

    The files are in the directory or its subdirectory `raw`. A text file without a list of images
    (`_find_list`) is ignored.
    """
    if path.is_file():
        match = _TEXT.fullmatch(path.name)
        found = recognise(path.parent) if match else {}
        return {match["language"]: found[match["language"]]} if match and found else {}
    texts: dict[str, list[Path]] = {}
    for file in sorted((path / "raw" if (path / "raw").is_dir() else path).glob("[!.]*")):
        if (match := _TEXT.fullmatch(file.name)) and _find_list(file, match["set"]):
            texts.setdefault(match["language"], []).append(file)
    return texts


def _find_list(text: Path, name: str) -> Path | None:
    """Return the list of images: beside the text file or in `image_splits` beside its directory."""
    directories = (text.parent.parent / "image_splits", text.parent / "image_splits", text.parent)
    names = (f"{name}.txt", f"{name}_images.txt", f"{name.removesuffix('_flickr')}_images.txt")
    files = (directory / each for directory in directories for each in names)
    return next((file for file in files if file.is_file()), None)


def read(path: Path) -> ReadResult:
    """Read the captions of one language; of several test sets, only the one of 2016 is read.

    Raises InputError if there are several languages and the path is not a text file of one of them.
    """
    texts = recognise(path)
    if len(texts) > 1:
        first = next(iter(texts.values()))[0]
        raise InputError(
            f"{path} contains captions in {', '.join(texts)}; pass a file of one language, such "
            f"as {first}"
        )
    result = ReadResult()
    for text in next(iter(texts.values())):
        match = _TEXT.fullmatch(text.name)
        assert match is not None
        if match["set"].startswith("test") and "201" in match["set"] and "2016" not in match["set"]:
            result.notes.append(f"{text.name} was not read; the test split is that of 2016")
        else:
            _read_text(text, match["set"], result)
    _merge(result)
    return result


def _read_text(text: Path, name: str, result: ReadResult) -> None:
    source = _find_list(text, name)
    assert source is not None
    names = [line.strip().partition("#")[0] for line in read_lines(source) if line.strip()]
    content = storage.read_file(text)
    lines = split_lines(gzip.decompress(content) if text.suffix == ".gz" else content, text)
    lines = lines[:-1] if lines[-1] == "" else lines
    if len(lines) != len(names):
        raise InputError(
            f"{text} has {len(lines):,} lines, but {source} lists {len(names):,} images; each line "
            "must be the caption of one image"
        )
    above = (text.parent, text.parent.parent)
    preferred = [directory / each for directory in above for each in IMAGES]
    directory = find_image_directory(source, names, preferred)
    split = "test" if name.startswith("test") else name
    for number, (image, caption) in enumerate(zip(names, lines, strict=True), start=1):
        location = SourceLocation(text, number)
        row = RawExample(image, directory, image, split, location, [(caption, location)])
        result.examples.append(row)


def _merge(result: ReadResult) -> None:
    rows, result.examples = result.examples, []
    result.add_rows(rows)
