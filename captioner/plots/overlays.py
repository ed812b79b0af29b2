"""Attention as large as the image, and over it: what every drawing of the maps starts from.

Shapes: `h, w` the attention grid, `H, W` pixels of the image.
"""

import numpy as np
from PIL import Image

from ..errors import InputError

COLORMAP = "inferno"
GAMMA = 0.6  # of the colour scale: below 1, or one sharp map blackens all the broad ones
INK, DIM = "#141414", "#707070"  # of words on white; WCAG 2.2 AA asks for 4.5 to 1, DIM has 4.9
_FUNCTION_WORDS = frozenset(
    "a an and are as at be by for from has have he her his in into is it its next of off on onto "
    "or out over she some that the their them there these they this to up was were while "
    "with".split()
)


def is_dimmed(word: str) -> bool:
    """Whether the word names nothing that one could look at, like "a" and "of"; drawn in DIM."""
    return word.lower() in _FUNCTION_WORDS


def upsample(attention: np.ndarray, size: tuple[int, int], offset: float = 0.0) -> np.ndarray:
    """Maps `(..., h, w)` enlarged smoothly to `(..., H, W)` for `size=(H, W)`.

    Cell (i, j) covers the pixels [i*H/h, (i+1)*H/h) x [j*W/w, (j+1)*W/w). Its value stands at
    their centre, or `offset` cells (-0.5 to 0.5) below and to the right of it. In between runs a
    monotone cubic (Steffen 1990), so that nothing exceeds or undercuts the cells around it: no map
    turns negative and the strongest cell stays strongest.
    """
    attention = np.asarray(attention, dtype=np.result_type(attention, np.float32))
    if not -0.5 <= offset <= 0.5:
        raise InputError(f"offset must be from -0.5 to 0.5 cells, got {offset}")
    tall = _interpolate(attention.swapaxes(-1, -2), size[0], offset)  # (..., w, H)
    return _interpolate(tall.swapaxes(-1, -2), size[1], offset)


def overlay(
    image: Image.Image, attention: np.ndarray, *, vmax: float | None = None, offset: float = 0.0
) -> Image.Image:
    """The image in dimmed grey, coloured where the attention `(h, w)` lies; RGB, as large.

    Colour and opacity grow with the map from 0 to `vmax`, the map's own maximum where None.
    offset: where a cell's value stands, as in `upsample`; `Encoder.offset` is the right one.
    Raises InputError for maps of another shape, with negative or infinite values.
    """
    attention = check_maps(attention, 2)
    if vmax is None:
        vmax = float(attention.max())
    elif not vmax > 0:
        raise InputError(f"vmax must be above 0, got {vmax}")
    return _blend(image.convert("RGB"), attention, vmax, offset)


def palette() -> np.ndarray:
    """The 256 colours of the scale from nothing to most, (256, 3) from 0 to 1."""
    from matplotlib import colormaps

    return colormaps[COLORMAP](np.arange(256))[:, :3].astype(np.float32)


def check_maps(attention: np.ndarray, ndim: int) -> np.ndarray:
    """The maps as float32, InputError for any but `ndim` axes, finite and not negative."""
    attention = np.asarray(attention, dtype=np.float32)
    if attention.ndim != ndim or 0 in attention.shape[-2:]:
        wanted = "(T, h, w)" if ndim == 3 else "(h, w)"
        raise InputError(f"attention has the shape {wanted}, got {attention.shape}")
    if not np.isfinite(attention).all() or (attention < 0).any():
        raise InputError("attention must be finite and not negative")
    return attention


def _interpolate(values: np.ndarray, length: int, offset: float) -> np.ndarray:
    """The last axis resampled to `length` by Steffen's cubic, cells and pixels by their centres."""
    cells = values.shape[-1]
    values = np.concatenate([values[..., :1], values, values[..., -1:]], axis=-1)  # flat outside
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
    return (
        p
        + t * p_slope
        + t**2 * (3 * (q - p) - 2 * p_slope - q_slope)
        + t**3 * (p_slope + q_slope - 2 * (q - p))
    )


def _blend(image: Image.Image, attention: np.ndarray, vmax: float, offset: float) -> Image.Image:
    strength = upsample(attention, (image.height, image.width), offset) / (vmax or 1)  # (H, W)
    strength = strength.clip(0, 1)[..., None] ** GAMMA
    grey = np.asarray(image.convert("L"), dtype=np.float32)[..., None] / 255  # (H, W, 1)
    color = palette()[np.rint(strength[..., 0] * 255).astype(np.uint8)]  # (H, W, 3)
    color *= 0.8 + 0.35 * grey  # the image stands out as relief
    opacity = 0.05 + 0.65 * strength
    blended = (1 - opacity) * 0.65 * grey + opacity * color
    return Image.fromarray(np.rint(blended.clip(0, 1) * 255).astype(np.uint8))
