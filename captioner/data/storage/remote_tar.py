"""Tar files on http servers, read through the webdataset package; paths are shards.py's.

Each is gone through once, by tarfile, for what it holds. Then its files are read forward: what is
passed over on the way to one is kept for a while, and what lies behind and is not kept costs
another way through. What is too large for an image is never read.
"""

import os
import re
import tarfile
import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from ...errors import InputError
from .http import CHUNK, Download, Url, Version, changed

KEPT = 512 * 2**20  # bytes of files that were passed over
LARGEST = 64 * 2**20  # bytes of a file that is read: as many as an image may have
OPEN = 64  # tar files that are read forward at the same time
TEXTS = (".txt", ".json")  # kept while the tar file is gone through, since they are read at once

# What tarfile, as the package calls it, would decompress; zstandard from Python 3.14 on.
_COMPRESSED = re.compile(rb"\x1f\x8b\x08|BZh.1AY&SY|]\0\0\x80|\xfd7zXZ|\x28\xb5\x2f\xfd", re.DOTALL)


class Contents(NamedTuple):
    """Number, in the tar file's order, and size of each of its files; names that come again."""

    members: dict[str, tuple[int, int]]
    twice: tuple[str, ...]
    version: Version


class Kept:
    """Contents by key, of so many bytes together: first go those that were taken, then the oldest.

    Threads may use it at once.
    """

    def __init__(self) -> None:
        self.size = 0
        self._contents: OrderedDict[Hashable, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, key: Hashable, content: bytes) -> None:
        """Keep this, and let go of others; what is larger than all that may be kept is not."""
        with self._lock:
            self.size += len(content) - len(self._contents.get(key, b""))
            self._contents[key] = content
            self._contents.move_to_end(key)  # it may be wanted again
            while self.size > KEPT:
                self.size -= len(self._contents.popitem(last=False)[1])

    def take(self, key: Hashable) -> bytes | None:
        """What is kept by this key, None if there is nothing."""
        with self._lock:
            if key in self._contents:
                self._contents.move_to_end(key, last=False)
            return self._contents.get(key)


class Stream(Download):
    """An uncompressed tar file, to be read forward; last: what was read last."""

    last = b""

    def read(self, count: int) -> bytes:
        """So many bytes more, fewer at the end only."""
        first, content = self.position == 0, b""
        while len(content) < count and (more := super().read(count - len(content))):
            content += more
        if first and _COMPRESSED.match(content):
            raise tarfile.ReadError("it is compressed")
        self.last = content
        return content

    def tell(self) -> int:
        return self.position

    def seek(self, position: int) -> None:
        """Read on to there, or to the end."""
        if position < self.position:
            raise tarfile.ReadError("a size below 0")
        while self.position < position and self.read(min(CHUNK, position - self.position)):
            pass


class Shard:
    """A tar file on its way through; whoever reads holds the lock."""

    def __init__(self, tar: Url) -> None:
        self.tar, self.lock = tar, threading.Lock()
        self.download = Stream(tar)
        self.begin()

    def begin(self) -> None:
        """Stand before its first file, without a connection."""
        self.download.close()
        self.passed = 0
        known = contents(self.tar)
        self.download = Stream(self.tar, known.version)
        self._members = _members(self.download, known)

    def read(self, wanted: str) -> bytes:
        """The file of this name; those before it are kept, if they are the first of their names."""
        known = contents(self.tar).members
        number, _ = known[wanted]
        if number < self.passed:
            self.begin()
        try:
            for at, name, content in self._members:
                self.passed = at + 1
                if at == known.get(name, (None,))[0]:
                    _kept.put((self.tar, name), content)
                if at == number and name == wanted:
                    return content
            raise changed(self.tar)
        except InputError:
            self.begin()
            raise


_kept = Kept()
_shards: OrderedDict[Url, Shard] = OrderedDict()
_lock, _going_through = threading.Lock(), threading.Lock()


