"""WebDataset tar shards, in which members with the same key form an example.

Shards are read in place, without unpacking.
"""

import json
import re
from collections.abc import Iterable
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
    is_safe_name,
    parse_split,
    read_lines,
    split_lines,
)
from .tables import caption_columns

TEXT_SUFFIXES = (".txt", ".json")  # extensions of caption files, in order of preference
# The key is the name up to the first dot after the last slash; hidden files have no key.
_MEMBER = re.compile(r"(?P<key>(?:.*/)?[^./][^./]*)\.(?P<extension>[^/]*)", re.DOTALL)


def recognise(path: Path | Location) -> list[Path | Location]:
    """Return the tar files named by `path`.

    `path` is a tar file, a brace pattern, a text file that lists tar files, or a directory that
    contains tar files, directly or in subdirectories. Symbolic links are included.
    """
    if isinstance(path, Location) or storage.is_pattern(path):
        return storage.expand(path)
    if path.is_file():
        return [path] if path.suffix == ".tar" else _read_list(path)
    return sorted(tar for pattern in ("*.tar", "*/*.tar") for tar in path.glob(pattern))


def _read_list(path: Path) -> list[Path | Location]:
    """Return the tar files listed in a text file, relative to its directory.

    The result is empty unless each line is a tar file or a pattern of tar files.
    """
    lines = read_lines(path) if path.suffix == ".txt" else []
    names = [line.strip() for line in lines if line.strip()]
    if not all(".tar" in name for name in names):
        return []
    return [
        tar for name in names for tar in storage.expand(storage.parse_location(name, path.parent))
    ]


def read(path: Path | Location) -> ReadResult:
    """Read all shards; raise InputError if an explicitly named one does not exist."""
    result, tars = ReadResult(), recognise(path)
    root = path if isinstance(path, Path) and path.is_dir() else None
    prefix = len(root.parts) if root else _shared_parts([tar.parent for tar in tars])
    for link in sorted(root.iterdir() if root else []):
        if link.is_symlink() and not link.exists():  # an unmounted disk would hide shards
            advice = "mount its disk, or remove the link"
            result.add_problem(SourceLocation(link), "the link is broken", advice)
    remote = any(isinstance(tar, Location) for tar in tars)
    for tar in tqdm(tars, desc="tar files", unit="file", leave=False, disable=not remote):
        if storage.exists(tar):
            name = PurePosixPath(*tar.parts[prefix:]).with_suffix("").as_posix()
            _read_shard(tar, name, result)
        elif root is None:
            raise InputError(f"{tar}, listed in {path}, is missing; add it, or list other files")
    return result


def _shared_parts(directories: list[Path | Location]) -> int:
    """Return the number of leading path components that all directories share."""
    levels = zip(*(directory.parts for directory in directories), strict=False)
    return len(list(takewhile(lambda parts: len(set(parts)) == 1, levels)))


def _read_shard(tar: Path | Location, shard: str, result: ReadResult) -> None:
    """Add the samples of a tar file to `result`.

    shard: name of the tar file, which becomes a prefix of the ids and may contain the name of a
    split, as in train-000001.
    """
    index = storage.index(tar)
    for name in index.duplicates:
        message = f"{tar.name} contains this name twice"
        result.add_problem(_member_location(tar, name), message, "the first one is used")
    split = _split_of_shard(shard)
    for key, files in _group_members(tar, index.members, result).items():
        texts = [tar / files[suffix] for suffix in TEXT_SUFFIXES if suffix in files]
        image = next((name for suffix, name in files.items() if suffix in IMAGE_SUFFIXES), None)
        if image:
            example = RawExample(f"{shard}/{key}", tar, image, split, SourceLocation(tar / image))
            example.captions = _read_captions(texts, result)
            result.examples.append(example)
        elif texts:
            advice = "add the image, or remove the text"
            result.add_problem(SourceLocation(texts[0]), f"{key} has no image", advice)


def _group_members(
    tar: Path | Location, names: Iterable[str], result: ReadResult
) -> dict[str, dict[str, str]]:
    """Return the members' names by key and extension; report unsafe names as problems."""
    samples: dict[str, dict[str, str]] = {}
    for name in names:
        match = _MEMBER.fullmatch(name)
        suffix = f".{match['extension'].lower()}" if match else ""
        if suffix in IMAGE_SUFFIXES.union(TEXT_SUFFIXES) and not is_safe_name(name):
            message = f"{name!r} is not the name of a file in {tar}"
            advice = "use a relative path without .. or backslashes"
            result.add_problem(_member_location(tar, name), message, advice)
        elif match:
            samples.setdefault(match["key"], {}).setdefault(suffix, name)
    return samples


def _split_of_shard(shard: str) -> str | None:
    """Return the split named by the shard or its directory; None if it is not unique."""
    words = re.split(r"[^a-z]+", "/".join(shard.lower().split("/")[-2:]))
    splits = set(filter(None, map(parse_split, words)))
    return splits.pop() if len(splits) == 1 else None


def _member_location(tar: Path | Location, name: str) -> SourceLocation:
    """Return a member's location for messages; the name may be unsafe, e.g. /etc/x.txt."""
    return SourceLocation(tar / name.lstrip("/"))


def _read_captions(
    texts: list[Path | Location], result: ReadResult
) -> list[tuple[Any, SourceLocation]]:
    """Return the lines of the text file, or the caption columns of the JSON file."""
    if not texts:
        return []
    content = storage.read(texts[0])
    if texts[0].suffix == ".txt":
        return list(caption_lines(split_lines(content), texts[0]))
    location = SourceLocation(texts[0])
    try:
        row = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError):  # also raised for numbers of more than 4300 digits
        row = None
    if not isinstance(row, dict):
        result.add_problem(location, "the file does not contain a JSON object", "correct it")
        return []
    values = [row[name] for name in caption_columns(row)]
    return [(c, location) for v in values for c in (v if isinstance(v, list) else [v])]
