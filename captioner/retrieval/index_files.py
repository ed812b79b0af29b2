"""The files of an index, and how they are read.

    DIR/
      manifest.json      format, checkpoint, generation G, number of rows when it was written
      rows-G.npy         embeddings (N, E), float16
      regions-G.bin      region embeddings of a spatial model, one row of bytes per image
      images-G.jsonl     the image of each row: path or URL, size in bytes, stamp and content hash
      texts-G.jsonl      in an index of texts instead: the text of each row, and its sources
      clusters-G.faiss   clusters of the first rows, for approximate search
      skipped.jsonl      images or texts that have no row after the last run, and why
      recovered.jsonl    lines whose rows were lost; deleted by the next complete run

Each line is written after its row, so a row is part of the index only if its line is complete. The
files are written in `index_writer`.

Shapes: N rows, E dimensions.
"""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError
from .line_file import LineFile

FORMAT, WITH_REGIONS = 2, 3
READABLE = (1, FORMAT, WITH_REGIONS)  # format 1 contains images only and does not store the kind
KINDS = {"images": "image", "texts": "text"}  # the key of the lines by the kind of an index
MANIFEST, SKIPPED, RECOVERED = "manifest.json", "skipped.jsonl", "recovered.jsonl"
HEADER = 128  # bytes before the rows; enough for the header of any number of rows


class RegionShape(NamedTuple):
    """The shape (K, E, h, w) of an image's region embeddings, which `region_rows` packs.

    K blocks of a grid of h x w regions with embeddings of E dimensions.
    """

    blocks: int
    dimensions: int
    height: int
    width: int

    @property
    def regions(self) -> int:
        """The number of regions K * h * w."""
        return self.blocks * self.height * self.width

    @property
    def bytes(self) -> int:
        """The number of bytes R of an image's packed region embeddings."""
        return self.regions * (2 + self.dimensions)


@dataclass(frozen=True)
class Manifest:
    """The checkpoint of an index and the state of its files, as in manifest.json.

    checkpoint: path or hub repository. weights: SHA-256 of its weights. dimensions: E. rows: number
    of rows when the manifest was written; more may have been appended since. generation: the number
    G in the file names. kind: what the rows embed, "images" or "texts". regions: the shape
    (K, E, h, w) of an image's region embeddings; empty if there are none.
    """

    checkpoint: str
    weights: str
    dimensions: int
    rows: int = 0
    generation: int = 1
    format: int = FORMAT
    kind: str = "images"
    regions: tuple[int, ...] = ()

    @property
    def region_shape(self) -> RegionShape | None:
        """The shape of an image's region embeddings; None if there are none."""
        return RegionShape(*self.regions) if self.regions else None


@dataclass(frozen=True)
class IndexFiles:
    """The files of one generation of an index, as they were when opened.

    The contents stay the same even if another process rewrites or deletes the index. rows (N, E):
    float16, memory-mapped. line_file: the lines of at least N rows. regions (N, R): packed region
    embeddings (see `region_rows`), memory-mapped; None if there are none.
    """

    directory: Path
    manifest: Manifest
    rows: np.ndarray
    line_file: LineFile
    regions: np.ndarray | None = None

    @property
    def starts(self) -> np.ndarray:
        """The byte offsets of all lines and of the end of the last one, as in `LineFile`."""
        return self.line_file.starts

    @property
    def lines(self) -> Path:
        """The path of the file of lines, which another process may have replaced since."""
        return self.line_file.path

    def entries(self, indices: Iterable[int]) -> Iterator[dict[str, Any]]:
        """Yield the line of each row as a dict with the key "image" or "text"; read on demand."""
        path, key = self.line_file.path, KINDS[self.manifest.kind]
        for i in indices:
            yield parse_line(path, key, self.line_file.read(i))

    def find(self, item: str) -> int | None:
        """Return the row of an image (by path or URL) or of a text; None if it is not indexed.

        The file of lines is searched, because a dictionary of all paths would be large.
        """
        key = KINDS[self.manifest.kind]
        wanted = f'"{key}": {json.dumps(item)}'.encode()
        with self.line_file.mapped() as content:
            position = content.find(wanted)
            while position >= 0:
                row = int(np.searchsorted(self.starts, position, "right")) - 1
                if next(self.entries([row]))[key] == item:
                    return row
                position = content.find(wanted, position + 1)
        return None


