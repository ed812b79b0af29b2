"""Features of a frozen encoder on disk, a row per image, shared by every run and command.

A store belongs to one encoder, its weights and the transform. A row is found by the stamp of its
image, so that adding, removing or splitting images in another way computes only what is new. Rows
are appended in segments, each written under a temporary name and renamed when it is whole: a
process that is killed loses the segment at hand, and several processes may fill one store.

    features-KEY/
      store.json          what the store is of
      maps-ID.npy         (n, h, w, D) half precision: an image is one contiguous read
      pooled-ID.npy       (n, 2, D) half precision: mean and maximum over the positions
      maps-ID.keys.npy    (n,) 16 bytes: the keys of the images, in the order of the rows

Shapes: N images, B of them at once, D channels, h, w grid.
"""

import hashlib
import json
import os
import secrets
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..atomic_io import atomic_write
from ..data.images import Transform
from ..errors import InputError
from ..prefetch import load_ahead
from .encoders import Encoder

FORMAT = 2
SEGMENT = 512  # images of a segment: what a killed process may lose
ABANDONED = 3600  # seconds without a write after which a temporary file is of a killed process


@dataclass(frozen=True)
class Segment:
    """One file of rows: where the rows start in it, and the shape and bytes of one row."""

    path: Path
    start: int
    count: int
    shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        return int(np.prod(self.shape)) * 2


class StoredFeatures:
    """Stored rows of a list of images, read as they are asked for; memory does not grow.

    kind: "maps" or "pooled". Has the attributes of a `Source`.
    """

    are_features = True
    groups: Sequence[Path] = ()
    window = 0

    def __init__(self, kind: str, segments: Sequence[Segment], places: np.ndarray) -> None:
        """places (N, 2): of each image, the number of its segment and the row in it."""
        self.kind, self.segments, self.places = kind, tuple(segments), places

    def __len__(self) -> int:
        return len(self.places)

    def load(self, indices: Sequence[int]) -> Tensor:
        """The rows at `indices`, float16: maps (B, D, h, w), or pooled (B, 2, D).

        Threads may call it at once. The files are not mapped: mapped pages would count as memory of
        the process. Raises InputError for a file that was cut short.
        """
        first = self.segments[self.places[indices[0], 0]]
        rows = np.empty((len(indices), *first.shape), np.float16)
        for values, index in zip(rows, indices, strict=True):
            number, row = self.places[index]
            segment = self.segments[number]
            with segment.path.open("rb", buffering=0) as file:
                offset = segment.start + int(row) * segment.row_bytes
                if os.preadv(file.fileno(), [values], offset) != segment.row_bytes:
                    raise InputError(f"{segment.path} was cut short; delete {segment.path.parent}")
        features = torch.from_numpy(rows)
        return features.permute(0, 3, 1, 2) if self.kind == "maps" else features


