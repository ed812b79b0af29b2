"""Files of feature stores: segments, listing the stores of a cache, and pruning.

    features-KEY/
      store.json          encoder, weights and transform
      maps-ID.npy         (n, h, w, D) half precision; each image is one contiguous read
      maps-ID.keys.npy    (n,) 16 bytes: the key of the image in each row
      pooled-ID.npy       (n, 2, D) half precision; mean and maximum over the positions
      pooled-ID.keys.npy

A segment consists of the two files with the same ID. It is used once both exist and are complete.
Temporary files are hidden and end in .part. This module does not import torch, so that
`captioner cache` starts quickly.
"""

import json
import shutil
import time
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

KINDS = ("maps", "pooled")
ROWS, KEYS = ".npy", ".keys.npy"
KEY_TYPE = np.dtype("S16")
DAMAGED = "(damaged)"  # instead of the encoder's name
ABANDONED = 3600  # seconds without a write after which the writer is assumed to be dead


@dataclass(frozen=True)
class Segment:
    """A file of rows: the offset of the first row in bytes, the number of rows, and their shape."""

    path: Path
    start: int
    count: int
    shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        return int(np.prod(self.shape)) * 2

    @property
    def keys_path(self) -> Path:
        return self.path.with_name(self.path.name.removesuffix(ROWS) + KEYS)


# Exceptions that NumPy raises for damaged headers, which it parses as Python.
DAMAGE = (OSError, ValueError, EOFError, SyntaxError, tokenize.TokenError)


def read_segments(directory: Path, kind: str) -> Iterator[tuple[Segment, np.ndarray]]:
    """Yield the complete segments of a kind, ordered by name, with their keys (n,).

    Damaged segments and those that another process is pruning are omitted.
    """
    for keys_path in sorted(directory.glob(f"{kind}-*{KEYS}")):
        path = keys_path.with_name(keys_path.name.removesuffix(KEYS) + ROWS)
        try:
            segment, keys = _read_header(path), np.load(keys_path)
        except DAMAGE:
            continue
        if keys.dtype == KEY_TYPE and keys.shape == (segment.count,):
            yield segment, keys


def _read_header(path: Path) -> Segment:
    """Return the segment whose rows are in `path`; raise ValueError for a damaged file."""
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        segment = Segment(path, file.tell(), shape[0], shape[1:])
    whole = path.stat().st_size == segment.start + shape[0] * segment.row_bytes
    if dtype != np.float16 or fortran or not whole:
        raise ValueError(f"{path} is not a complete segment")
    return segment


def remove_abandoned(directory: Path) -> None:
    """Delete files left behind by killed processes: temporary files and incomplete segments.

    Files written in the last ABANDONED seconds are kept.
    """
    now = time.time()
    for path in [*directory.glob(".*.part"), *_orphans(directory)]:
        try:
            if now - path.stat().st_mtime > ABANDONED:
                path.unlink()
        except FileNotFoundError:  # its process has just finished
            continue


def _orphans(directory: Path) -> list[Path]:
    """Return the key files without rows and the row files without keys."""
    files = {path.name for kind in KINDS for path in directory.glob(f"{kind}-*{ROWS}")}
    keys = {name.removesuffix(KEYS) for name in files if name.endswith(KEYS)}
    rows = {name.removesuffix(ROWS) for name in files if not name.endswith(KEYS)}
    names = [*(name + KEYS for name in keys - rows), *(name + ROWS for name in rows - keys)]
    return [directory / name for name in sorted(names)]


# ---- the stores of a cache ----------------------------------------------------------------------


@dataclass(frozen=True)
class StoreInfo:
    """A store in a cache.

    encoder: the encoder's name; DAMAGED if store.json is damaged, in which case the rows are still
    used and the next run that opens the store repairs the file; None for a cache of an older
    version, which is no longer read. size: side length of the images in pixels, 0 if unknown. maps,
    pooled: number of images with rows of that kind. bytes: total size of the files. used: time of
    the last write, in seconds since 1970.
    """

    directory: Path
    encoder: str | None
    size: int
    maps: int
    pooled: int
    bytes: int
    used: float


def list_stores(cache: Path) -> list[StoreInfo]:
    """Return the stores in a cache directory, least recently written first."""
    found = []
    for directory in cache.glob("features-*"):
        try:
            found.append(_describe(directory))
        except (OSError, ValueError):  # deleted meanwhile, or not a directory
            continue
    return sorted(found, key=lambda store: store.used)


def _describe(directory: Path) -> StoreInfo:
    files = [path.stat() for path in directory.iterdir()]
    encoder, size = read_about(directory)
    counts = {}
    for kind in KINDS:
        keys = [keys for _, keys in read_segments(directory, kind)]
        counts[kind] = len(np.unique(np.concatenate(keys))) if keys else 0
    return StoreInfo(
        directory,
        encoder,
        size,
        **counts,
        bytes=sum(file.st_size for file in files),
        used=max((file.st_mtime for file in files), default=directory.stat().st_mtime),
    )


def read_about(directory: Path) -> tuple[str | None, int]:
    """Return the encoder and image size in store.json.

    Returns None and 0 if the file is missing, DAMAGED and 0 if it is damaged or cannot be read.
    """
    try:
        about: Any = json.loads((directory / "store.json").read_text(encoding="utf-8"))
        return str(about["encoder"]), int(about["transform"]["size"])
    except FileNotFoundError:
        return None, 0
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return DAMAGED, 0


def prune(cache: Path, before: float = 0) -> int:
    """Delete unneeded files in a cache directory, and return the number of bytes freed.

    The following are unneeded: stores last written before `before`, in seconds since 1970; caches
    of older versions not written within the last hour; and, in the remaining stores, abandoned
    temporary files, incomplete or damaged segments, and segments whose images all have rows in
    other segments. In the remaining stores, files written within the last hour are kept, because a
    process may still be writing them.
    """
    stores = list_stores(cache)
    for store in stores:
        last = before if store.encoder is not None else max(before, time.time() - ABANDONED)
        if store.used < last:
            shutil.rmtree(store.directory)
            continue
        remove_abandoned(store.directory)
        for kind in KINDS:
            _remove_duplicates(store.directory, kind)
    return sum(store.bytes for store in stores) - sum(s.bytes for s in list_stores(cache))


def _remove_duplicates(directory: Path, kind: str) -> None:
    """Delete segments that are damaged or whose images all have rows in larger segments."""
    whole = sorted(read_segments(directory, kind), key=lambda pair: -pair[0].count)
    needed, seen = set(), np.array([], KEY_TYPE)
    for segment, keys in whole:
        if not np.isin(keys, seen).all():
            seen = np.union1d(seen, keys)
            needed.add(segment.keys_path)
    now = time.time()
    for keys_path in set(directory.glob(f"{kind}-*{KEYS}")) - needed:
        if now - keys_path.stat().st_mtime > ABANDONED:  # otherwise its rows may still be renamed
            keys_path.with_name(keys_path.name.removesuffix(KEYS) + ROWS).unlink(missing_ok=True)
            keys_path.unlink(missing_ok=True)
