"""One interface to files on disk, in tar files and on servers.

`shard.tar/name` is the path of a member of a tar file, `https://host/shard.tar/name` the location
of one on a server. All other rooms use the functions of this module. Nothing is unpacked.
"""

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, overload

from ...errors import InputError
from . import location
from .location import Location
from .tar import Index, LocalTar

_ADDRESS = re.compile(r"\{*https?:/")
_SCHEME = re.compile(r"(https?):/+")


class Archive(Protocol):
    """A tar file, local or remote."""

    def index(self) -> Index: ...

    def read(self, name: str) -> bytes: ...

    def version(self) -> Sequence[int | str | None]:
        """Values of which at least one changes whenever the tar file does."""


def parse_location(text: str | Path | Location, directory: Path | None = None) -> Path | Location:
    """A Location if the text, or the first name in its braces, begins with http:// or https://.

    Any other text is a path, relative to `directory` if one is given. This is for what a user
    names: the names in a caption file are always files in its directory.
    """
    if isinstance(text, Location):
        return text
    address = str(text)
    if not _ADDRESS.match(address):
        return (directory or Path()) / text
    # pathlib, through which options pass, leaves one slash of "http://". Only a pattern can hold
    # several addresses; anywhere else a further "http:/" is part of a name.
    count = 0 if address.startswith("{") else 1
    return Location(_SCHEME.sub(r"\1://", address, count=count).rstrip("/"))


@overload
def absolute(path: Path) -> Path: ...
@overload
def absolute(path: Path | Location) -> Path | Location: ...
def absolute(path: Path | Location) -> Path | Location:
    """The path resolved, so that it is valid in any working directory; a location as it is."""
    return path if isinstance(path, Location) else path.resolve()


def is_pattern(path: Path | Location) -> bool:
    """Whether this names tar files by braces, as in train-{000000..000099}.tar, or on a server."""
    if isinstance(path, Location):
        return True
    return "{" in str(path) and ".tar" in str(path) and not path.exists()


def expand(pattern: Path | Location) -> list[Path | Location]:
    """The tar files that a pattern names, in its order, whether they exist or not.

    Braces work as in a shell: {00..12}, {train,val}, nested. Raises InputError for a brace that is
    not closed and for an address that is not of a tar file.
    """
    try:
        from braceexpand import braceexpand
    except ImportError as error:
        raise InputError(
            "braces in names of tar files need braceexpand: pip install 'captioner[webdataset]'"
        ) from error
    try:
        tars = [parse_location(name) for name in braceexpand(str(pattern))]
    except ValueError as error:
        raise InputError(f"{pattern} cannot be expanded: {error}; close each brace") from error
    for tar in tars:
        if isinstance(tar, Location) and container(tar / "name") != tar:
            raise InputError(f"{tar} is not the address of a tar file; it must end in .tar")
    return tars


@overload
def container(path: Path) -> Path: ...
@overload
def container(path: Location) -> Location: ...
@overload
def container(path: Path | Location) -> Path | Location: ...
def container(path: Path | Location) -> Path | Location:
    """The tar file of which the path names a member; for any other file the path itself."""
    text = str(path)
    if ".tar/" not in text:  # true for nearly all files, and the fastest test
        return path
    if isinstance(path, Location):  # the first: servers are not asked which of several exists
        ends = (match.end() - 1 for match in re.finditer(r"\.tar/", text))
        tars = (Location(text[:end]) for end in ends)
        # Neither a host called x.tar nor a hidden file called .tar counts.
        return next((t for t in tars if t.suffix == ".tar" and len(t.parts) > 2), path)
    parents = (parent for parent in path.parents if parent.suffix == ".tar")
    return next((tar for tar in parents if os.path.isfile(tar)), path)


def exists(path: Path | Location) -> bool:
    """Whether the file exists; assumed for locations, which are checked only when they are read."""
    return isinstance(path, Location) or path.exists()


def is_file(path: Path | Location) -> bool:
    """Whether the path names a file on disk or a member of a tar file."""
    tar = container(path)
    if tar == path:
        return isinstance(path, Path) and os.path.isfile(path)
    return _member_name(path, tar) in index(tar).members


def size(path: Path | Location) -> int:
    """Bytes of a member; raises InputError if its tar file does not hold it."""
    tar, name = _split(path)
    return index(tar).find(name, tar)[1]


def read(path: Path | Location) -> bytes:
    """The content of a member; raises InputError if it is missing or cut short."""
    tar, name = _split(path)
    return _archive(tar).read(name)


def index(tar: Path | Location) -> Index:
    """The index of a tar file; raises InputError if it is compressed, damaged or cut short.

    Links, directories and sparse files are left out. The index is cached until the file changes.
    """
    return _archive(tar).index()


def stamp(path: Path | Location) -> bytes:
    """Bytes that change with the file's place, size and time of modification, or its tar file's.

    On a server: with its tar file's length and ETag, or Last-Modified if it has no ETag.
    """
    tar = container(path)
    if isinstance(tar, Location):
        return json.dumps([str(path), *_archive(tar).version()]).encode()
    entry = [str(absolute(path)), *LocalTar(tar).version()]
    return json.dumps(entry).encode("utf-8", "surrogatepass")


def shuffle_window(paths: Sequence[Path | Location]) -> int:
    """How many members can be read in any order while each tar file is read once, forward.

    Half of the memory for members divided by their mean size, estimated from at most 1,000.
    """
    sample = [p for p in paths[:: 1 + len(paths) // 1000] if container(p) != p]
    mean = sum(map(size, sample)) / max(1, len(sample))
    return int(location.KEPT_BYTES / 2 / max(1, mean))


def _archive(tar: Path | Location) -> Archive:
    """The tar file; the code for remote tar files is imported only for a location."""
    if isinstance(tar, Location):
        from .remote_tar import RemoteTar

        return RemoteTar(tar)
    return LocalTar(tar)


def _split(path: Path | Location) -> tuple[Path | Location, str]:
    """The tar file that holds a member, and the member's name in it."""
    tar = container(path)
    if tar == path:
        raise InputError(f"{str(path)!r}: no such file")
    return tar, _member_name(path, tar)


def _member_name(path: Path | Location, tar: Path | Location) -> str:
    return str(path)[len(str(tar)) + 1 :]
