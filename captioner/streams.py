"""Tar files on http servers, read through the webdataset package; paths are shards.py's.

Each is gone through once for what it holds. Then its files are read forward: what is passed over
on the way to one is kept for a while, and what lies behind and is not kept costs another way
through.
"""

import os
import tarfile
import threading
import zlib
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from contextlib import closing
from functools import cache
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from .downloads import CHUNK, Download, Url, Version, changed
from .errors import InputError

KEPT = 512 * 2**20  # bytes of files that were passed over
OPEN = 64  # tar files that are read forward at the same time
TEXTS = (".txt", ".json")  # kept while the tar file is gone through, since they are read at once


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


class Shard:
    """A tar file on its way through; whoever reads holds the lock."""

    def __init__(self, tar: Url) -> None:
        self.tar, self.lock = tar, threading.Lock()
        self.download = Download(tar)
        self.begin()

    def begin(self) -> None:
        """Stand before its first file, without a connection."""
        self.download.close()
        self.passed = 0
        self.download = Download(self.tar, contents(self.tar).version)
        self._members = enumerate(_members(self.download))

    def read(self, wanted: str) -> bytes:
        """The file of this name; those before it are kept, if they are the first of their names."""
        known = contents(self.tar).members
        number, _ = known[wanted]
        if number < self.passed:
            self.begin()
        try:
            for at, (name, content) in self._members:
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

    Links, folders and the like are passed over. A tar file is taken to stay as it is while the
    program runs: where it does not, reading from it is an error.
    """
    with _going_through:
        return _contents(tar)


@cache
def _contents(tar: Url) -> Contents:
    members: dict[str, tuple[int, int]] = {}
    twice = []
    with closing(Download(tar)) as download:
        for number, (name, content) in enumerate(_members(download)):
            if name in members:
                twice.append(name)
                continue
            members[name] = number, len(content)
            if name.lower().endswith(TEXTS):
                _kept.put((tar, name), content)
        assert download.version is not None
        return Contents(members, tuple(twice), download.version)


def read(tar: Url, name: str) -> bytes:
    """A file that the tar file holds. Threads may call it at once; of a tar file one reads."""
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


def _members(download: Download) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files in a tar file, in its order."""
    try:
        for file in _tariterators().tar_file_iterator(download, skip_meta=None):
            yield str(PurePosixPath(file["fname"])), file["data"]
        while rest := download.read(CHUNK):
            if rest.strip(b"\0"):
                raise tarfile.ReadError("no header where one should be")
    except InputError as error:
        raise type(error)(_plain(error)) from error
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise InputError(
            f"{download} is no tar file that can be read ({_plain(error)}); copy it there again"
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
