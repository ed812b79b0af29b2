"""Snapshots: the files of an index as they were when opened, and the names of its images."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..errors import InputError
from ..retrieval.index_files import IndexFiles
from .labelled_index import LabelledIndex

_IMAGE = re.compile(rb'"image": "((?:[^"\\]|\\.)*)"')


class Damaged(Exception):  # noqa: N818  the service's fault, not the client's
    """The files of an index cannot be read; the message contains their paths."""


def unreadable(name: str) -> str:
    """Return what a client is told about a damaged index; the cause, with paths, is in the log."""
    return f"the index {name} cannot be read; see the log of the service for the cause"


@dataclass(frozen=True)
class Snapshot:
    """The files of an index as they were when they were opened.

    version: a string that changes whenever the index is written. index: the same files, with the
    linker that embeds queries. Methods raise Damaged if the lines cannot be read, but
    FileNotFoundError if a file is missing, as `Collection.read` expects.
    """

    files: IndexFiles
    version: str
    index: LabelledIndex

    @property
    def kind(self) -> str:
        """What the rows embed: "images" or "texts"."""
        return self.files.manifest.kind

    @cached_property
    def base(self) -> str:
        """The path that the names of images omit: a directory with a slash at the end, or "".

        See `_common_base`.
        """
        with reading():
            return _common_base(self.files)

    def entries(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Return the parsed lines of rows; all of them must exist."""
        with reading():
            return list(self.files.entries(rows))

    def image(self, row: int) -> tuple[dict[str, Any] | None, str]:
        """Return the parsed line of a row and its image's name; (None, "") if it has no image."""
        if row >= len(self.files.rows) or self.kind == "texts":
            return None, ""
        entry = self.entries([row])[0]
        return entry, self.name(entry["image"])

    def find(self, name: str) -> int | None:
        """Return the row of the image named `name`; None if the index does not contain it."""
        if self.kind == "texts":
            return None
        with reading():
            return self.files.find(self.base + name)

    def name(self, image: str) -> str:
        """Return the name of an image in results and queries: its path or URL without `base`."""
        return image.removeprefix(self.base)


@contextmanager
def reading() -> Iterator[None]:
    """Convert errors that occur in reading an index to Damaged, except FileNotFoundError."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (InputError, OSError, ValueError) as error:  # ValueError: mmap of a file that is shorter
        raise Damaged(str(error)) from error


def _common_base(files: IndexFiles) -> str:
    """Return the working directory if it contains all images, otherwise their common directory.

    The path ends with a slash, or is empty. Lines are searched without parsing, because parsing a
    million of them takes seconds. Raises ValueError for a damaged path.
    """
    if not len(files.rows) or "image" not in next(files.entries([0])):
        return ""
    end = int(files.starts[len(files.rows)])
    with files.line_file.mapped() as content:
        images: list[bytes] = _IMAGE.findall(content, 0, end)
    first, last = min(images, default=b""), max(images, default=b"")
    same = 0
    while first[same : same + 1] == last[same : same + 1] != b"":
        same += 1
    base: str = json.loads(b'"' + first[: first.rfind(b"/", 0, same) + 1] + b'"')
    here = os.path.join(os.getcwd(), "")
    return here if base.startswith(here) else base
