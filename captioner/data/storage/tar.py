"""Files inside tar files: `shard.tar/name` is the path of one; what they hold is not known here.

Nothing is unpacked: a member is read where it lies, once its tar file's headers have been gone
through. Those of a tar file on a server, `https://host/shard.tar/name`, are read by streams.py.
"""

import json
import os
import tarfile
from functools import cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ...errors import InputError
from . import remote_tar as streams
from .http import Url, as_url


def place(path: Path | str, directory: Path | None = None) -> Path:
    """The path, from the directory on if there is one; what begins with http:// or https:// is a Url.

    For what people name themselves: what a caption file names stays in its directory.
    """
    return as_url(path) or (directory or Path()) / path


def absolute(path: Path) -> Path:
    """The path as it is called in every directory."""
    return as_url(path) or path.resolve()


def is_pattern(path: Path) -> bool:
    """Whether this names tar files and is none: by braces, train-{000000..000099}.tar, or a URL."""
    braces = "{" in str(path) and ".tar" in str(path)
    return isinstance(path, Url) or (braces and not path.exists())


def is_there(tar: Path) -> bool:
    """Whether a tar file exists; of those on servers that is not known before they are read."""
    return isinstance(tar, Url) or tar.exists()


def expand(pattern: Path) -> list[Path]:
    """The tar files that a path with braces names, in its order; they need not be there.

    Braces mean what they mean to a shell: {00..12}, {train,val}, one in another. Raises InputError
    where one is not closed.
    """
    try:
        from braceexpand import braceexpand
    except ImportError as error:
        raise InputError(
            "braces in names of tar files need: pip install 'captioner[webdataset]'"
        ) from error
    try:
        tars = [place(name) for name in braceexpand(str(pattern))]
    except ValueError as error:
        raise InputError(f"{pattern} cannot be expanded ({error}); close each brace") from error
    for tar in tars:
        if isinstance(tar, Url) and on_disk(tar / "name") != tar:
            raise InputError(f"{tar} is no address of a tar file, which ends in .tar; correct it")
    return tars


class Index(NamedTuple):
    """Offset and size in bytes of each file in a tar file, in its order; names that come again.

    In a tar file on a server, numbers stand for offsets.
    """

    members: dict[str, tuple[int, int]]
    twice: tuple[str, ...]


def on_disk(path: Path) -> Path:
    """The file itself, or the tar file of which the path names a member."""
    if ".tar/" not in path.as_posix():  # as nearly all
        return path
    tars = (parent for parent in path.parents if parent.suffix == ".tar")
    if isinstance(path, Url):  # the first, since all that follows it is asked of no server
        return max(tars, key=lambda tar: -len(tar.parts), default=path)
    return next((tar for tar in tars if os.path.isfile(tar)), path)


def stamp(path: Path) -> bytes:
    """Changes with where a file lies, its size, and when it, or its tar file, was written last.

    Of a tar file on a server: with its length, and its ETag or else the time of its last change.
    """
    tar = on_disk(path)
    if isinstance(tar, Url):
        return json.dumps([str(path), *streams.contents(tar).version]).encode()
    status = tar.stat()
    entry = [str(path.resolve()), status.st_size, status.st_mtime_ns]
    return json.dumps(entry).encode("utf-8", "surrogatepass")


def is_file(path: Path) -> bool:
    """Whether there is a file of this name, on disk or in a tar file; no name is an error."""
    tar = on_disk(path)
    return os.path.isfile(path) if tar == path else _name(path, tar) in index(tar).members


def size(path: Path) -> int:
    """The bytes of a member; raises InputError where its tar file has none of the name."""
    return _place(path)[1]


def read(path: Path) -> bytes:
    """The content of a member; raises InputError where there is none, or it is cut short."""
    offset, count = _place(path)
    tar = on_disk(path)
    if isinstance(tar, Url):
        return streams.read(tar, _name(path, tar))
    with tar.open("rb", buffering=0) as file:
        content = os.pread(file.fileno(), count, offset)
    if len(content) != count:
        raise InputError(f"{path} is cut short; copy its tar file again")
    return content


def index(tar: Path) -> Index:
    """What a tar file holds; raises InputError where it is none, compressed or damaged.

    Links, directories and sparse files are passed over. The answer is kept while the file is the same.
    """
    if isinstance(tar, Url):
        return Index(*streams.contents(tar)[:2])
    status = tar.stat()
    return _index(tar, status.st_size, status.st_mtime_ns)


@cache
def _index(tar: Path, size: int, changed: int) -> Index:
    members: dict[str, tuple[int, int]] = {}
    twice = []
    try:
        with tarfile.open(tar, "r:") as archive:
            for member in archive:
                archive.members = []  # type: ignore[attr-defined]  # else it keeps all
                name = str(PurePosixPath(member.name))
                if not member.isreg() or member.issparse():
                    continue
                if name in members:
                    twice.append(name)
                members.setdefault(name, (member.offset_data, member.size))
            archive.fileobj.seek(archive.offset)
            last = archive.fileobj.read(tarfile.BLOCKSIZE)
            if last != bytes(tarfile.BLOCKSIZE):
                what = "header" if last else "end"  # without an end it was cut between two files
                raise tarfile.ReadError(f"no {what} at byte {archive.offset}")
    except tarfile.TarError as error:
        raise InputError(
            f"{tar} is no tar file that can be read ({error}); decompress it, or copy it again"
        ) from error
    return Index(members, tuple(twice))


def _name(path: Path, tar: Path) -> str:
    return "/".join(path.parts[len(tar.parts) :])  # of a Url, http:/a.txt would be an address


def _place(path: Path) -> tuple[int, int]:
    tar = on_disk(path)
    place = index(tar).members.get(_name(path, tar)) if tar != path else None
    if place is None:
        raise InputError(f"{str(path)!r}: no such file")
    return place
