"""Small copies of images in memory, as the targets of an image decoder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..console import progress_bar
from ..prefetch import load_ahead
from .images import load_image
from .storage.location import Location

CHUNK = 64  # images loaded at once


def load_thumbnails(paths: Sequence[Path | Location], size: int, workers: int) -> Tensor:
    """Return images as RGB pixels (B, 3, size, size), uint8, regardless of their aspect ratio.

    A thumbnail of 32 x 32 pixels takes 3 kB. workers: number of threads that decode images.
    """

    def load(first: int) -> np.ndarray:
        chunk = [load_image(path) for path in paths[first : first + CHUNK]]
        small = [image.resize((size, size), Image.Resampling.BOX) for image in chunk]
        return np.stack([np.asarray(image) for image in small]).transpose(0, 3, 1, 2)

    thumbnails = torch.empty(len(paths), 3, size, size, dtype=torch.uint8)
    with progress_bar(total=len(paths), desc="thumbnails", unit="image") as bar:
        first = 0
        for values in load_ahead(load, range(0, len(paths), CHUNK), workers):
            thumbnails[first : first + len(values)] = torch.from_numpy(values.copy())
            first += len(values)
            bar.update(len(values))
    return thumbnails
