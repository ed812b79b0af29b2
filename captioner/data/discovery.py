"""Finding the files of a data set and decoding their text, for all readers."""

import os
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NoReturn

from ..errors import InputError
from ..git_lfs import refuse_pointer

# Files with these extensions are images, even in formats that cannot be decoded (the last line):
# such a file is an error with a reason instead of being ignored.
IMAGE_SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".bmp", ".gif", ".webp"),
    *(".tif", ".tiff"),
    *(".avif", ".heic", ".heif", ".jxl", ".jp2"),
}
_METADATA = {"__MACOSX", "@eaDir"}  # directories created by macOS and Synology
_MARKS = (b"\xff\xfe", b"\xfe\xff")  # byte-order marks of UTF-16, and of UTF-32 with zeros


def is_image_name(name: str) -> bool:
    """Return whether a file name has an image extension, in upper or lower case."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def is_hidden(name: str) -> bool:
    """Return whether a relative path has a hidden part, such as ._a.jpg or __MACOSX/."""
    return any(_is_hidden_part(part) for part in name.split("/"))


def _is_hidden_part(part: str) -> bool:
    return part in _METADATA or (part.startswith(".") and part not in (".", ".."))


def walk(directory: str | Path) -> Iterator[str]:
    """Yield the visible files in a directory, then in its subdirectories, each sorted.

    Links to directories are followed, but no directory is entered twice. Raises OSError for a
    directory that cannot be read.
    """
    for parent, files in _walk(directory, depth=None):
        yield from (os.path.join(parent, name) for name in files)


def directories(root: Path, depth: int) -> Iterator[Path]:
    """Yield a directory and its visible subdirectories, down to `depth` levels."""
    return (Path(parent) for parent, _ in _walk(root, depth))


def _walk(root: str | Path, depth: int | None) -> Iterator[tuple[str, list[str]]]:
    """Yield each visible directory, down to `depth` levels (None: all), and its visible files."""

    def stop(error: OSError) -> NoReturn:
        raise error

    entered: set[str] = set()
    levels = len(Path(root).parts)
    for parent, inner, files in os.walk(root, onerror=stop, followlinks=True):
        real = os.path.realpath(parent)
        deepest = depth is not None and len(Path(parent).parts) - levels >= depth
        again = real in entered
        inner[:] = [] if deepest or again else sorted(n for n in inner if not _is_hidden_part(n))
        entered.add(real)
        if not again:
            yield parent, sorted(name for name in files if not _is_hidden_part(name))


def same_name(name: str) -> str:
    """Return a normalised file name, which is equal for all Unicode spellings of the name."""
    return unicodedata.normalize("NFC", name)


def existing_spelling(path: Path) -> Path:
    """Return the path in the spelling that exists on disk: composed or decomposed Unicode.

    Archives from macOS contain decomposed names. Returns the path itself if no such file exists.
    """
    if str(path).isascii() or os.path.exists(path):
        return path
    spellings = (Path(unicodedata.normalize(form, str(path))) for form in ("NFC", "NFD"))
    return next((spelling for spelling in spellings if os.path.exists(spelling)), path)


def other_case(path: Path) -> str | None:
    """Return the name of a file in the same directory that differs only in case, or None."""
    try:
        names = _names_by_case(path.parent, path.parent.stat().st_mtime_ns)
    except (OSError, ValueError):
        return None
    return names.get(path.name.casefold())


@lru_cache(16)
def _names_by_case(directory: Path, modified: int) -> dict[str, str]:  # noqa: ARG001
    return {name.casefold(): name for name in os.listdir(directory)}


def decode_text(content: bytes, source: object) -> str:
    """Decode the content of a UTF-8 text file; a byte-order mark is dropped.

    Bytes that are not UTF-8 become lone surrogates. Raises InputError, naming `source`, for a Git
    LFS pointer, and for what seems to be UTF-32 or UTF-16, which Excel ("Unicode text") and
    PowerShell 5 write.
    """
    refuse_pointer(content, source)
    if content.startswith(_MARKS) or 3 * content[:100].count(0) > len(content[:100]):
        raise InputError(f"{source} seems to be UTF-16 or UTF-32; save it as UTF-8")
    return content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")


def split_lines(content: bytes, source: object) -> list[str]:
    """Split the content of a text file, decoded by `decode_text`, into lines.

    Only LF and CRLF end a line, since captions may contain other separators at which
    `str.splitlines` would split.
    """
    return decode_text(content, source).replace("\r\n", "\n").split("\n")
