"""WebDataset's tar shards: files of one key are an image and its captions; nothing is unpacked."""

import json
import re
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from ...errors import InputError
from ..storage import files as storage
from ..storage.location import Location
from .pairs import caption_lines
from .reading import (
    IMAGE_SUFFIXES,
    RawExample,
    ReadResult,
    SourceLocation,
    is_plain,
    read_lines,
    split_lines,
    split_of,
)
from .tables import caption_columns

TEXTS = (".txt", ".json")  # where captions are, the first before the other
# A key is the name up to the first dot after the last slash; hidden files have none.
_MEMBER = re.compile(r"(?P<key>(?:.*/)?[^./][^./]*)\.(?P<extension>[^/]*)", re.DOTALL)


def recognise(path: Path | Location) -> list[Path | Location]:
    """The tar files: this one, those that braces or the lines of a text file name, or those in the
    directory or the directories in it, links among them.
    """
    if isinstance(path, Location) or storage.is_pattern(path):
        return storage.expand(path)
    if path.is_file():
        return [path] if path.suffix == ".tar" else _listed(path)
    return sorted(tar for pattern in ("*.tar", "*/*.tar") for tar in path.glob(pattern))


def _listed(path: Path) -> list[Path | Location]:
    """What a text file names, from its own directory on, if each line is a tar file or a pattern."""
    lines = read_lines(path) if path.suffix == ".txt" else []
    names = [line.strip() for line in lines if line.strip()]
    if not all(".tar" in name for name in names):
        return []
    return [
        tar for name in names for tar in storage.expand(storage.parse_location(name, path.parent))
    ]


def read(path: Path | Location) -> ReadResult:
    """Raises InputError where a shard that was named, and not just found, is not there."""
    reading, tars = ReadResult(), recognise(path)
    root = path if isinstance(path, Path) and path.is_dir() else None
    shared = len(root.parts) if root else _shared([tar.parent for tar in tars])
    for link in sorted(root.iterdir() if root else []):
        if link.is_symlink() and not link.exists():  # a disk that is not there hides its shards
            reading.report(
                SourceLocation(link), "the link leads nowhere", "mount its disk, or remove it"
            )
    far = any(isinstance(tar, Location) for tar in tars)
    for tar in tqdm(tars, desc="tar files", unit="file", leave=False, disable=not far):
        if storage.exists(tar):
            name = PurePosixPath(*tar.parts[shared:]).with_suffix("").as_posix()
            _read_shard(tar, name, reading)
        elif root is None:
            raise InputError(f"{tar}, which {path} names, is missing; add it, or name others")
    return reading


def _shared(directories: list[Path | Location]) -> int:
    """How many parts of their paths all directories share."""
    levels = zip(*(directory.parts for directory in directories), strict=False)
    return len(list(takewhile(lambda parts: len(set(parts)) == 1, levels)))


def _read_shard(tar: Path | Location, shard: str, reading: ReadResult) -> None:
    """shard: its name, which begins the ids and may tell the split, as in train-000001."""
    index = storage.index(tar)
    for name in index.duplicates:
        reading.report(
            SourceLocation(_inside(tar, name)), f"{tar.name} holds this twice", "the first is taken"
        )
    samples: dict[str, dict[str, str]] = {}
    for name in index.members:
        match = _MEMBER.fullmatch(name)
        extension = f".{match['extension'].lower()}" if match else ""
        if extension in IMAGE_SUFFIXES.union(TEXTS) and not is_plain(name):
            what = f"{name!r} is no name of a file in {tar}"
            advice = "name it from there, without .. and backslashes"
            reading.report(SourceLocation(_inside(tar, name)), what, advice)
        elif match:
            samples.setdefault(match["key"], {}).setdefault(extension, name)
    words = re.split(r"[^a-z]+", "/".join(shard.lower().split("/")[-2:]))
    splits = set(filter(None, map(split_of, words)))
    split = splits.pop() if len(splits) == 1 else None
    for key, files in samples.items():
        texts = [tar / files[extension] for extension in TEXTS if extension in files]
        image = next((name for e, name in files.items() if e in IMAGE_SUFFIXES), None)
        if image:
            entry = RawExample(f"{shard}/{key}", tar, image, split, SourceLocation(tar / image))
            entry.captions = _captions(texts, reading)
            reading.entries.append(entry)
        elif texts:
            reading.report(
                SourceLocation(texts[0]), f"{key} has no image", "add it, or remove this"
            )


def _inside(tar: Path | Location, name: str) -> Path | Location:
    """As people find the member, which may be called /etc/x.txt: only to be told, never read."""
    return tar / name.lstrip("/")


def _captions(
    texts: list[Path | Location], reading: ReadResult
) -> list[tuple[Any, SourceLocation]]:
    """The lines of the text file, else the captions that the JSON file names as a table would."""
    if not texts:
        return []
    content = storage.read(texts[0])
    if texts[0].suffix == ".txt":
        return list(caption_lines(split_lines(content), texts[0]))
    place = SourceLocation(texts[0])
    try:
        row = json.loads(content.decode("utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        row = None
    if not isinstance(row, dict):
        reading.report(place, "the file is no JSON object", "correct it")
        return []
    values = [row[name] for name in caption_columns(row)]
    return [(c, place) for v in values for c in (v if isinstance(v, list) else [v])]
