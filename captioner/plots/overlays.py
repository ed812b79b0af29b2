"""Attention maps, upsampled to the size of an image and blended over it.

Shapes: (h, w) attention grid, (H, W) image pixels.
"""

import math

import numpy as np
from PIL import Image

from ..errors import InputError

COLORMAP = "inferno"
GAMMA = 0.6  # of the colour scale; with 1, one sharp map would make all broad maps black
# Text colours on white; WCAG 2.2 AA requires a contrast of 4.5, and DIM has 4.9.
INK, DIM = "#141414", "#707070"
DIMMED_WORDS = frozenset(
    "a an and are as at be by for from has have he her his in into is it its next of off on onto "
    "or out over she some that the their them there these they this to up was were while "
    "with".split()
)


def is_dimmed(word: str) -> bool:
    """Return whether a word, such as "a" or "of", names nothing visible and is drawn in DIM."""
    return word.lower() in DIMMED_WORDS


def upsample(attention: np.ndarray, size: tuple[int, int], offset: float = 0.0) -> np.ndarray:
    """Upsample maps `(..., h, w)` smoothly to `(..., H, W)` for `size=(H, W)`.

    Cell (i, j) covers the pixels [i*H/h, (i+1)*H/h) x [j*W/w, (j+1)*W/w). Its value is placed at
    their centre, shifted down and to the right by `offset` cells (-0.5 to 0.5). Interpolation is a
    monotone cubic (Steffen 1990), which stays within the range of the surrounding cells, so that no
    map becomes negative and the maximum stays in the same cell. Raises InputError for an offset
    that is out of range.
    """
    attention = np.asarray(attention, dtype=np.result_type(attention, np.float32))
    if not -0.5 <= offset <= 0.5:
        raise InputError(f"offset must be between -0.5 and 0.5 cells, got {offset}")
    tall = _interpolate(attention.swapaxes(-1, -2), size[0], offset)  # (..., w, H)
    return _interpolate(tall.swapaxes(-1, -2), size[1], offset)


def overlay(
    image: Image.Image, attention: np.ndarray, *, vmax: float | None = None, offset: float = 0.0
) -> Image.Image:
    """Blend the attention `(h, w)` in colour over a dark grey copy of the image.

    Returns an RGB image of the same size. Colour and opacity increase with attention from 0 to
    `vmax`; None uses the map's maximum. offset: position of a cell's value, as in `upsample`; use
    `Encoder.offset`. Raises InputError if the map has any other shape, or negative or non-finite
    values, if `vmax` is not finite and above 0, and as `upsample` does.
    """
    attention = check_maps(attention, 2)
    if vmax is None:
        vmax = float(attention.max())
    elif not 0 < vmax < math.inf:
        raise InputError(f"vmax must be finite and above 0, got {vmax}")
    return _blend(image.convert("RGB"), attention, vmax, offset)


def palette() -> np.ndarray:
    """Return the 256 colours of the scale in ascending order, (256, 3), in [0, 1]."""
    from matplotlib import colormaps

    colors: np.ndarray = colormaps[COLORMAP](np.arange(256))[:, :3]
    return np.asarray(colors, dtype=np.float32)


def check_maps(attention: np.ndarray, ndim: int) -> np.ndarray:
    """Return maps with `ndim` axes as float32.

    Raises InputError for another number of axes, an empty grid, and negative or non-finite values.
    """
    attention = np.asarray(attention, dtype=np.float32)
    if attention.ndim != ndim or 0 in attention.shape[-2:]:
        expected = "(T, h, w)" if ndim == 3 else "(h, w)"
        raise InputError(
            f"attention must have shape {expected} with at least one cell, got {attention.shape}"
        )
    if not np.isfinite(attention).all() or (attention < 0).any():
        found = f"values from {attention.min()} to {attention.max()}"
        raise InputError(f"attention must be finite and non-negative, got {found}")
    return attention


def _interpolate(values: np.ndarray, length: int, offset: float) -> np.ndarray:
    """Resample the last axis to `length` with Steffen's cubic; `offset` is as in `upsample`."""
    cells = values.shape[-1]
    values = np.concatenate(
        [values[..., :1], values, values[..., -1:]], axis=-1
    )  # constant outside
    steps = np.diff(values)  # (..., cells + 1)
    before, after = steps[..., :-1], steps[..., 1:]
    steepest = np.minimum(np.minimum(abs(before), abs(after)), abs(before + after) / 4)
    slopes = (np.sign(before) + np.sign(after)) * steepest
    flat = np.zeros_like(values[..., :1])
    slopes = np.concatenate([flat, slopes, flat], axis=-1)

    position = (np.arange(length) + 0.5) * cells / length + 0.5 - offset  # in padded cells
    left = np.floor(position).astype(int)
    t = (position - left).astype(values.dtype)
    p, q, p_slope, q_slope = (a[..., left + k] for a in (values, slopes) for k in (0, 1))
    resampled: np.ndarray = (
        p
        + t * p_slope
        + t**2 * (3 * (q - p) - 2 * p_slope - q_slope)
        + t**3 * (p_slope + q_slope - 2 * (q - p))
    )
    return resampled


def _blend(image: Image.Image, attention: np.ndarray, vmax: float, offset: float) -> Image.Image:
    # report.html does the same in JavaScript; tests compare the two.
    strength = upsample(attention, (image.height, image.width), offset) / (vmax or 1)  # (H, W)
    strength = strength.clip(0, 1)[..., None] ** GAMMA
    grey = np.asarray(image.convert("L"), dtype=np.float32)[..., None] / 255  # (H, W, 1)
    color = palette()[np.rint(strength[..., 0] * 255).astype(np.uint8)]  # (H, W, 3)
    color *= 0.8 + 0.35 * grey  # keeps the image visible as a relief
    opacity = 0.05 + 0.65 * strength
    blended = (1 - opacity) * 0.65 * grey + opacity * color
    return Image.fromarray(np.rint(blended.clip(0, 1) * 255).astype(np.uint8))