def is_index(directory: Path) -> bool:
    """Return whether the directory contains the manifest of an index, of any format version."""
    try:
        content = json.loads((directory / MANIFEST).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and {"generation", "dimensions"} <= content.keys()


def read_manifest(directory: Path) -> Manifest:
    """Read the manifest.

    Raises InputError if it is missing, cannot be read, is damaged or has an unknown format.
    """
    path = directory / MANIFEST
    if not path.exists():
        raise InputError(f"{directory} is not an index; write one with captioner index")
    try:
        content = json.loads(path.read_bytes())
        version = content["format"]
        if version not in READABLE:
            raise InputError(
                f"{path} has format {version!r}, but this version of captioner reads formats up to "
                f"{READABLE[-1]}; update captioner, or write the index again"
            )
        regions = tuple(content.get("regions", ()))
        manifest = Manifest(**{**content, "format": FORMAT, "regions": regions})
    except InputError:
        raise
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path} cannot be read: {reason}; check the file") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(f"{path} is damaged: {error!r}; {_advice(directory)}") from error
    numbers = (manifest.dimensions, manifest.rows, manifest.generation)
    texts = (manifest.checkpoint, manifest.weights)
    if not (all(type(n) is int for n in numbers) and all(isinstance(t, str) for t in texts)):
        raise InputError(
            f"{path} is damaged: dimensions, rows and generation must be integers, and checkpoint "
            f"and weights text; {_advice(directory)}"
        )
    if manifest.kind not in tuple(KINDS):
        raise InputError(
            f"{path} is damaged: kind must be {' or '.join(KINDS)}, got {manifest.kind!r}; "
            f"{_advice(directory)}"
        )
    regions = manifest.regions
    if regions and (len(regions) != 4 or not all(type(n) is int and n > 0 for n in regions)):
        raise InputError(
            f"{path} is damaged: regions must be four positive integers, got {list(regions)}; "
            f"{_advice(directory)}"
        )
    if manifest.dimensions < 1 or manifest.rows < 0:
        raise InputError(
            f"{path} is damaged: dimensions must be at least 1 and rows at least 0, got "
            f"{manifest.dimensions} and {manifest.rows}; {_advice(directory)}"
        )
    return manifest


def open_files(directory: Path) -> IndexFiles:
    """Open an index for reading; another process may write to it at the same time.

    Raises InputError if the directory is not an index, or if its files are damaged or truncated.
    """
    manifest = read_manifest(directory)
    try:
        return open_generation(directory, manifest)
    except FileNotFoundError as error:
        newer = read_manifest(directory)
        if newer.generation == manifest.generation:
            name = Path(error.filename).name
            raise InputError(
                f"{directory} is damaged: {name} is missing; {_advice(directory)}"
            ) from error
        return open_generation(directory, newer)


def open_generation(directory: Path, manifest: Manifest) -> IndexFiles:
    """Open the files that belong to a manifest.

    Raises InputError if a file is damaged or truncated, and FileNotFoundError if one is missing.
    """
    lines = LineFile(lines_path(directory, manifest))
    count, stored = len(lines), count_rows(directory, manifest)
    advice = f"run captioner index with --output {directory} again to repair it"
    if count < manifest.rows:
        raise InputError(
            f"{lines.path.name} is truncated: it has {count:,} of {manifest.rows:,} lines; {advice}"
        )
    if stored < count:
        name = rows_path(directory, manifest).name
        raise InputError(f"{name} is truncated: it has {stored:,} of {count:,} rows; {advice}")
    rows = _map_rows(directory, manifest, count)
    if (shape := manifest.region_shape) is None:
        return IndexFiles(directory, manifest, rows, lines)
    path = regions_path(directory, manifest)
    stored = path.stat().st_size // shape.bytes
    if stored < count:
        raise InputError(f"{path.name} is truncated: it has {stored:,} of {count:,} rows; {advice}")
    regions = np.empty((0, shape.bytes), np.uint8)
    if count:
        regions = np.memmap(path, np.uint8, "c", 0, (count, shape.bytes))
    return IndexFiles(directory, manifest, rows, lines, regions)


def rows_path(directory: Path, manifest: Manifest) -> Path:
    """Return the path of the file of rows that belongs to a manifest."""
    return directory / f"rows-{manifest.generation}.npy"


def lines_path(directory: Path, manifest: Manifest) -> Path:
    """Return the path of the file of lines that belongs to a manifest."""
    return directory / f"{manifest.kind}-{manifest.generation}.jsonl"


def regions_path(directory: Path, manifest: Manifest) -> Path:
    """Return the path of the file of region embeddings that belongs to a manifest."""
    return directory / f"regions-{manifest.generation}.bin"


def clusters_path(directory: Path, manifest: Manifest) -> Path:
    """Return the path of the file of clusters that belongs to a manifest; it may not exist."""
    return directory / f"clusters-{manifest.generation}.faiss"


def _map_rows(directory: Path, manifest: Manifest, count: int) -> np.ndarray:
    shape = (count, manifest.dimensions)
    if not count:
        return np.empty(shape, np.float16)
    # Copy on write, because torch warns of arrays that are not writable; nothing is written.
    return np.memmap(rows_path(directory, manifest), np.float16, "c", HEADER, shape)


def count_rows(directory: Path, manifest: Manifest) -> int:
    """Return the number of complete rows on disk; raise InputError if their file is damaged."""
    path = rows_path(directory, manifest)
    with path.open("rb") as file:
        try:
            np.lib.format.read_magic(file)
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
            dimensions = shape[1:]
        except Exception as error:  # NumPy parses the header as Python
            raise InputError(f"{path} is damaged: {error}; {_advice(directory)}") from error
        right = dimensions == (manifest.dimensions,) and dtype == np.float16 and not fortran
        if not right or file.tell() != HEADER:
            raise InputError(
                f"{path} is damaged: its header does not match {MANIFEST}; {_advice(directory)}"
            )
        return (file.seek(0, os.SEEK_END) - HEADER) // (2 * manifest.dimensions)


def parse_line(path: Path, key: str, line: bytes) -> dict[str, Any]:
    """Parse a line of the file at `path`; raise InputError if it has no text with this key."""
    try:
        entry = json.loads(line)
        if isinstance(entry[key], str):
            return dict(entry)
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise InputError(
        f"{path} is damaged: a line has no text with the key {key!r}; {_advice(path.parent)}"
    )


def _advice(directory: Path) -> str:
    return f"delete {directory} and run captioner index again"
