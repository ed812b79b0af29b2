"""The cache on disk of a frozen encoder's feature maps; nothing about captions.

Shapes: N images, D channels, h, w grid. On disk the maps lie as (N, h, w, D) half-precision
floats, so that an image is one contiguous read and a batch arrives in channels-last order.
"""

import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..data.sources import ImageSource
from ..data.storage import tar as shards
from ..errors import InputError
from ..prefetch import load_ahead
from .encoders import Encoder

FORMAT = 1


class FeatureCache:
    """Feature maps of a list of images, read from disk as they are asked for.

    Memory stays as it is however many are read: the file is not mapped, whose pages would count as
    the program's own.
    """

    def __init__(self, directory: Path) -> None:
        self.file = (directory / "maps.npy").resolve()
        maps = np.load(self.file, mmap_mode="r")  # for its header
        self.shape, self.dtype, self.first = maps.shape, maps.dtype, maps.offset

    def load(self, indices: Sequence[int]) -> Tensor:
        """Maps (B, D, h, w) of the images at `indices`, float16. Threads may call it at once."""
        maps = np.empty((len(indices), *self.shape[1:]), self.dtype)
        with self.file.open("rb", buffering=0) as file:
            for values, index in zip(maps, indices, strict=True):
                place = self.first + index * values.nbytes
                if os.preadv(file.fileno(), [values], place) != values.nbytes:
                    raise InputError(f"{self.file} is cut short; delete its directory")
        return torch.from_numpy(maps).permute(0, 3, 1, 2)


def cache_key(encoder: Encoder, files: ImageSource) -> str:
    """Changes with the encoder, its weights, the transform, and the images' order or content."""
    digest = hashlib.sha256(f"{FORMAT} {encoder.fingerprint()}".encode())
    digest.update(json.dumps(asdict(files.transform), sort_keys=True).encode())
    for path in files.paths:
        digest.update(shards.stamp(path))
    return digest.hexdigest()[:20]


def cached_features(
    directory: Path,
    encoder: Encoder,
    files: ImageSource,
    *,
    device: torch.device,
    workers: int = 0,
    batch_size: int = 64,
) -> FeatureCache:
    """The cache of these images under `directory`, computed now unless it is there already.

    A cache appears under its key only when it is whole: it is written beside and renamed. Raises
    InputError for an image that cannot be read, and for a directory that cannot be written.
    """
    target = directory / f"features-{cache_key(encoder, files)}"
    if target.is_dir():
        return FeatureCache(target)
    part = directory / f"features-part-{uuid.uuid4().hex}"
    try:
        part.mkdir(parents=True)
        _remove_abandoned(directory)
        _compute(part / "maps.npy", encoder, files, device, workers, batch_size)
        part.rename(target)
    except OSError as error:
        if not target.is_dir():  # else another run was quicker
            raise InputError(
                f"the feature cache in {directory} cannot be written: {error}"
            ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return FeatureCache(target)


def _compute(
    file: Path,
    encoder: Encoder,
    files: ImageSource,
    device: torch.device,
    workers: int,
    batch_size: int,
) -> None:
    count = len(files.paths)
    batches = [range(count)[i : i + batch_size] for i in range(0, count, batch_size)]
    encoder.eval()
    bar = tqdm(total=count, desc="features", unit="image")
    with torch.inference_mode(), bar, file.open("wb") as maps:  # a full disk kills a writing mmap
        for images in load_ahead(files.load, batches, workers, pin=device.type == "cuda"):
            features = encoder(images.to(device, non_blocking=True)).permute(0, 2, 3, 1)
            values = features.half().cpu().numpy()
            if not np.isfinite(values).all():
                raise InputError(f"{encoder.name} gives features that half precision cannot hold")
            if maps.tell() == 0:
                shape = (count, *values.shape[1:])
                descr = np.lib.format.dtype_to_descr(values.dtype)
                header = {"descr": descr, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(maps, header)
            maps.write(values.tobytes())
            bar.update(len(values))
        maps.flush()
        os.fsync(maps.fileno())


def _remove_abandoned(directory: Path) -> None:
    """Delete what killed runs left behind: what nobody has written to for an hour."""
    for part in directory.glob("features-part-*"):
        try:
            written = max(path.stat().st_mtime for path in (part, *part.iterdir()))
        except FileNotFoundError:  # its run has just finished
            continue
        if time.time() - written > 3600:
            shutil.rmtree(part, ignore_errors=True)
