"""Atomic writing of files and directories, and exclusive file locks.

A temporary sibling with a unique name is written first and then renamed, so that readers see
either the old or the new content (or, for a moment, no directory while one is replaced), and two
writers never share a temporary file. If writing fails, the old content is kept and the temporary
sibling is removed.
"""

import errno
import os
import re
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from .errors import InputError

ABANDONED_SECONDS = 3600  # a temporary directory unchanged for this long is abandoned
OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CONTENTION = (errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY)  # raised if two writers rename at once
CONTENTION_SECONDS = 10  # after this time, these errors have another cause


def atomic_write(path: Path, content: str | bytes, *, sync: bool = False) -> None:
    """Write a file, replacing any existing one; a str is encoded as UTF-8.

    Parent directories are created. The file gets the default permissions of a new file
    (the umask applies). sync: whether to return only when the file and its name are on disk.
    """
    data = content.encode() if isinstance(content, str) else content
    with naming(path, len(data)):
        with atomic_file(path) as file:
            file.write(data)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        if sync:
            _sync(path.parent)


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Yield a new file to write, which replaces `path` when the block ends without an exception.

    Directories and permissions are handled as in `atomic_write`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _temporary_sibling(path)
    try:
        with part.open("xb") as file:
            yield file
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):  # a second error would hide the first
            part.unlink(missing_ok=True)
        raise


@contextmanager
def naming(path: Path, size: int) -> Iterator[None]:
    """Add the path to a system error that is raised while writing, and the size if space is short.

    size: the number of bytes to write.
    """
    try:
        yield
    except OSError as error:
        if error.strerror is not None:
            error.filename = str(path)
            if error.errno in OUT_OF_SPACE:
                error.strerror += f", {size:,} bytes needed"
        raise


@contextmanager
def atomic_directory(directory: Path, *, replace: bool = True) -> Iterator[Path]:
    """Yield a new directory to write files into, which is renamed to `directory` at the end.

    Its top-level files are synced to disk before the rename. replace: whether to replace an
    existing directory; if False, OSError is raised at the end if `directory` exists, unless it is
    an empty directory. Temporary directories that killed writers of `directory` left behind are
    removed if they have not changed for an hour.
    """
    part = _temporary_sibling(directory)
    try:
        part.mkdir(parents=True)
        _remove_abandoned(directory, now=part.stat().st_mtime)
        yield part
        for file in part.iterdir():
            _sync(file)
        if replace:
            _replace(part, directory)
        else:
            part.replace(directory)
        _sync(directory.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def sibling_path(path: Path, suffix: str) -> Path:
    """Return the hidden path `.NAME.SUFFIX` beside `path`.

    `atomic_directory` keeps the old content in `sibling_path(directory, "old")` while it replaces
    `directory`; if the process is killed between the two renames, `directory` does not exist, and
    this is the only copy of the old content.
    """
    return path.parent / f".{path.name}.{suffix}"


def check_absent(directory: Path) -> None:
    """Raise InputError if `directory` exists, unless it is an empty directory."""
    if directory.is_dir() and not any(directory.iterdir()):
        return
    if directory.exists() or directory.is_symlink():
        raise InputError(f"{directory} already exists; choose another directory")


def lock_file(file: IO[Any]) -> bool:
    """Lock an open file exclusively until it is closed; return False if it is already locked."""
    try:
        if sys.platform == "win32":
            import msvcrt

            position = os.lseek(file.fileno(), 0, os.SEEK_CUR)
            # Windows prevents others from reading locked bytes, so lock one far beyond the content.
            os.lseek(file.fileno(), 2**30, os.SEEK_SET)
            try:
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            finally:
                os.lseek(file.fileno(), position, os.SEEK_SET)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # msvcrt raises PermissionError
        return False
    return True


def _temporary_sibling(path: Path) -> Path:
    """Return a unique hidden path beside `path`; the name is truncated to a safe length."""
    return path.parent / f".{path.name[:40]}.{uuid.uuid4().hex}.part"


def _remove_abandoned(directory: Path, now: float) -> None:
    """Remove the temporary directories that killed writers of `directory` left behind.

    now: current time on the file system's clock, which may differ from this machine's.
    """
    # Older versions used the name .NAME.part.
    pattern = re.compile(rf"\.{re.escape(directory.name[:40])}(\.[0-9a-f]{{32}})?\.part")
    for part in directory.parent.iterdir():
        if not pattern.fullmatch(part.name):
            continue
        try:
            written = max(path.stat().st_mtime for path in (part, *part.rglob("*")))
        except OSError:  # its writer has just finished, or it belongs to another user
            continue
        if now - written > ABANDONED_SECONDS:
            shutil.rmtree(part, ignore_errors=True)


def _replace(new: Path, directory: Path) -> None:
    """Rename `new` to `directory`; retry while another writer is also replacing `directory`."""
    deadline = time.monotonic() + CONTENTION_SECONDS
    while True:
        try:
            return _swap(new, directory)
        except OSError as error:
            if error.errno not in CONTENTION or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _swap(new: Path, directory: Path) -> None:
    """Move `directory` aside if it exists, because a rename cannot replace it; rename `new`."""
    aside = sibling_path(directory, "old")
    if aside.exists():
        if directory.exists():
            shutil.rmtree(aside)
        else:
            aside.rename(directory)
    if directory.exists():
        directory.rename(aside)
    new.rename(directory)
    shutil.rmtree(aside, ignore_errors=True)


def _sync(path: Path) -> None:
    """Flush a file, or the entries of a directory, to disk."""
    if os.name == "nt" and path.is_dir():  # Windows cannot open directories
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