class FeatureStore:
    """The features of one encoder under a cache directory; `open` finds or computes rows."""

    def __init__(self, cache: Path, encoder: Encoder, transform: Transform) -> None:
        self.encoder, self.transform = encoder, transform
        about = {"format": FORMAT, "encoder": encoder.name, "weights": encoder.fingerprint()}
        about |= {"transform": json.loads(json.dumps(asdict(transform)))}
        key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:20]
        self.directory = (cache / f"features-{key}").resolve()
        self._about = about

    def open(
        self,
        images: Any,
        stamps: Sequence[bytes],
        runtime: "Runtime",
        kind: str = "maps",
    ) -> StoredFeatures:
        """Rows of these images, of which those that are missing are computed and stored now.

        images: a source of pixels, `load(indices) -> (B, 3, S, S)`. stamps: of each image, bytes
        that change with its content. kind: "maps", which stores pooled rows as well, or "pooled"
        alone, from stored maps where there are any. Raises InputError for an image that cannot be
        read, for features that half precision cannot hold, and where the cache cannot be written.
        """
        keys = _keys(stamps)
        try:
            self._prepare()
            if len(missing := self._missing(keys, kind)):
                with tqdm(total=len(missing), desc="features", unit="image", leave=False) as bar:
                    while len(missing):
                        chunk = self._next_chunk(missing)
                        self._compute(images, keys, chunk, kind, runtime, bar)
                        missing = self._missing(keys, kind)  # another process may have added some
        except OSError as error:
            raise InputError(
                f"the feature store {self.directory} cannot be written: {error}"
            ) from error
        segments, places = self._find(keys, kind)
        return StoredFeatures(kind, segments, places)

    # ---- reading ----

    def _segments(self, kind: str) -> Iterator[tuple[Segment, np.ndarray]]:
        """The whole segments of a kind and their keys (n,), by name."""
        for keys_path in sorted(self.directory.glob(f"{kind}-*.keys.npy")):
            path = keys_path.with_name(keys_path.name.replace(".keys.npy", ".npy"))
            try:
                segment, keys = _read_header(path), np.load(keys_path)
            except (OSError, ValueError):  # pruned meanwhile, or damaged: as if it were not there
                continue
            if segment.count == len(keys):
                yield segment, keys

    def _find(self, keys: np.ndarray, kind: str) -> tuple[list[Segment], np.ndarray]:
        """The segments, and for each key (N, 2) the segment and row, -1 where it is missing."""
        wanted, inverse = np.unique(keys, return_inverse=True)
        places = np.full((len(wanted), 2), -1, dtype=np.int64)
        segments = []
        for number, (segment, stored) in enumerate(self._segments(kind)):
            segments.append(segment)
            at = np.searchsorted(wanted, stored).clip(max=len(wanted) - 1)
            rows = np.flatnonzero(wanted[at] == stored)
            places[at[rows], 0], places[at[rows], 1] = number, rows
        return segments, places[inverse]

    def _missing(self, keys: np.ndarray, kind: str) -> np.ndarray:
        """Indices of the images without a row, in order, each key once."""
        _, places = self._find(keys, kind)
        missing = np.flatnonzero(places[:, 0] < 0)
        _, first = np.unique(keys[missing], return_index=True)
        return missing[np.sort(first)]

    # ---- writing ----

    def _prepare(self) -> None:
        """Create the directory, and delete what killed processes left."""
        self.directory.mkdir(parents=True, exist_ok=True)
        about = self.directory / "store.json"
        if not about.exists():
            atomic_write(about, json.dumps(self._about, indent=1) + "\n")
        for part in self.directory.glob(".*.part"):
            try:
                if time.time() - part.stat().st_mtime > ABANDONED:
                    part.unlink()
            except FileNotFoundError:  # its process has just finished
                continue

    def _next_chunk(self, missing: np.ndarray) -> np.ndarray:
        """The first SEGMENT missing images, or others while another process writes to the store."""
        if not any(self.directory.glob(".*.part")):
            return missing[:SEGMENT]
        first = secrets.randbelow(-(-len(missing) // SEGMENT)) * SEGMENT
        return missing[first : first + SEGMENT]

    def _compute(
        self,
        images: Any,
        keys: np.ndarray,
        chunk: np.ndarray,
        kind: str,
        runtime: "Runtime",
        bar: "tqdm[Any]",
    ) -> None:
        """Append a segment with the rows of the images `chunk`."""
        maps, pooled = [], []
        for values in self._features(images, keys, chunk, kind, runtime):  # (B, h, w, D) halves
            if not np.isfinite(values).all():
                raise InputError(
                    f"features of {self.encoder.name} cannot be stored: half precision cannot hold "
                    "them; train the encoder instead of freezing it"
                )
            if kind == "maps":
                maps.append(values)
            pooled.append(pool(values))
            bar.update(len(values))
        if maps:
            self._append("maps", np.concatenate(maps), keys[chunk])
        self._append("pooled", np.concatenate(pooled), keys[chunk])

    def _features(
        self, images: Any, keys: np.ndarray, chunk: np.ndarray, kind: str, runtime: "Runtime"
    ) -> Iterator[np.ndarray]:
        """Maps (B, h, w, D), float16, of a chunk: stored ones where all are, else computed."""
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
                features = self.encoder(pixels.to(runtime.device, non_blocking=True))
                yield features.permute(0, 2, 3, 1).half().cpu().numpy()

    def _append(self, kind: str, rows: np.ndarray, keys: np.ndarray) -> None:
        """Write one segment: the rows, then the keys, whose presence makes it whole."""
        name = f"{kind}-{uuid.uuid4().hex}"
        for ending, array in ((".npy", rows), (".keys.npy", keys)):
            part = self.directory / f".{name}{ending}.part"
            try:
                with part.open("wb") as file:
                    np.save(file, np.ascontiguousarray(array))
                    file.flush()
                    os.fsync(file.fileno())
                part.rename(self.directory / f"{name}{ending}")
            finally:
                part.unlink(missing_ok=True)


@dataclass(frozen=True)
class Runtime:
    """Where missing rows are computed: the device, threads that load ahead, images at once."""

    device: torch.device
    workers: int = 0
    batch_size: int = 64


def _read_header(path: Path) -> Segment:
    """Where the rows of a segment start, and their shape; raises ValueError for a damaged file."""
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        segment = Segment(path, file.tell(), shape[0], shape[1:])
    if dtype != np.float16 or path.stat().st_size != segment.start + shape[0] * segment.row_bytes:
        raise ValueError(f"{path} is not a whole segment")
    return segment


def pool(maps: np.ndarray) -> np.ndarray:
    """Maps (B, h, w, D) -> mean and maximum over the positions (B, 2, D), float16."""
    flat = maps.reshape(len(maps), -1, maps.shape[-1])
    mean = flat.mean(1, dtype=np.float32)
    return np.stack([mean.astype(np.float16), flat.max(1)], axis=1)


def _keys(stamps: Sequence[bytes]) -> np.ndarray:
    """A key of 16 bytes (N,) for each stamp: the beginning of its SHA-256."""
    return np.array([hashlib.sha256(stamp).digest()[:16] for stamp in stamps], dtype="S16")


# ---- what a cache holds -------------------------------------------------------------------------


@dataclass(frozen=True)
class StoreInfo:
    """A store in a cache: what it is of, how many images have maps and pooled rows, its bytes."""

    directory: Path
    encoder: str
    size: int
    maps: int
    pooled: int
    bytes: int
    used: float  # when it was last written, in seconds since 1970


def list_stores(cache: Path) -> list[StoreInfo]:
    """The stores in a cache directory, least recently written first."""
    found = []
    for about in cache.glob("features-*/store.json"):
        directory = about.parent
        try:
            content = json.loads(about.read_text(encoding="utf-8"))
            files = list(directory.iterdir())
            counts = {
                kind: sum(len(np.load(file)) for file in directory.glob(f"{kind}-*.keys.npy"))
                for kind in ("maps", "pooled")
            }
            found.append(
                StoreInfo(
                    directory,
                    content["encoder"],
                    content["transform"]["size"],
                    counts["maps"],
                    counts["pooled"],
                    sum(file.stat().st_size for file in files),
                    max(file.stat().st_mtime for file in files),
                )
            )
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return sorted(found, key=lambda store: store.used)
