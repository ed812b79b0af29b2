"""Panels of a caption: the image, then the image under each word's map.

Shapes: T words, h, w attention grid.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageFont

from .overlays import overlay

MAX_RATIO = 3  # of the sides of a panel; the image of a narrower strip would be unreadable


def panel_size(image: Image.Image, side: int) -> tuple[int, int]:
    """Width and height of the image's panels: the area of a square of `side` pixels.

    The ratio is the image's, within 1:3 and 3:1.
    """
    root = clipped_ratio(image) ** 0.5
    return round(side * root), round(side / root)


def clipped_ratio(image: Image.Image) -> float:
    """Width over height, limited to 1/3 to 3."""
    return min(max(image.width / image.height, 1 / MAX_RATIO), MAX_RATIO)


def draw_panels(
    image: Image.Image, attention: np.ndarray | None, offset: float
) -> list[Image.Image]:
    """The RGB image, then its overlay with each map of `(T, h, w)`, all of the image's size.

    The overlays share one colour scale and have 6 bits per channel, which halves PNG files without
    a visible difference. offset: as in `overlays.upsample`.
    """
    if attention is None:
        return [image]
    overlays = overlay_each(image, attention, offset)
    return [image, *(each.point(lambda value: value & 0xFC) for each in overlays)]


def overlay_each(image: Image.Image, attention: np.ndarray, offset: float) -> Iterator[Image.Image]:
    """The image's overlay with each map of `(T, h, w)`.

    They share one colour scale, from 0 to the strongest cell of the caption.
    """
    vmax = float(attention.max(initial=0)) or None
    return (overlay(image, each, vmax=vmax, offset=offset) for each in attention)


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and has the letters of most languages."""
    import matplotlib

    directory = Path(matplotlib.get_data_path(), "fonts", "ttf")
    return ImageFont.truetype(directory / "DejaVuSans.ttf", size)
