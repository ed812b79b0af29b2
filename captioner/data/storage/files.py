"""One interface to files on disk, in tar files, in Parquet tables and on servers.

`shard.tar/name` is the path of a member of a tar file, and `https://host/shard.tar/name` is the
location of a member on a server. Other packages read files through this module. Tar files are read
in place, without unpacking.
"""

import json
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Protocol, overload

from ...errors import InputError
from . import location
from .location import Location
from .tar import Index, LocalTar

_ADDRESS = re.compile(r"\{*https?:/")
_SCHEME = re.compile(r"(https?):/+")


def open_file(path: Path) -> IO[bytes]:
    """Open a regular file for reading; raise InputError for a directory, a pipe or a device.

    Opening a pipe that nothing writes to would block forever. Raises OSError for a file that does
    not exist or cannot be opened.
    """

    def open_descriptor(name: str, flags: int) -> int:
        descriptor = os.open(name, flags | getattr(os, "O_NONBLOCK", 0))
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISREG(mode):
            return descriptor
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise InputError(f"{path} is a directory; choose a file")
        raise InputError(f"{path} is not a regular file; save its content as a file")

    return open(path, "rb", opener=open_descriptor)


def read_file(path: Path) -> bytes:
    """Return the content of a regular file; raise the same errors as `open_file`."""
    with open_file(path) as file:
        return file.read()


class Archive(Protocol):
    """A tar file, local or remote, or a Parquet table."""

    def index(self) -> Index: ...

    def read(self, name: str) -> bytes: ...

    def version(self) -> Sequence[int | str | None]:
        """Return values that together change whenever the file changes."""


def parse_location(text: str | Path | Location, directory: Path | None = None) -> Path | Location:
    """Return a Location if the text, or its first alternative in braces, is an http(s) URL.

    Any other text is a path, relative to `directory` if one is given. Use this only for names given
    by the user: the names in a caption file are always files in its directory.
    """
    if isinstance(text, Location):
        return text
    address = str(text)
    if not _ADDRESS.match(address):
        return (directory or Path()) / text
    # Options pass through pathlib, which turns "http://" into "http:/". Only a pattern can contain
    # several URLs; in all other texts, a second "http:/" is part of a name.
    count = 0 if address.startswith("{") else 1
    return Location(_SCHEME.sub(r"\1://", address, count=count).rstrip("/"))


@overload
def absolute(path: Path) -> Path: ...
@overload
def absolute(path: Path | Location) -> Path | Location: ...
def absolute(path: Path | Location) -> Path | Location:
    """Resolve a path, so that it is valid in any working directory; return a location unchanged."""
    return path if isinstance(path, Location) else path.resolve()


def is_pattern(path: Path | Location) -> bool:
    """Return whether this is a brace pattern, as in train-{000000..000099}.tar, or a location."""
    if isinstance(path, Location):
        return True
    return "{" in str(path) and ".tar" in str(path) and not path.exists()


def expand(pattern: Path | Location) -> list[Path | Location]:
    """Return the tar files named by a pattern, in order, whether they exist or not.

    Braces are expanded as in a shell, e.g. {00..12} or {train,val}, and may be nested. Raises
    InputError for an unclosed brace, for a URL that is not the URL of a tar file, and if the extra
    `webdataset` is not installed.
    """
    try:
        from braceexpand import braceexpand
    except ImportError as error:
        raise InputError(
            "patterns of tar files need braceexpand; run pip install 'captioner[webdataset]'"
        ) from error
    try:
        tars = [parse_location(name) for name in braceexpand(str(pattern))]
    except ValueError as error:
        raise InputError(f"{pattern} cannot be expanded: {error}; close each brace") from error
    for tar in tars:
        if isinstance(tar, Location) and container(tar / "name") != tar:
            raise InputError(f"{tar} is not the URL of a tar file; it must end in .tar")
    return tars


