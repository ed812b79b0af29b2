"""Features of a frozen encoder on disk, one row per image, shared by all runs and commands.

A store belongs to one combination of encoder, weights and transform. Rows are looked up by the
stamp of each image, so only new rows are computed after images are added, removed or re-split.
Rows are appended in segments, which are written under temporary names and renamed once complete: a
killed process loses at most one segment, and several processes may write to the same store.
`store_files` describes the files.

Shapes: N images, B images per batch, D channels, (h, w) grid.
"""

import functools
import hashlib
import json
import logging
import os
import secrets
import threading
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..atomic_io import atomic_write
from ..console import progress_bar
from ..data.images import Transform
from ..data.sources import ImageSource, Source
from ..data.storage.files import stamp
from ..devices import memory_advice
from ..errors import InputError
from ..prefetch import load_ahead
from .encoders import Encoder
from .store_files import KEY_TYPE, KEYS, ROWS, Segment, read_about, read_segments, remove_abandoned

log = logging.getLogger(__name__)

FORMAT = 2  # part of the key
SEGMENT = 512  # images per segment, lost if a process is killed; a multiple of the batch size
OPEN_FILES = 256  # maximum per StoredFeatures; systems often allow a process 1,024 or fewer


_position = threading.Lock()  # of files, on systems without preadv


def _read_at(number: int, values: np.ndarray, offset: int) -> int:
    """Read bytes at a position of an open file into an array; return their number."""
    if hasattr(os, "preadv"):
        return os.preadv(number, [values.data], offset)
    with _position:  # Windows; threads share the position
        os.lseek(number, offset, os.SEEK_SET)
        content = os.read(number, values.nbytes)
    values.reshape(-1).view(np.uint8)[: len(content)] = np.frombuffer(content, np.uint8)
    return len(content)


class _Descriptor:
    """A file open for reading, closed when the last thread using it releases it."""

    def __init__(self, path: Path) -> None:
        self.number = -1
        self.number = os.open(
            path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        )

    def __del__(self) -> None:
        if self.number >= 0:
            os.close(self.number)


