"""Cache on disk of a frozen encoder's feature maps.

Shapes: N images, B images of a batch, D channels, h, w grid. The file holds (N, h, w, D) floats
of half precision, so that an image is one contiguous read and a batch is in channels-last order.
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
from ..data.storage import files as storage
from ..errors import InputError
from ..prefetch import load_ahead
from .encoders import Encoder

FORMAT = 1  # part of the key
ABANDONED_AFTER = 3600  # seconds


class FeatureSource:
    """Feature maps of a list of images, read from disk when they are loaded.

    Files are read rather than mapped: mapped pages would count as the process's own memory.
    """

    are_features = True
    groups: Sequence[Path] = ()  # any order of the images is equally fast
    window = 0

    def __init__(self, directory: Path) -> None:
        self.file = (directory / "maps.npy").resolve()
        maps = np.load(self.file, mmap_mode="r")  # reads the header only
        self.shape, self.dtype, self.offset = maps.shape, maps.dtype, maps.offset

    def load(self, indices: Sequence[int]) -> Tensor:
        """Maps (B, D, h, w) of the images at `indices`, float16; several threads may call it.

        Raises InputError if the file is cut short.
        """
        maps = np.empty((len(indices), *self.shape[1:]), self.dtype)
        with self.file.open("rb", buffering=0) as file:
            for values, index in zip(maps, indices, strict=True):
                offset = self.offset + index * values.nbytes
                if os.preadv(file.fileno(), [values], offset) != values.nbytes:
                    raise InputError(f"{self.file} is cut short; delete its directory")
        return torch.from_numpy(maps).permute(0, 3, 1, 2)


def cache_key(encoder: Encoder, images: ImageSource) -> str:
    """20 hexadecimal digits that change with whatever the feature maps depend on.

    That is the encoder and its weights, the transform, and the order and stamps of the images.
    """
    digest = hashlib.sha256(f"{FORMAT} {encoder.fingerprint()}".encode())
    digest.update(json.dumps(asdict(images.transform), sort_keys=True).encode())
    for path in images.paths:
        digest.update(storage.stamp(path))
    return digest.hexdigest()[:20]


def cached_features(
    directory: Path,
    encoder: Encoder,
    images: ImageSource,
    *,
    device: torch.device,
    workers: int = 0,
    batch_size: int = 64,
) -> FeatureSource:
    """The feature maps of these images from the cache in `directory`, computed if it lacks them.

    The maps are written to a directory with a unique name, which is renamed once it is complete;
    several processes may do so at once. Raises InputError for an image that cannot be read and for
    a directory that cannot be written.
    """
    target = directory / f"features-{cache_key(encoder, images)}"
    if target.is_dir():
        return FeatureSource(target)
    part = directory / f"features-part-{uuid.uuid4().hex}"
    try:
        part.mkdir(parents=True)
        _remove_abandoned(directory)
        _compute(part / "maps.npy", encoder, images, device, workers, batch_size)
        part.rename(target)
    except OSError as error:
        if not target.is_dir():  # else another process was faster
            raise InputError(
                f"the feature cache in {directory} cannot be written: {error}"
            ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return FeatureSource(target)


def _compute(
    file: Path,
    encoder: Encoder,
    images: ImageSource,
    device: torch.device,
    workers: int,
    batch_size: int,
) -> None:
    """Write the feature maps of all images to `file`, in NumPy's format."""
    count = len(images.paths)
    batches = [range(count)[i : i + batch_size] for i in range(0, count, batch_size)]
    encoder.eval()
    bar = tqdm(total=count, desc="features", unit="image")
    # Not through a writable memory map: a full disk kills the process there, without an error.
    with torch.inference_mode(), bar, file.open("wb") as maps:
        for pixels in load_ahead(images.load, batches, workers, pin=device.type == "cuda"):
            features = encoder(pixels.to(device, non_blocking=True)).permute(0, 2, 3, 1)
            values = features.half().cpu().numpy()
            if not np.isfinite(values).all():
                raise InputError(
                    f"features of {encoder.name} exceed half precision, so they cannot be cached; "
                    "choose other encoder weights"
                )
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
    """Delete what killed processes left: parts that were not written to for an hour."""
    for part in directory.glob("features-part-*"):
        try:
            written = max(path.stat().st_mtime for path in (part, *part.iterdir()))
        except FileNotFoundError:  # its process has just renamed it
            continue
        if time.time() - written > ABANDONED_AFTER:
            shutil.rmtree(part, ignore_errors=True)
