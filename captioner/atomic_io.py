"""Files and directories that are written whole or not at all; what is in them is others' business."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import InputError


@contextmanager
def atomic_directory(directory: Path) -> Iterator[Path]:
    """A new directory to write files into, which takes the place of `directory` when all is well.

    Until then it lies beside it, so that a reader sees the old directory or the new one. Where the
    block raises, the old one stays.
    """
    part = beside(directory, "part")
    shutil.rmtree(part, ignore_errors=True)  # of a program that was killed
    try:
        part.mkdir(parents=True)
        yield part
        for file in part.iterdir():
            _sync(file)
        _replace(part, directory)
        _sync(directory.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def atomic_write(path: Path, content: str | bytes) -> None:
    """Write a file, text as UTF-8, beside its place and put it there: it is never half-written."""
    part = beside(path, "part")
    part.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(part, path)


def beside(directory: Path, what: str) -> Path:
    """Where the part of `directory` that is being written is, or the old one while it is replaced.

    what: "part" or "old".
    """
    return directory.parent / f".{directory.name}.{what}"


def check_absent(directory: Path) -> None:
    """Raise InputError where there is something at `directory` that writing would replace."""
    if directory.is_dir() and not any(directory.iterdir()):
        return
    if directory.exists() or directory.is_symlink():
        raise InputError(f"{directory} is there already; choose another directory")


def _replace(new: Path, directory: Path) -> None:
    """Directories cannot be exchanged in one call: the old one steps aside in between."""
    aside = beside(directory, "old")
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
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