@overload
def container(path: Path) -> Path: ...
@overload
def container(path: Location) -> Location: ...
@overload
def container(path: Path | Location) -> Path | Location: ...
def container(path: Path | Location) -> Path | Location:
    """Return the tar file or table that contains the member `path`; else `path` itself."""
    text = str(path)
    if ".tar/" not in text and ".parquet/" not in text:  # the fastest test for nearly all files
        return path
    if isinstance(path, Location):  # the first one, without asking the server which exists
        ends = (match.end() - 1 for match in re.finditer(r"\.tar/", text))
        tars = (Location(text[:end]) for end in ends)
        # Neither a host called x.tar nor a hidden file called .tar counts.
        return next((t for t in tars if t.suffix == ".tar" and len(t.parts) > 2), path)
    parents = (parent for parent in path.parents if parent.suffix in (".tar", ".parquet"))
    return next((tar for tar in parents if os.path.isfile(tar)), path)


def exists(path: Path | Location) -> bool:
    """Return whether the file exists; True for locations, which are checked only when read."""
    return isinstance(path, Location) or path.exists()


def is_file(path: Path | Location) -> bool:
    """Return whether the path names a file on disk, or a member of a tar file or table."""
    tar = container(path)
    if tar == path:
        return isinstance(path, Path) and os.path.isfile(path)
    return _member_name(path, tar) in index(tar).members


def outside_target(path: Path, directory: Path) -> Path | None:
    """Return the target of a link to a file if it is outside the directory, otherwise None.

    Linked directories are followed. In the cache of the Hugging Face hub, files are links into the
    directory of their repository, which contains `snapshots`.
    """
    if not path.is_symlink():
        return None
    base = directory.resolve()
    base = next((p.parent for p in (base, *base.parents) if p.name == "snapshots"), base)
    target = path.resolve()
    allowed = (base, path.parent.resolve())
    return None if any(target.is_relative_to(each) for each in allowed) else target


def size(path: Path | Location) -> int:
    """Return the size of a member of a tar file or table in bytes; raise InputError if missing."""
    tar, name = _split(path)
    return index(tar).find(name, tar)[1]


def size_on_disk(path: Path) -> int:
    """Return the size in bytes of a file on disk, or of a member of a tar file or table on disk."""
    return path.stat().st_size if container(path) == path else size(path)


def read(path: Path | Location) -> bytes:
    """Return the content of a member of a tar file or table.

    Raises InputError if it is missing, truncated or, on a server, too large for an image.
    """
    tar, name = _split(path)
    return _archive(tar).read(name)


def index(tar: Path | Location) -> Index:
    """Return the index of a tar file or table; raise InputError if it is unreadable.

    Links, directories and sparse files are omitted. The index of a file on disk is cached until the
    file changes, and that of a file on a server until the program ends.
    """
    return _archive(tar).index()


def stamp(path: Path | Location) -> bytes:
    """Return bytes that change whenever the file's path, size or modification time changes.

    For a member, the size and time of its tar file or table are used. On a server, they are
    replaced by the tar file's length and its ETag, or Last-Modified if it has no ETag.
    """
    tar = container(path)
    if isinstance(tar, Location):
        return json.dumps([str(path), *_archive(tar).version()]).encode()
    entry = [str(absolute(path)), *LocalTar(tar).version()]
    return json.dumps(entry).encode("utf-8", "surrogatepass")


def shuffle_window(paths: Sequence[Path | Location]) -> int:
    """Return how many members can be shuffled together while each tar file is read only once.

    This is half of the memory reserved for members, divided by their mean size, which is estimated
    from at most 1,000 of them.
    """
    sample = [p for p in paths[:: 1 + len(paths) // 1000] if container(p) != p]
    mean = sum(map(size, sample)) / max(1, len(sample))
    return int(location.KEPT_BYTES / 2 / max(1, mean))


def _archive(tar: Path | Location) -> Archive:
    """Return the tar file or table; only the module that it needs is imported."""
    if isinstance(tar, Location):
        from .remote_tar import RemoteTar

        return RemoteTar(tar)
    if tar.suffix == ".parquet":
        from .parquet import ParquetTable

        return ParquetTable(tar)
    return LocalTar(tar)


def _split(path: Path | Location) -> tuple[Path | Location, str]:
    """Return the tar file or table that contains a member, and the member's name in it."""
    tar = container(path)
    if tar == path:
        raise InputError(f"{str(path)!r}: no such file; check the path")
    return tar, _member_name(path, tar)


def _member_name(path: Path | Location, tar: Path | Location) -> str:
    return str(path)[len(str(tar)) + 1 :]
