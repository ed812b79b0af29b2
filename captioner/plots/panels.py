"""Panels of a caption: the image alone, then overlaid with each word's map.

Shapes: T words, (h, w) attention grid.
"""

from collections.abc import Iterator

import numpy as np
from PIL import Image

from .overlays import overlay

MAX_RATIO = 3  # maximum ratio of a panel's sides; an image in a narrower panel would be illegible


def panel_size(image: Image.Image, side: int) -> tuple[int, int]:
    """Return the width and height of the image's panels.

    Their area is about `side` ** 2 pixels; their aspect ratio is that of the image, clamped to the
    range from 1:3 to 3:1.
    """
    root = clipped_ratio(image) ** 0.5
    return round(side * root), round(side / root)


def clipped_ratio(image: Image.Image) -> float:
    """Return the aspect ratio (width / height) of the image, clamped to [1/3, 3]."""
    return min(max(image.width / image.height, 1 / MAX_RATIO), MAX_RATIO)


def draw_panels(
    image: Image.Image, attention: np.ndarray | None, offset: float, vmax: float | None = None
) -> list[Image.Image]:
    """Return the RGB image, and the image overlaid with each map of `(T, h, w)`, in equal sizes.

    If `attention` is None, there are no overlays. The overlays share one colour scale and have 6
    bits per channel, which halves the size of PNG files without a visible difference. offset: as in
    `overlays.upsample`. vmax: as in `overlay_each`.
    """
    if attention is None:
        return [image]
    overlays = overlay_each(image, attention, offset, vmax)
    return [image, *(each.point(lambda value: value & 0xFC) for each in overlays)]


def overlay_each(
    image: Image.Image, attention: np.ndarray, offset: float, vmax: float | None = None
) -> Iterator[Image.Image]:
    """Yield the image overlaid with each map of `(T, h, w)`.

    The overlays share one colour scale, from 0 to `vmax`; None means the maximum of all maps.
    """
    vmax = vmax or float(attention.max(initial=0)) or None
    return (overlay(image, each, vmax=vmax, offset=offset) for each in attention)
