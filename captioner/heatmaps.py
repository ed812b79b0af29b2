"""Attention becomes something to look at: maps as large as the picture, overlays, and the figure
with one panel per word; where the attention comes from is not its business.

Shapes: `T` words, `h, w` the attention grid, `H, W` pixels of the picture.
"""

import io
import math
import os
import textwrap
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from .errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORMAP = "inferno"
GAMMA = 0.6  # of the colour scale: below 1, or one sharp map blackens all the broad ones
ENDINGS = ("png", "jpg", "jpeg", "webp", "tif", "tiff", "pdf", "svg")
_FUNCTION_WORDS = frozenset(
    "a an and are as at be by for from has have he her his in into is it its next of off on onto "
    "or out over she some that the their them there these they this to up was were while "
    "with".split()
)
_DPI = 150
_PANEL = 200  # pixels on a side of a square picture's panel; others have the same area
_GAP, _WORD, _MARGIN, _BAR, _BAR_TEXT = 14, 32, 14, 14, 120  # pixels


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
    """The picture in dimmed grey, coloured where the attention `(h, w)` lies; RGB, as large.

    Colour and opacity grow with the map from 0 to `vmax`, the map's own maximum where None.
    offset: where a cell's value stands, as in `upsample`; `Encoder.offset` is the right one.
    Raises InputError for maps of another shape, with negative or infinite values.
    """
    attention = _checked(attention, 2)
    if vmax is None:
        vmax = float(attention.max())
    elif not vmax > 0:
        raise InputError(f"vmax must be above 0, got {vmax}")
    return _blend(image.convert("RGB"), attention, vmax, offset)


def save_heatmap(
    path: str | Path,
    image: Image.Image,
    words: Sequence[str],
    attention: np.ndarray,
    *,
    title: str | None = None,
    offset: float = 0.0,
) -> None:
    """Writes one figure: the picture, then for each word where the attention `(T, h, w)` lay.

    All panels share one colour scale, from 0 to the strongest cell of the sentence. offset: where
    a cell's value stands, as in `upsample`; `Encoder.offset` is the right one. The ending of
    `path` sets the format (png, jpg, webp, tiff, pdf, svg); missing folders are made, and the file
    appears whole or not at all. Raises InputError for an unknown ending, for maps that do not fit
    the words, and where the file cannot be written.
    """
    path = Path(path)
    ending = path.suffix[1:].lower()
    if ending not in ENDINGS:
        raise InputError(f"{str(path)!r}: a heatmap ends in one of {', '.join(ENDINGS)}")
    attention = _checked(attention, 3)
    if len(words) != len(attention) or not words:
        raise InputError(f"{len(words)} words but {len(attention)} attention maps; give one each")
    drawn = io.BytesIO()
    figure = _figure(image.convert("RGB"), words, attention, title, offset)
    figure.savefig(drawn, format=ending, dpi=_DPI, facecolor="white")
    scratch = path.with_name(f".heatmap-{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            scratch.write_bytes(drawn.getvalue())
            os.replace(scratch, path)
        finally:
            scratch.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{str(path)!r}: cannot be written: {error}") from error


def _checked(attention: np.ndarray, ndim: int) -> np.ndarray:
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
    from matplotlib import colormaps

    strength = upsample(attention, (image.height, image.width), offset) / (vmax or 1)  # (H, W)
    strength = strength.clip(0, 1)[..., None] ** GAMMA
    grey = np.asarray(image.convert("L"), dtype=np.float32)[..., None] / 255  # (H, W, 1)
    palette = colormaps[COLORMAP](np.arange(256))[:, :3].astype(np.float32)
    color = palette[np.rint(strength[..., 0] * 255).astype(np.uint8)]  # (H, W, 3)
    color *= 0.8 + 0.35 * grey  # the picture stands out as relief
    opacity = 0.05 + 0.65 * strength
    blended = (1 - opacity) * 0.65 * grey + opacity * color
    return Image.fromarray(np.rint(blended.clip(0, 1) * 255).astype(np.uint8))


def _figure(
    image: Image.Image,
    words: Sequence[str],
    attention: np.ndarray,
    title: str | None,
    offset: float,
) -> "Figure":
    from matplotlib.figure import Figure

    shape = min(max(image.width / image.height, 1 / 3), 3)  # a stripe gets a readable panel too
    panel = round(_PANEL * shape**0.5), round(_PANEL / shape**0.5)
    scale = min(panel[0] / image.width, panel[1] / image.height)
    small = image.resize(
        (max(1, round(image.width * scale)), max(1, round(image.height * scale))),
        Image.Resampling.LANCZOS,
    )
    rows = math.ceil((len(words) + 1) / round(7 / shape**0.5))
    columns = math.ceil((len(words) + 1) / rows)
    width = 2 * _MARGIN + columns * (panel[0] + _GAP) + _BAR + _BAR_TEXT
    heading = textwrap.wrap(title or "", max(20, width // 15))
    top = _MARGIN + 32 * len(heading)
    height = top + rows * (_WORD + panel[1]) + (rows - 1) * _GAP + _MARGIN
    figure = Figure(figsize=(width / _DPI, height / _DPI))

    def place(x: float, y: float, w: float, h: float) -> tuple[float, float, float, float]:
        return x / width, 1 - (y + h) / height, w / width, h / height

    vmax = float(attention.max())
    panels = [small]
    for each in attention:  # six bits a colour show as well as eight and halve the file
        panels.append(_blend(small, each, vmax, offset).point(lambda value: value & 0xFC))
    for index, (word, shown) in enumerate(zip(["", *words], panels, strict=True)):
        row, column = divmod(index, columns)
        x = _MARGIN + column * (panel[0] + _GAP)
        y = top + _WORD + row * (_WORD + panel[1] + _GAP)
        axes = figure.add_axes(place(x, y, *panel))
        axes.imshow(shown, interpolation="none")
        axes.axis("off")
        dim = word.lower() in _FUNCTION_WORDS
        figure.text(
            (x + panel[0] / 2) / width,
            1 - (y - 7) / height,
            word,
            ha="center",
            va="baseline",
            fontsize=min(11.0, 0.7 * panel[0] / max(1, len(word))),
            color="0.6" if dim else "black",
            fontweight="normal" if dim else "bold",
            parse_math=False,
        )
    figure.text(
        _MARGIN / width,
        1 - _MARGIN / height,
        "\n".join(heading),
        va="top",
        fontsize=12,
        color="black",
        parse_math=False,
    )
    bar = figure.add_axes(place(_MARGIN + columns * (panel[0] + _GAP), top + _WORD, _BAR, panel[1]))
    _color_scale(bar, vmax, attention.shape[1:])
    return figure


def _color_scale(axes: "Axes", vmax: float, grid: tuple[int, ...]) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import PowerNorm
    from matplotlib.ticker import FixedLocator, PercentFormatter

    axes.figure.colorbar(
        ScalarMappable(PowerNorm(GAMMA, 0, vmax or 1), COLORMAP),
        cax=axes,
        ticks=FixedLocator([vmax * (part / 4) ** (1 / GAMMA) for part in range(5)]),
        format=PercentFormatter(1, decimals=0 if vmax > 0.3 else 1),
    )
    axes.tick_params(labelsize=8)
    axes.set_ylabel("share of attention\nper {} × {} cell".format(*grid), fontsize=8)