def contents(tar: Url) -> Contents:
    """Go through a tar file; raises InputError where it cannot be had, or is none that is whole.

    Links, directories and the like are passed over. A tar file is taken to stay as it is while the
    program runs: where it does not, reading from it is an error.
    """
    with _going_through:
        return _contents(tar)


@cache
def _contents(tar: Url) -> Contents:
    members: dict[str, tuple[int, int]] = {}
    twice = []
    _tariterators()  # it is missed before anything is fetched
    with closing(Stream(tar)) as stream:
        for number, member in enumerate(_headers(stream)):
            name = str(PurePosixPath(member.name))
            if member.issparse():  # a few bytes may stand for any number of zeros
                continue
            if name in members:
                twice.append(name)
                continue
            members[name] = number, member.size
            if name.lower().endswith(TEXTS) and member.size <= LARGEST:
                _kept.put((tar, name), stream.read(member.size))
        assert stream.version is not None
        return Contents(members, tuple(twice), stream.version)


def read(tar: Url, name: str) -> bytes:
    """A file that the tar file holds. Threads may call it at once; of a tar file one reads.

    Raises InputError where it is larger than LARGEST.
    """
    if (size := contents(tar).members[name][1]) > LARGEST:
        raise InputError(f"{tar / name}: {size:,} bytes, at most {LARGEST:,} are read; shrink it")
    shard = _shard(tar)
    with shard.lock:
        content = _kept.take((tar, name))
        return shard.read(name) if content is None else content


def _shard(tar: Url) -> Shard:
    """The tar file as it is being read; of too many the one that was not for longest is let go."""
    with _lock:
        shard = _shards.get(tar) or _shards.setdefault(tar, Shard(tar))
        _shards.move_to_end(tar)
        oldest = _shards.popitem(last=False)[1] if len(_shards) > OPEN else None
    if oldest:
        with oldest.lock:
            oldest.download.close()
    return shard


def _headers(stream: Stream) -> Iterator[tarfile.TarInfo]:
    """The files in a tar file that the package would give, before any of their bytes is read."""
    with _damage_told(stream):
        with tarfile.open(fileobj=stream, mode="r:") as archive:  # type: ignore[call-overload]
            for member in archive:
                archive.members = []  # else it keeps all
                name = member.name
                meta = "/" not in name and name.startswith("__") and name.endswith("__")
                if member.isreg() and not meta:
                    yield member
        if stream.last != bytes(tarfile.BLOCKSIZE):
            what = "header" if stream.last else "end"
            raise tarfile.ReadError(f"no {what} at byte {archive.offset}")
        while rest := stream.read(CHUNK):
            if rest.strip(b"\0"):
                raise tarfile.ReadError("no header where one should be")


def _members(stream: Stream, known: Contents) -> Iterator[tuple[int, str, bytes]]:
    """Numbers, names and contents of the files that may be wanted, in the tar file's order."""
    wanted = {number for number, size in known.members.values() if size <= LARGEST}
    number = -1

    def select(name: str) -> bool:  # the package asks for each file in turn, and reads it then
        nonlocal number
        number += 1
        return number in wanted

    files = _tariterators().tar_file_iterator(stream, skip_meta=None, select_files=select)
    with _damage_told(stream):
        for file in files:
            yield number, str(PurePosixPath(file["fname"])), file["data"]


@contextmanager
def _damage_told(stream: Stream) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise type(error)(_plain(error)) from error
    except tarfile.TarError as error:
        raise InputError(
            f"{stream} is no tar file that can be read ({_plain(error)}); decompress it, or copy "
            "it there again"
        ) from error


def _plain(error: Exception) -> str:
    """What the error said, before the package added what it was reading."""
    return str(error).split(" @ ")[0]


def _tariterators() -> Any:
    os.environ["WDS_SECURE"] = "1"  # the package then refuses to run commands that names hold
    try:
        from webdataset import tariterators
    except ImportError as error:
        raise InputError(
            "tar files of a server need the webdataset package: pip install 'captioner[webdataset]'"
        ) from error
    return tariterators
