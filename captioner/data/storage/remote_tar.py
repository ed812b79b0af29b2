"""Members of tar files on servers, streamed through webdataset.

Each tar file is read once to index its members. After that, members are read forward. Members
skipped on the way to another are cached in memory; reading one that has been evicted requires
another download from the beginning. Members that are too large for an image are never read.
"""

import os
import re
import tarfile
import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath
from typing import Any

from ...errors import InputError
from ...git_lfs import refuse_pointer
from . import location
from .http import CHUNK, Download, Version, changed
from .location import Location
from .tar import Index, check_end, unreadable

LARGEST = 64 * 2**20  # maximum size of a member in bytes, the same as for images
OPEN = 64  # maximum number of tar files with an open connection
TEXTS = (".txt", ".caption", ".json")  # members cached while indexing, since captions are read next

# First bytes of the compressed formats that tarfile would open in webdataset's mode: gzip, bzip2,
# LZMA, xz and, since Python 3.14, Zstandard.
_COMPRESSED = re.compile(rb"\x1f\x8b\x08|BZh.1AY&SY|]\0\0\x80|\xfd7zXZ|\x28\xb5\x2f\xfd", re.DOTALL)


@dataclass(frozen=True)
class RemoteTar:
    """A tar file on a server; reading fails if the file changes while the program runs.

    Several threads may use it; only one of them reads a tar file at a time.
    """

    location: Location

    def index(self) -> Index:
        """Return the index, with members numbered; raise InputError if the file is unreadable.

        Links, directories, sparse files and webdataset's metadata are omitted.
        """
        return _contents(self.location).index

    def read(self, name: str) -> bytes:
        """Return the content of a member; raise InputError if it is missing or too large."""
        _, size = self.index().find(name, self.location)
        if size > LARGEST:
            raise InputError(
                f"{self.location / name}: {size:,} bytes exceed the limit of {LARGEST:,}; "
                "shrink the image"
            )
        reader = _reader(self.location)
        with reader.lock:
            content = kept_members.take((self.location, name))
            return reader.read(name) if content is None else content

    def version(self) -> Version:
        """Return the file's length, and its ETag, or Last-Modified if it has no ETag."""
        return _contents(self.location).version


class MemberCache:
    """A cache of file contents by key, limited to KEPT_BYTES; several threads may use it.

    Contents that have already been read are evicted first, then the oldest.
    """

    def __init__(self) -> None:
        self.size = 0
        self._contents: OrderedDict[Hashable, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, key: Hashable, content: bytes) -> None:
        """Cache the content, evicting other entries if needed.

        Content of more than KEPT_BYTES evicts all others, and is not cached itself.
        """
        with self._lock:
            self.size += len(content) - len(self._contents.get(key, b""))
            self._contents[key] = content
            self._contents.move_to_end(key)
            while self.size > location.KEPT_BYTES:
                self.size -= len(self._contents.popitem(last=False)[1])

    def take(self, key: Hashable) -> bytes | None:
        """Return the content for this key, or None if it is not cached."""
        with self._lock:
            if key in self._contents:
                self._contents.move_to_end(key, last=False)
            return self._contents.get(key)

    def clear(self) -> None:
        with self._lock:
            self.size = 0
            self._contents.clear()


class Stream(Download):
    """An uncompressed tar file as a file object for tarfile.

    last: the bytes that the last call of `read` returned.
    """

    last = b""

    def read(self, count: int) -> bytes:
        """Return the next `count` bytes, or fewer at the end of the file.

        The first call raises ReadError for a compressed file, and InputError for a Git LFS pointer.
        """
        first, content = self.position == 0, b""
        while len(content) < count and (more := super().read(count - len(content))):
            content += more
        if first:
            refuse_pointer(content, self)
            if _COMPRESSED.match(content):
                raise tarfile.ReadError("it is compressed")
        self.last = content
        return content

    def tell(self) -> int:
        return self.position

    def seek(self, position: int) -> None:
        """Read forward to `position`, or to the end."""
        if position < self.position:
            raise tarfile.ReadError("a member has a negative size")
        while self.position < position and self.read(min(CHUNK, position - self.position)):
            pass


class Reader:
    """A sequential reader of the members of one tar file; the caller must hold `lock`."""

    def __init__(self, tar: Location) -> None:
        self.tar, self.lock = tar, threading.Lock()
        self.stream = Stream(tar)
        self.restart()

    def restart(self) -> None:
        """Go back to the first member; the next read opens a connection."""
        self.stream.close()
        self.next = 0  # number of the next member
        contents = _contents(self.tar)
        self.stream = Stream(self.tar, contents.version)
        self._members = _members(self.stream, contents.index)

    def read(self, wanted: str) -> bytes:
        """Return the member `wanted`; cache it and the members read on the way to it.

        Duplicates are not cached.
        """
        members = _contents(self.tar).index.members
        wanted_number, _ = members[wanted]
        if wanted_number < self.next:
            self.restart()
        try:
            for number, name, content in self._members:
                self.next = number + 1
                if number == members.get(name, (None,))[0]:
                    kept_members.put((self.tar, name), content)
                if number == wanted_number and name == wanted:
                    return content
            raise changed(self.tar)
        except InputError:
            self.restart()
            raise


