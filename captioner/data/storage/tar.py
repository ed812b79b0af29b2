"""Members of local tar files, indexed once and read in place."""

import os
import tarfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ...errors import InputError


class Index(NamedTuple):
    """The regular files of a tar file.

    members: by name, in the tar file's order, the offset and size of each in bytes; on servers,
    numbers in that order stand for offsets. duplicates: names that occur again; the first counts.
    """

    members: dict[str, tuple[int, int]]
    duplicates: tuple[str, ...]

    def find(self, name: str, tar: object) -> tuple[int, int]:
        """Offset and size of a member of `tar`; raises InputError if there is none."""
        if name not in self.members:
            raise InputError(f"{f'{tar}/{name}'!r}: no such file")
        return self.members[name]


@dataclass(frozen=True)
class LocalTar:
    """A tar file on disk."""

    file: Path

    def index(self) -> Index:
        """Its members; raises InputError for a file that is compressed, damaged or cut short.

        Links, directories and sparse files are left out. The index is kept until the file changes.
        """
        return _index(self.file, *self.version())

    def read(self, name: str) -> bytes:
        """The content of a member; raises InputError if it is missing or cut short."""
        offset, count = self.index().find(name, self.file)
        with self.file.open("rb", buffering=0) as file:
            content = os.pread(file.fileno(), count, offset)
        if len(content) != count:
            raise InputError(f"{self.file}/{name} is cut short; copy its tar file again")
        return content

    def version(self) -> tuple[int, int]:
        """Bytes, and nanoseconds at the last modification; defined for any file."""
        status = self.file.stat()
        return status.st_size, status.st_mtime_ns


@cache
def _index(tar: Path, size: int, modified: int) -> Index:  # noqa: ARG001  (parts of the key)
    members: dict[str, tuple[int, int]] = {}
    duplicates = []
    try:
        with tarfile.open(tar, "r:") as archive:
            for member in archive:
                archive.members = []  # type: ignore[attr-defined]  # else it keeps all of them
                name = str(PurePosixPath(member.name))
                if not member.isreg() or member.issparse():
                    continue
                if name in members:
                    duplicates.append(name)
                members.setdefault(name, (member.offset_data, member.size))
            archive.fileobj.seek(archive.offset)
            check_end(archive.fileobj.read(tarfile.BLOCKSIZE), archive.offset)
    except tarfile.TarError as error:
        raise unreadable(tar, error) from error
    return Index(members, tuple(duplicates))


def check_end(block: bytes, offset: int) -> None:
    """Raise ReadError unless a block of zeros, which ends a tar file, follows the last member.

    tarfile (Python 3.11) stops silently at a header that it cannot read, and at the end of a file
    that was cut short between two members.
    """
    if block != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"no {'header' if block else 'end'} at byte {offset}")


def unreadable(tar: object, reason: object) -> InputError:
    """The error for a tar file that is compressed, damaged or cut short."""
    return InputError(f"{tar} is not a readable tar file: {reason}; decompress it or copy it again")
