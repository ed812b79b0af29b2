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
    """Write a square PNG or JPEG file of thumbnails; return the indices of unreadable images.

    points: positions (N, 2), the second coordinate upwards. load: returns the i-th image in RGB, or
    None if it cannot be read; its cell is then grey. side: side of the mosaic in pixels. A
    thumbnail is a square cropped from the centre of its image, in the free cell closest to its
    point (see `cells`). The format is PNG if the name ends in .png, and JPEG otherwise; the file is
    replaced atomically. Raises InputError in the same cases as `check_side` and `cells`.
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
    """Raise InputError if a mosaic is too large, or too small for thumbnails of 16 pixels.

    images: number of images, at least 1. side: side of the mosaic in pixels, at most 20,000.
    """
    if side > MAX_SIDE:
        raise InputError(
            f"a mosaic may have at most {MAX_SIDE:,} pixels per side, got {side:,}; draw a smaller "
            "one"
        )
    if side < (needed := MIN_CELL * cells_per_side(images)):
        raise InputError(
            f"a mosaic of {images:,} images needs at least {needed:,} pixels per side, got "
            f"{side:,}; draw fewer images or a larger mosaic"
        )


def cells_per_side(count: int) -> int:
    """Return the number of columns, which is also that of rows, of a grid for `count` images."""
    return ceil(sqrt(count / FILLED))


def cells(points: np.ndarray) -> np.ndarray:
    """Assign each point (N, 2) a cell of its own; return the columns and rows (N, 2), int64.

    The grid has `cells_per_side` columns and rows and spans the range of the points; row 0 is at
    the top. Points close to the mean of all points are assigned first; each gets the free cell
    whose centre is closest. Raises InputError for points that are not finite or have another shape.
    """
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2:
        raise InputError(f"points must have shape (N, 2), got {points.shape}")
    if not np.isfinite(points).all():
        raise InputError("points must be finite, got NaN or infinity")
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
