"""Groups of an image's cells, each in one colour over a grey copy of the image.

Shapes: (h, w) grid, (H, W) image pixels.
"""

import numpy as np
from PIL import Image

from .projections import GROUP_COLORS

OPACITY = 0.45


def draw_regions(image: Image.Image, groups: np.ndarray, offset: float = 0.0) -> Image.Image:
    """Return an RGB image of the same size, whose cells have the colours of their groups.

    groups (h, w): the group of each cell, from 0; colours repeat if there are more groups than
    colours. offset: shift of the cells, down and to the right, as in `overlays.upsample`. Colours
    are not interpolated, because the groups are known only for whole cells.
    """
    height, width = groups.shape
    rows = _cells(image.height, height, offset)
    columns = _cells(image.width, width, offset)
    shown = groups[np.ix_(rows, columns)]  # (H, W)
    grey = np.asarray(image.convert("L"), dtype=np.float32)[..., None]
    color = np.array(GROUP_COLORS)[shown % len(GROUP_COLORS)]
    blended = (1 - OPACITY) * grey + OPACITY * color
    return Image.fromarray(np.rint(blended).astype(np.uint8))


def _cells(length: int, cells: int, offset: float) -> np.ndarray:
    """Return the index of the cell, along one axis, that contains each of `length` pixels."""
    position = (np.arange(length) + 0.5) * cells / length - offset
    return np.floor(position).astype(int).clip(0, cells - 1)
