"""Members of local tar files, indexed once and read in place."""

import os
import tarfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ...errors import InputError
from ...git_lfs import refuse_pointer_file


class Index(NamedTuple):
    """The regular files of a tar file, or the images of a Parquet table.

    members: offset and size in bytes by name, in the file's order; the offset is replaced by the
    member's number in a tar file on a server, and by the number of the row in a Parquet table.
    duplicates: repeated names; only the first member is used.
    """

    members: dict[str, tuple[int, int]]
    duplicates: tuple[str, ...]

    def find(self, name: str, tar: object) -> tuple[int, int]:
        """Return the offset and size of a member of `tar`; raise InputError if it is missing."""
        if name not in self.members:
            raise InputError(f"{f'{tar}/{name}'!r}: no such file; check the path")
        return self.members[name]


@dataclass(frozen=True)
class LocalTar:
    """A tar file on disk."""

    file: Path

    def index(self) -> Index:
        """Return the index; raise InputError if the file is compressed, damaged or truncated.

        Links, directories and sparse files are omitted. The index is cached until the file changes.
        """
        return _index(self.file, *self.version())

    def read(self, name: str) -> bytes:
        """Return the content of a member; raise InputError if it is missing or truncated."""
        offset, count = self.index().find(name, self.file)
        with self.file.open("rb", buffering=0) as file:
            content = os.pread(file.fileno(), count, offset)
        if len(content) != count:
            raise InputError(f"{self.file}/{name} is truncated; copy its tar file again")
        return content

    def version(self) -> tuple[int, int]:
        """Return the size in bytes and the modification time in nanoseconds, for any file."""
        status = self.file.stat()
        return status.st_size, status.st_mtime_ns


@cache
def _index(tar: Path, size: int, modified: int) -> Index:  # noqa: ARG001  (parts of the cache key)
    members: dict[str, tuple[int, int]] = {}
    duplicates = []
    try:
        with tarfile.open(tar, "r:") as archive:
            for member in archive:
                archive.members = []  # type: ignore[attr-defined]  # otherwise tarfile keeps all of them
                name = str(PurePosixPath(member.name))
                if not member.isreg() or member.issparse():
                    continue
                if name in members:
                    duplicates.append(name)
                members.setdefault(name, (member.offset_data, member.size))
            archive.fileobj.seek(archive.offset)
            check_end(archive.fileobj.read(tarfile.BLOCKSIZE), archive.offset)
    except tarfile.TarError as error:
        refuse_pointer_file(tar)
        raise unreadable(tar, error) from error
    return Index(members, tuple(duplicates))


def check_end(block: bytes, offset: int) -> None:
    """Raise ReadError unless a block of zeros, which ends a tar file, follows the last member.

    tarfile (Python 3.11) stops silently at an unreadable header, and at the end of a file that is
    truncated between two members.
    """
    if block != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"{'invalid header' if block else 'truncated'} at byte {offset}")


def unreadable(tar: object, reason: object) -> InputError:
    """Return the error for a tar file that is compressed, damaged or truncated."""
    return InputError(f"{tar} is not a readable tar file: {reason}; decompress it or copy it again")
