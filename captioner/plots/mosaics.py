"""Mosaics: thumbnails of images at their positions on a plane, without overlaps.

Shapes: N images.
"""

import io
from collections.abc import Callable
from math import ceil, sqrt
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..atomic_io import atomic_write
from ..errors import InputError

FILLED = 0.6  # of the cells have a thumbnail, so that groups remain visible
MIN_CELL = 16  # pixels
MAX_SIDE = 20_000  # pixels; the mosaic then takes 1.2 GB of memory
QUALITY = 90  # of JPEG files
SUFFIXES = (".png", ".jpg", ".jpeg")


def draw_mosaic(
    path: Path, points: np.ndarray, load: Callable[[int], Image.Image | None], side: int
) -> list[int]:
    """Write a square PNG or JPEG file of the images' thumbnails; return those that are missing.

    points: positions (N, 2), the second coordinate upwards. load: returns an RGB image, or None if
    it cannot be read, in which case its cell stays grey. side: of the mosaic in pixels. Each
    thumbnail is the centre of its image, cropped to a square, in the free cell closest to its
    point (see `cells`). The format follows the suffix of `path`, which is replaced atomically.
    Raises InputError for the same sides as `check_side`.
    """
    check_side(len(points), side)
    count = cells_per_side(len(points))
    size = side // count
    canvas = Image.new("RGB", (side, side), "white")
    border, missing = (side - size * count) // 2, []
    for i, (column, row) in enumerate(cells(points).tolist()):
        image = load(i)
        if image is None:
            missing.append(i)
            image = Image.new("RGB", (1, 1), "#cccccc")
        thumbnail = ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
        canvas.paste(thumbnail, (border + column * size, border + row * size))
    content = io.BytesIO()
    if path.suffix.lower() == ".png":
        canvas.save(content, "PNG")
    else:
        canvas.save(content, "JPEG", quality=QUALITY)
    atomic_write(path, content.getvalue())
    return missing


def check_side(images: int, side: int) -> None:
    """Raise InputError for a mosaic of too many pixels, or of thumbnails of less than 16 pixels.

    images: number of images. side: of the mosaic in pixels, at most 20,000.
    """
    if side > MAX_SIDE:
        raise InputError(f"a mosaic may have at most {MAX_SIDE:,} pixels a side, got {side:,}")
    if side < (needed := MIN_CELL * cells_per_side(images)):
        raise InputError(
            f"a mosaic of {images:,} images needs at least {needed} pixels, got {side}; draw fewer "
            "images or a larger mosaic"
        )


def cells_per_side(count: int) -> int:
    """Return the number of columns and rows of the grid for a number of images."""
    return ceil(sqrt(count / FILLED))


def cells(points: np.ndarray) -> np.ndarray:
    """Return the column and row (N, 2), int64, of a cell for each point (N, 2), no two the same.

    The grid has `cells_per_side` columns and rows and spans the points' ranges; row 0 is at the
    top. Each point takes the free cell whose centre is closest, those near the middle of all
    points first. Raises InputError for points that are not finite.
    """
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise InputError(f"points must be finite, of shape (N, 2), got {points.shape}")
    count = cells_per_side(len(points))
    low, high = points.min(0), points.max(0)
    span = np.where(high > low, high - low, 1)
    places = (points - low) / span * count - 0.5  # in cells; the centre of the first cell is 0
    places[:, 1] = count - 1 - places[:, 1]
    columns, rows = np.meshgrid(np.arange(count), np.arange(count))
    centres = np.stack([columns.ravel(), rows.ravel()], axis=1)  # (cells, 2)
    free = np.ones(len(centres), bool)
    taken = np.empty((len(points), 2), np.int64)
    middle = np.linalg.norm(places - places.mean(0), axis=1)
    for i in np.argsort(middle, kind="stable"):
        distances = np.square(centres - places[i]).sum(1)
        cell = np.where(free, distances, np.inf).argmin()
        free[cell] = False
        taken[i] = centres[cell]
    return taken
