"""Images inside Parquet tables, as on the Hugging Face hub, read in place through pyarrow.

A member of a table is the image of one row; its name is the number of the row.
"""

from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from ...errors import InputError
from .tar import Index

ROW_GROUPS = 4  # row groups kept in memory; each may hold a hundred megabytes


@dataclass(frozen=True)
class ParquetTable:
    """A Parquet file with a column of encoded images."""

    file: Path

    def index(self) -> Index:
        """Return the index of the rows that have an image, with row numbers instead of offsets.

        The image column is read once to find the sizes. Raises InputError if there is no such
        column, and as `open_table` does.
        """
        return _index(self.file, *self.version())

    def read(self, name: str) -> bytes:
        """Return an encoded image; raise InputError if it is missing."""
        row, _ = self.index().find(name, self.file)
        for group, (first, count) in enumerate(_extents(self.file, *self.version())):
            if first <= row < first + count:
                images = _row_group(self.file, *self.version(), group)
                return bytes(images[row - first].as_py())
        raise AssertionError("unreachable: the index contains only rows of the table")

    def version(self) -> tuple[int, int]:
        """Return the size in bytes and the modification time in nanoseconds."""
        status = self.file.stat()
        return status.st_size, status.st_mtime_ns


def member_name(row: int) -> str:
    return f"{row:08}"


def open_table(file: Path) -> Any:
    """Open a file as a pyarrow.parquet.ParquetFile.

    Raises InputError if it is not a Parquet file, or if the extra `parquet` is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(
            f"{file}: Parquet tables need pyarrow; run pip install 'captioner[parquet]'"
        ) from error
    try:
        return pyarrow.parquet.ParquetFile(file)
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{file} is not a readable Parquet file: {reason}; copy it again"
        ) from error


def image_column(file: Path) -> str | None:
    """Return the column of encoded images: the first that has bytes, or objects with `bytes`.

    None if there is none. Raises InputError as `open_table` does.
    """
    for column in open_table(file).schema_arrow:
        if _is_binary(column.type) or _is_object(column.type):
            return str(column.name)
    return None


def _is_binary(kind: Any) -> bool:
    return str(kind) in ("binary", "large_binary")


def _is_object(kind: Any) -> bool:
    if not str(kind).startswith("struct"):
        return False
    fields = [kind.field(number) for number in range(kind.num_fields)]
    return any(field.name == "bytes" and _is_binary(field.type) for field in fields)


@cache
def _extents(file: Path, size: int, modified: int) -> list[tuple[int, int]]:  # noqa: ARG001
    """Return the first row and the number of rows of each row group."""
    metadata, first, found = open_table(file).metadata, 0, []
    for group in range(metadata.num_row_groups):
        count = metadata.row_group(group).num_rows
        found.append((first, count))
        first += count
    return found


@cache
def _index(file: Path, size: int, modified: int) -> Index:
    members: dict[str, tuple[int, int]] = {}
    for group, (first, _) in enumerate(_extents(file, size, modified)):
        for number, image in enumerate(_read_group(file, group)):
            if image.is_valid:
                members[member_name(first + number)] = (first + number, len(image.as_buffer()))
    return Index(members, ())


@lru_cache(ROW_GROUPS)
def _row_group(file: Path, size: int, modified: int, group: int) -> Any:  # noqa: ARG001
    return _read_group(file, group)


def _read_group(file: Path, group: int) -> Any:
    """Return the encoded images of a row group as a pyarrow array."""
    column = image_column(file)
    if column is None:
        raise InputError(f"{file} has no image column; choose a table with encoded images")
    images = open_table(file).read_row_group(group, columns=[column])[column].combine_chunks()
    return images if _is_binary(images.type) else images.field("bytes")