@dataclass(frozen=True)
class Contents:
    """The index and the version of a tar file at the time of indexing."""

    index: Index
    version: Version


kept_members = MemberCache()
_readers: OrderedDict[Location, Reader] = OrderedDict()
_readers_lock, _index_lock = threading.Lock(), threading.Lock()


def disconnect() -> None:
    """Close all connections; the next read of a tar file reconnects at the same position."""
    with _readers_lock:
        for reader in _readers.values():
            with reader.lock:
                reader.stream.close()


def forget() -> None:
    """Close all connections and clear the caches of members and indices, as in a new process."""
    disconnect()
    with _readers_lock:
        _readers.clear()
    kept_members.clear()
    _cached_contents.cache_clear()


def _contents(tar: Location) -> Contents:
    """Return the index and version of a tar file; files are indexed once, one at a time."""
    with _index_lock:
        return _cached_contents(tar)


@cache
def _cached_contents(tar: Location) -> Contents:
    members: dict[str, tuple[int, int]] = {}
    duplicates = []
    _tariterators()  # raises before any download if the package is missing
    with closing(Stream(tar)) as stream:
        for number, member in enumerate(_headers(stream)):
            name = str(PurePosixPath(member.name))
            if member.issparse():  # a few bytes may represent any number of zeros
                continue
            if name in members:
                duplicates.append(name)
                continue
            members[name] = number, member.size
            if name.lower().endswith(TEXTS) and member.size <= LARGEST:
                kept_members.put((tar, name), stream.read(member.size))
        assert stream.version is not None
        return Contents(Index(members, tuple(duplicates)), stream.version)


def _reader(tar: Location) -> Reader:
    """Return the reader of a tar file; if more than OPEN exist, close the least recently used."""
    with _readers_lock:
        reader = _readers.get(tar) or _readers.setdefault(tar, Reader(tar))
        _readers.move_to_end(tar)
        oldest = _readers.popitem(last=False)[1] if len(_readers) > OPEN else None
    if oldest:
        with oldest.lock:
            oldest.stream.close()
    return reader


def _headers(stream: Stream) -> Iterator[tarfile.TarInfo]:
    """Yield the header of each member that webdataset would yield, before reading its content."""
    with _tar_errors(stream):
        with tarfile.open(fileobj=stream, mode="r:") as archive:  # type: ignore[call-overload]
            for member in archive:
                archive.members = []  # otherwise tarfile keeps all of them
                name = member.name
                is_metadata = "/" not in name and name.startswith("__") and name.endswith("__")
                if member.isreg() and not is_metadata:
                    yield member
        check_end(stream.last, archive.offset)
        while rest := stream.read(CHUNK):
            if rest.strip(b"\0"):
                raise tarfile.ReadError("a header is missing or damaged")


def _members(stream: Stream, index: Index) -> Iterator[tuple[int, str, bytes]]:
    """Yield the number, name and content of each indexed member that is not too large, in order."""
    wanted = {number for number, size in index.members.values() if size <= LARGEST}
    number = -1

    def select(name: str) -> bool:  # noqa: ARG001  (called once for each member, before its content)
        nonlocal number
        number += 1
        return number in wanted

    files = _tariterators().tar_file_iterator(stream, skip_meta=None, select_files=select)
    with _tar_errors(stream):
        for file in files:
            yield number, str(PurePosixPath(file["fname"])), file["data"]


@contextmanager
def _tar_errors(stream: Stream) -> Iterator[None]:
    """Convert tarfile's errors to InputErrors, and remove webdataset's additions to messages."""
    try:
        yield
    except InputError as error:
        raise type(error)(_message(error)) from error
    except tarfile.TarError as error:
        raise unreadable(stream, _message(error)) from error


def _message(error: Exception) -> str:
    """Return the error's message without the object that webdataset appends after an @."""
    return str(error).split(" @ ")[0]


def _tariterators() -> Any:
    os.environ["WDS_SECURE"] = "1"  # webdataset then refuses "pipe:" names, which run commands
    try:
        from webdataset import tariterators
    except ImportError as error:
        raise InputError(
            "tar files on servers need webdataset; run pip install 'captioner[webdataset]'"
        ) from error
    return tariterators
