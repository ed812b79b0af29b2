"""Attention becomes a file to look at: the figure with one panel per word, the animation, the bare
maps; where the attention comes from is not its business.

Shapes: `T` words, `h, w` the attention grid.
"""

import io
import json
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..atomic_io import atomic_write
from ..errors import InputError
from .animations import animation
from .overlays import COLORMAP, DIM, GAMMA, check_maps, is_dimmed, overlay

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIGURES = ("png", "jpg", "jpeg", "tif", "tiff", "pdf", "svg")
ANIMATIONS = ("gif", "webp")
ENDINGS = (*FIGURES, *ANIMATIONS, "npy")
_DPI = 150
_PANEL = 200  # pixels on a side of a square image's panel; others have the same area
_GAP, _WORD, _MARGIN, _BAR, _BAR_TEXT = 14, 32, 14, 14, 120  # pixels


def save_heatmap(
    path: str | Path,
    image: Image.Image,
    words: Sequence[str],
    attention: np.ndarray,
    *,
    title: str | None = None,
    offset: float = 0.0,
) -> None:
    """Writes where the attention `(T, h, w)` lay at each word, in the form that `path` ends in.

    A figure (png, jpg, tiff, pdf, svg): the image, then a panel for each word, all under one
    colour scale from 0 to the strongest cell of the sentence; only figures show the title. An
    animation (gif, webp): a frame for each. The bare maps (npy): float32, with the words and the
    offset in a .json beside them. offset: where a cell's value stands, as in `overlays.upsample`;
    `Encoder.offset` is the right one. Missing directories are made, and each file appears whole or not
    at all. Raises InputError for an unknown ending, for maps that do not fit the words, and where
    the file cannot be written.
    """
    path = Path(path)
    ending = path.suffix[1:].lower()
    if ending not in ENDINGS:
        raise InputError(f"{str(path)!r}: a heatmap ends in one of {', '.join(ENDINGS)}")
    attention = check_maps(attention, 3)
    if len(words) != len(attention) or not words:
        raise InputError(f"{len(words)} words but {len(attention)} attention maps; give one each")
    if ending == "npy":
        beside = json.dumps({"words": list(words), "offset": offset}, ensure_ascii=False)
        _write(path.with_suffix(".json"), (beside + "\n").encode())
        drawn = io.BytesIO()
        np.save(drawn, attention)
        _write(path, drawn.getvalue())
    elif ending in ANIMATIONS:
        _write(path, animation(ending, image.convert("RGB"), words, attention, offset))
    else:
        drawn = io.BytesIO()
        figure = _figure(image.convert("RGB"), words, attention, title, offset)
        figure.savefig(drawn, format=ending, dpi=_DPI, facecolor="white")
        _write(path, drawn.getvalue())


def _write(path: Path, content: bytes) -> None:
    try:
        atomic_write(path, content)
    except OSError as error:
        raise InputError(f"{str(path)!r}: cannot be written: {error}") from error


@dataclass(frozen=True)
class _Layout:
    """Where all stands on a figure, in pixels from its top left: the heading, panels, their scale.

    top: where the first row begins; each panel has its word above it.
    """

    heading: str
    panel: tuple[int, int]
    columns: int
    top: int
    width: int
    height: int

    def corner(self, index: int) -> tuple[int, int]:
        """The top left of a panel."""
        row, column = divmod(index, self.columns)
        x = _MARGIN + column * (self.panel[0] + _GAP)
        return x, self.top + _WORD + row * (_WORD + self.panel[1] + _GAP)

    def place(self, x: float, y: float, w: float, h: float) -> tuple[float, float, float, float]:
        """A box as matplotlib has it: in shares of the figure, from below."""
        return x / self.width, 1 - (y + h) / self.height, w / self.width, h / self.height


def _layout(image: Image.Image, panels: int, title: str) -> _Layout:
    shape = min(max(image.width / image.height, 1 / 3), 3)  # a stripe gets a readable panel too
    panel = round(_PANEL * shape**0.5), round(_PANEL / shape**0.5)
    rows = math.ceil(panels / round(7 / shape**0.5))
    columns = math.ceil(panels / rows)
    width = 2 * _MARGIN + columns * (panel[0] + _GAP) + _BAR + _BAR_TEXT
    heading = textwrap.wrap(title, max(20, width // 15))
    top = _MARGIN + 32 * len(heading)
    height = top + rows * (_WORD + panel[1]) + (rows - 1) * _GAP + _MARGIN
    return _Layout("\n".join(heading), panel, columns, top, width, height)


def _figure(
    image: Image.Image,
    words: Sequence[str],
    attention: np.ndarray,
    title: str | None,
    offset: float,
) -> "Figure":
    from matplotlib.figure import Figure

    layout = _layout(image, len(words) + 1, title or "")
    figure = Figure(figsize=(layout.width / _DPI, layout.height / _DPI))
    scale = min(layout.panel[0] / image.width, layout.panel[1] / image.height)
    small = image.resize(
        (max(1, round(image.width * scale)), max(1, round(image.height * scale))),
        Image.Resampling.LANCZOS,
    )
    vmax = float(attention.max())
    panels = [small]
    for each in attention:  # six bits a colour show as well as eight and halve the file
        panels.append(
            overlay(small, each, vmax=vmax or None, offset=offset).point(lambda value: value & 0xFC)
        )
    for index, (word, shown) in enumerate(zip(["", *words], panels, strict=True)):
        _draw_panel(figure, layout, index, word, shown)
    x, y, *_ = layout.place(_MARGIN, _MARGIN, 0, 0)
    figure.text(x, y, layout.heading, va="top", fontsize=12, color="black", parse_math=False)
    right = _MARGIN + layout.columns * (layout.panel[0] + _GAP)
    bar = figure.add_axes(layout.place(right, layout.top + _WORD, _BAR, layout.panel[1]))
    _color_scale(bar, vmax, attention.shape[1:])
    return figure


def _draw_panel(
    figure: "Figure", layout: _Layout, index: int, word: str, shown: Image.Image
) -> None:
    """An image with its word above it, grey where that is a function word."""
    corner = layout.corner(index)
    axes = figure.add_axes(layout.place(*corner, *layout.panel))
    axes.imshow(shown, interpolation="none")
    axes.axis("off")
    x, y, *_ = layout.place(corner[0] + layout.panel[0] / 2, corner[1] - 7, 0, 0)
    dim = is_dimmed(word)
    figure.text(
        x,
        y,
        word,
        ha="center",
        va="baseline",
        fontsize=min(11.0, 0.7 * layout.panel[0] / max(1, len(word))),
        color=DIM if dim else "black",
        fontweight="normal" if dim else "bold",
        parse_math=False,
    )


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