class StoredFeatures:
    """The stored rows of a list of images, read on demand and not kept in memory.

    kind: "maps" or "pooled". Implements `Source`.
    """

    are_features = True
    groups: Sequence[Path] = ()
    window = 0

    def __init__(self, kind: str, segments: Sequence[Segment], places: np.ndarray) -> None:
        """Use the rows at `places` (N, 2), which contains each image's segment and row numbers."""
        self.kind, self.segments, self.places = kind, tuple(segments), places
        self._open = functools.lru_cache(OPEN_FILES)(_Descriptor)

    def __len__(self) -> int:
        return len(self.places)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one stored row: (h, w, D) for maps, (2, D) for pooled rows; () if N is 0."""
        return self.segments[self.places[0, 0]].shape if len(self.places) else ()

    def load(self, indices: Sequence[int]) -> Tensor:
        """Return the rows at `indices`, float16: maps (B, D, h, w), or pooled (B, 2, D).

        Thread-safe. The files are read, not memory-mapped, because mapped pages would count towards
        process memory. Raises InputError for a file that is truncated, damaged or deleted.
        """
        rows = np.empty((len(indices), *self.shape), np.float16)
        places = self.places[np.asarray(indices, dtype=np.intp)].tolist()
        for values, (number, row) in zip(rows, places, strict=True):
            segment = self.segments[number]
            try:
                file = self._open(segment.path)
                offset = segment.start + row * values.nbytes
                count = _read_at(file.number, values, offset)
            except OSError as error:
                raise InputError(
                    f"{segment.path} cannot be read: {error.strerror}; run the command again to "
                    "recompute it"
                ) from error
            if count != values.nbytes:
                raise InputError(
                    f"{segment.path} is truncated; run the command again to recompute it"
                )
        if not np.isfinite(rows).all():
            raise InputError(
                f"rows in {self._damaged(places, rows)} are damaged; delete the file, and run the "
                "command again to recompute it"
            )
        features = torch.from_numpy(rows)
        return features.permute(0, 3, 1, 2) if self.kind == "maps" else features

    def _damaged(self, places: list[list[int]], rows: np.ndarray) -> Path:
        """Return the file of the first row that contains a non-finite value."""
        row = int(np.flatnonzero(~np.isfinite(rows).reshape(len(rows), -1).all(1))[0])
        return self.segments[places[row][0]].path


class FeatureStore:
    """The features of one encoder in a cache directory; `open` finds or computes rows."""

    def __init__(self, cache: Path, encoder: Encoder, transform: Transform) -> None:
        self.encoder, self.transform = encoder, transform
        about = {"format": FORMAT, "encoder": encoder.name, "weights": encoder.fingerprint()}
        about |= {"transform": transform.to_dict()}
        key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:20]
        self.directory = (cache / f"features-{key}").resolve()
        self._about = about

    def open_files(
        self, images: ImageSource, runtime: "Runtime", kind: str = "maps"
    ) -> StoredFeatures:
        """Return the rows of image files by calling `open` with the files' stamps."""
        return self.open(images, [stamp(path) for path in images.paths], runtime, kind)

    def open(
        self,
        images: Source,
        stamps: Sequence[bytes],
        runtime: "Runtime",
        kind: str = "maps",
    ) -> StoredFeatures:
        """Return the rows of these images, in order; compute and store missing rows first.

        images: a source of pixels. stamps: for each image, bytes that change with its content.
        kind: "maps", which also stores pooled rows, or "pooled", computed from stored maps if
        possible. Raises InputError for an image that cannot be read, for features that are not
        finite in half precision, and for a cache that cannot be written.
        """
        keys = keys_of(stamps)
        try:
            self._prepare()
            log.debug("%d rows of %s from %s", len(keys), kind, self.directory)
            if len(missing := self._missing(keys, kind)):
                with progress_bar(total=len(missing), desc="features", unit="image") as bar:
                    while len(missing):
                        chunk = self._next_chunk(missing)
                        self._compute(images, keys, chunk, kind, runtime, bar)
                        missing = self._missing(keys, kind)  # another process may have added some
        except OSError as error:
            raise InputError(
                f"the feature store {self.directory} cannot be written: {error}; free some disk "
                "space or choose another cache directory"
            ) from error
        segments, places = self._find(keys, kind)
        return StoredFeatures(kind, segments, places)

    # ---- reading ----

    def _find(self, keys: np.ndarray, kind: str) -> tuple[list[Segment], np.ndarray]:
        """Return the segments, and each key's segment number and row (N, 2), or -1 if missing."""
        wanted, inverse = np.unique(keys, return_inverse=True)
        places = np.full((len(wanted), 2), -1, dtype=np.int64)
        segments: list[Segment] = []
        if not len(keys):
            return segments, places
        for number, (segment, stored) in enumerate(read_segments(self.directory, kind)):
            segments.append(segment)
            at = np.searchsorted(wanted, stored).clip(max=len(wanted) - 1)
            rows = np.flatnonzero(wanted[at] == stored)
            places[at[rows], 0], places[at[rows], 1] = number, rows
        return segments, places[inverse]

    def _missing(self, keys: np.ndarray, kind: str) -> np.ndarray:
        """Return the indices of the images without a row, in order, one per distinct key."""
        _, places = self._find(keys, kind)
        missing = np.flatnonzero(places[:, 0] < 0)
        _, first = np.unique(keys[missing], return_index=True)
        return missing[np.sort(first)]

    # ---- writing ----

    def _prepare(self) -> None:
        """Create the directory and store.json, and delete what killed processes left behind."""
        self.directory.mkdir(parents=True, exist_ok=True)
        about = self.directory / "store.json"
        if not read_about(self.directory)[1]:  # missing or damaged
            atomic_write(about, json.dumps(self._about, indent=1) + "\n")
        remove_abandoned(self.directory)

    def _next_chunk(self, missing: np.ndarray) -> np.ndarray:
        """Return up to SEGMENT missing images: the first ones, or a random slice of that length.

        The slice is random if other processes are writing, so that they compute other images.
        """
        if not any(self.directory.glob(".*.part")):
            return missing[:SEGMENT]
        first = secrets.randbelow(-(-len(missing) // SEGMENT)) * SEGMENT
        return missing[first : first + SEGMENT]

    def _compute(
        self,
        images: Source,
        keys: np.ndarray,
        chunk: np.ndarray,
        kind: str,
        runtime: "Runtime",
        bar: "tqdm[Any]",
    ) -> None:
        """Append a segment with the rows of the images `chunk`."""
        pooled: list[np.ndarray] = []

        def maps() -> Iterator[np.ndarray]:  # (B, h, w, D), float16
            for values in self._features(images, keys, chunk, kind, runtime):
                if not np.isfinite(values).all():
                    raise InputError(
                        f"features of {self.encoder.name} cannot be stored: they are not finite in "
                        "half precision; choose other encoder weights"
                    )
                pooled.append(pool(values))
                yield values
                bar.update(len(values))

        if kind == "maps":
            self._append("maps", maps(), keys[chunk])
        else:
            for _ in maps():
                pass
        self._append("pooled", iter(pooled), keys[chunk])

    def _features(
        self, images: Source, keys: np.ndarray, chunk: np.ndarray, kind: str, runtime: "Runtime"
    ) -> Iterator[np.ndarray]:
        """Yield a chunk's maps (B, h, w, D), float16; compute them unless all are stored."""
        size = runtime.batch_size
        batches = [chunk[i : i + size] for i in range(0, len(chunk), size)]
        segments, places = self._find(keys[chunk], "maps") if kind == "pooled" else ([], None)
        if places is not None and (places[:, 0] >= 0).all():
            stored = StoredFeatures("maps", segments, places)
            for first in range(0, len(chunk), size):
                rows = range(first, min(first + size, len(chunk)))
                yield stored.load(rows).permute(0, 2, 3, 1).numpy()
            return
        pin = runtime.device.type == "cuda"
        loaded = load_ahead(lambda b: images.load(b.tolist()), batches, runtime.workers, pin=pin)
        self.encoder.eval()
        with torch.inference_mode():
            for pixels in loaded:
                name, device = self.encoder.name, runtime.device
                tried = f"encoding {len(pixels)} images with {name} on {device}"
                with memory_advice(tried, "pass a smaller --image-size or another --encoder"):
                    features = self.encoder(pixels.to(runtime.device, non_blocking=True))
                yield features.permute(0, 2, 3, 1).half().cpu().numpy()

    def _append(self, kind: str, batches: Iterator[np.ndarray], keys: np.ndarray) -> None:
        """Write one segment batch by batch; discard it if another process has stored its rows."""
        name = f"{kind}-{uuid.uuid4().hex}"
        rows_part, keys_part = (self.directory / f".{name}{end}.part" for end in (ROWS, KEYS))
        try:
            with rows_part.open("xb") as file:
                _write_rows(file, batches, len(keys))
            with keys_part.open("xb") as file:
                np.save(file, keys)
                _sync(file)
            if (self._find(keys, kind)[1] >= 0).all():
                return
            # Keys first: a process killed between the two renames leaves only the small file.
            keys_part.rename(self.directory / f"{name}{KEYS}")
            rows_part.rename(self.directory / f"{name}{ROWS}")
        finally:
            rows_part.unlink(missing_ok=True)
            keys_part.unlink(missing_ok=True)


@dataclass(frozen=True)
class Runtime:
    """Settings for computing missing rows: device, prefetching threads and batch size."""

    device: torch.device
    workers: int = 0
    batch_size: int = 64


def _write_rows(file: IO[bytes], batches: Iterator[np.ndarray], count: int) -> None:
    """Write batches of `count` rows in total in NumPy's format.

    A writable memory map is not used, because a full disk would kill the process without an error.
    """
    for number, values in enumerate(batches):
        if number == 0:
            descr = np.lib.format.dtype_to_descr(values.dtype)
            header = {"descr": descr, "fortran_order": False, "shape": (count, *values.shape[1:])}
            np.lib.format.write_array_header_1_0(file, header)
        file.write(values.tobytes())
    _sync(file)


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def pool(maps: np.ndarray) -> np.ndarray:
    """Reduce maps (B, h, w, D) to their mean and maximum over positions (B, 2, D), float16."""
    flat = maps.reshape(len(maps), -1, maps.shape[-1])
    mean = flat.mean(1, dtype=np.float32)
    return np.stack([mean.astype(np.float16), flat.max(1)], axis=1)


def keys_of(stamps: Sequence[bytes]) -> np.ndarray:
    """Return the keys (N,) of the stamps: the first 16 bytes of each stamp's SHA-256 digest."""
    return np.array([hashlib.sha256(stamp).digest()[:16] for stamp in stamps], dtype=KEY_TYPE)
