"""Git LFS pointers: small text files that replace files not yet downloaded by Git LFS."""

from pathlib import Path

from .errors import InputError

_START = b"version https://git-lfs.github.com/spec/"


def is_pointer(start: bytes) -> bool:
    """Return whether a file that begins with these bytes is a Git LFS pointer."""
    return start.startswith(_START)


def refuse_pointer(start: bytes, name: object) -> None:
    """Raise InputError if a file that begins with these bytes is a Git LFS pointer.

    name: the file's name, for the message.
    """
    if is_pointer(start):
        raise InputError(
            f"{name} is a Git LFS pointer, not the file itself; run git lfs pull in its repository"
        )


def refuse_pointer_file(path: Path) -> None:
    """Raise InputError if the file at `path` is a Git LFS pointer; ignore an unreadable file."""
    try:
        if path.is_file():  # not a pipe, from which a byte can be read only once
            with path.open("rb") as file:
                refuse_pointer(file.read(len(_START)), path)
    except OSError:
        pass
