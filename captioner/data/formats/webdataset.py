"""WebDataset tar shards, in which members with the same key form an example.

Shards are read in place, without unpacking.
"""

import re
from collections.abc import Iterable, Mapping
from itertools import takewhile
from pathlib import Path, PurePosixPath

from ...console import progress_bar
from ...errors import InputError
from ..discovery import IMAGE_SUFFIXES, is_hidden, is_image_name, same_name
from ..storage import files as storage
from ..storage.location import Location
from .cells import lines_notes
from .pairs import TEXT_SUFFIXES, preferred_text, read_text
from .reading import (
    RawExample,
    ReadResult,
    SourceLocation,
    is_safe_name,
    read_lines,
    split_in_name,
)

# The key is the name up to the first dot after the last slash.
_MEMBER = re.compile(r"(?P<key>(?:.*/)?[^./][^./]*)\.(?P<extension>[^/]*)", re.DOTALL)


def recognise(path: Path | Location) -> list[Path | Location]:
    """Return the tar files named by `path`.

    `path` is a tar file, a brace pattern, a text file that lists tar files, or a directory that
    contains tar files, directly or in its immediate subdirectories. Symbolic links are included.
    """
    if isinstance(path, Location) or storage.is_pattern(path):
        return storage.expand(path)
    if path.is_file():
        return [path] if path.suffix == ".tar" else _read_list(path)
    tars = (tar for pattern in ("*.tar", "*/*.tar") for tar in path.glob(pattern))
    return sorted(tar for tar in tars if not is_hidden(tar.relative_to(path).as_posix()))


def _read_list(path: Path) -> list[Path | Location]:
    """Return the tar files listed in a text file, relative to its directory.

    The result is empty unless each line is the name of a tar file or a pattern of such names.
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
    for tar in progress_bar(tars, desc="tar files", unit="file", shown=bool(remote)):
        if storage.exists(tar):
            name = PurePosixPath(*tar.parts[prefix:]).with_suffix("").as_posix()
            _read_shard(tar, name, result)
        elif root is None:
            raise InputError(f"{tar}, named by {path}, is missing; add it, or name other files")
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
        message = f"{tar.name} contains this name more than once"
        advice = "remove or rename all but one"
        result.add_problem(_member_location(tar, name), message, advice)
    split, before = split_in_name(shard), len(result.examples)
    for key, files in _group_members(tar, index.members, result).items():
        text = preferred_text(files)
        image = next((name for suffix, name in files.items() if suffix in IMAGE_SUFFIXES), None)
        if image:
            example = RawExample(f"{shard}/{key}", tar, image, split, SourceLocation(tar / image))
            if text:
                example.captions = read_text(tar / text, storage.read(tar / text), result)
            result.examples.append(example)
        elif text:
            advice = "add the image, or remove the text file"
            result.add_problem(SourceLocation(tar / text), f"{key} has no image", advice)
    result.notes += lines_notes(each.texts for each in result.examples[before:])


def _group_members(
    tar: Path | Location, names: Iterable[str], result: ReadResult
) -> dict[str, dict[str, str]]:
    """Return the members' names by key and extension; report unsafe names as problems.

    The key is the name up to the first dot. If none of a key's members is then an image, the names
    are assumed to contain dots, as in a.v2.jpg, and the key is the name up to the last dot.
    """
    samples: dict[str, dict[str, str]] = {}
    for name in names:
        match = None if is_hidden(name.lstrip("/")) else _MEMBER.fullmatch(name)
        suffix = f".{match['extension'].lower()}" if match else ""
        if _is_used(name) and match and not is_safe_name(name):
            message = f"{name!r} is not the name of a file in {tar}"
            advice = "use a relative path without .. or backslashes"
            result.add_problem(_member_location(tar, name), message, advice)
        elif match:
            samples.setdefault(same_name(match["key"]), {}).setdefault(suffix, name)
    grouped: dict[str, dict[str, str]] = {}
    dotted = 0
    for key, files in samples.items():
        split = {} if IMAGE_SUFFIXES & files.keys() else _split_at_last_dot(files)
        dotted += len(split)
        grouped |= split or {key: files}
    if dotted:
        result.notes.append(
            f"names in {tar.name} with dots before the extension: {dotted:,}; they are used in "
            "full, but the webdataset package truncates them at the first dot"
        )
    return grouped


def _is_used(name: str) -> bool:
    return is_image_name(name) or name.lower().endswith(TEXT_SUFFIXES)


def _split_at_last_dot(files: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Group members by their name up to the last dot; empty unless one of them is an image."""
    groups: dict[str, dict[str, str]] = {}
    for name in files.values():
        key, _, extension = name.rpartition(".")
        groups.setdefault(same_name(key), {}).setdefault(f".{extension.lower()}", name)
    return groups if any(map(is_image_name, files.values())) else {}


def _member_location(tar: Path | Location, name: str) -> SourceLocation:
    """Return a member's location for messages; the name may be unsafe, e.g. /etc/x.txt."""
    return SourceLocation(tar / name.lstrip("/"))
