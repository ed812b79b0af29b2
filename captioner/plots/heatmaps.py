"""Attention maps as files: figures with one panel per word, animations, arrays.

Shapes: T words, (h, w) attention grid.
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
from .fonts import drawable, families
from .overlays import COLORMAP, DIM, GAMMA, check_maps, is_dimmed
from .panels import clipped_ratio, draw_panels, panel_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIGURES = ("png", "jpg", "jpeg", "tif", "tiff", "pdf", "svg")
ANIMATIONS = ("gif", "webp")
ENDINGS = (*FIGURES, *ANIMATIONS, "npy")


@dataclass(frozen=True)
class Scale:
    """The colour scale of maps, from 0 to `maximum`; None means the maximum of all maps.

    quantity: what the maps show; the label of the colour bar.
    """

    quantity: str
    maximum: float | None = None


ATTENTION = Scale("share of attention")
PATCH = Scale("patch similarity, lowest to highest", 1.0)
LABEL = Scale("probability of the label", 1.0)  # a map of an absent label stays dark
_DPI = 150
_SIDE = 200  # side of a square image's panel in pixels; panels of other images have the same area
_GAP, _WORD, _MARGIN, _BAR, _BAR_TEXT = 14, 32, 14, 14, 120  # pixels


def save_heatmap(
    path: str | Path,
    image: Image.Image,
    words: Sequence[str],
    attention: np.ndarray,
    *,
    title: str | None = None,
    offset: float = 0.0,
    scale: Scale = ATTENTION,
) -> None:
    """Write the attention maps `(T, h, w)` in the format determined by the path's extension.

    A figure (png, jpg, tiff, pdf, svg) shows the title, the image and one panel per word; the
    panels share the colour scale that `scale` describes. An animation (gif, webp) shows the image,
    then one frame per word, as in `animations.animation`; it ignores `title` and `scale`. An npy
    file contains the maps as float32; a .json file of the same name contains the words and the
    offset. offset: position of a cell's value, as in `overlays.upsample`; use `Encoder.offset`.
    Missing directories are created; each file is replaced atomically. Raises InputError if the
    extension is unknown, if there are no words, if the numbers of words and maps differ, if the
    maps have another shape or negative or non-finite values, if `offset` is out of range, or if
    the file cannot be written.
    """
    path = Path(path)
    extension = path.suffix[1:].lower()
    if extension not in ENDINGS:
        raise InputError(
            f"{str(path)!r} has an unknown extension; choose one of {', '.join(ENDINGS)}"
        )
    attention = check_maps(attention, 3)
    if len(words) != len(attention):
        raise InputError(
            f"attention must have one map for each word, got {len(words)} words and "
            f"{len(attention)} maps"
        )
    if not words:
        raise InputError("a heatmap needs at least one word, got none")
    if extension == "npy":
        description = json.dumps({"words": list(words), "offset": offset}, ensure_ascii=False)
        _write(path.with_suffix(".json"), description + "\n")
        content = io.BytesIO()
        np.save(content, attention)
        _write(path, content.getvalue())
    elif extension in ANIMATIONS:
        _write(path, animation(extension, image.convert("RGB"), words, attention, offset))
    else:
        content = io.BytesIO()
        figure = _figure(image.convert("RGB"), words, attention, title, offset, scale)
        figure.savefig(content, format=extension, dpi=_DPI, facecolor="white")
        _write(path, content.getvalue())


def _write(path: Path, content: str | bytes) -> None:
    try:
        atomic_write(path, content)
    except OSError as error:
        raise InputError(
            f"{str(path)!r} cannot be written: {error}; choose another path"
        ) from error


@dataclass(frozen=True)
class _Layout:
    """Positions in a figure, in pixels from its top left corner.

    panel: width and height of each panel. top: top of the first row of panels, including the words
    above them.
    """

    heading: str
    panel: tuple[int, int]
    columns: int
    top: int
    width: int
    height: int

    def corner(self, index: int) -> tuple[int, int]:
        """Return the top left corner of a panel."""
        row, column = divmod(index, self.columns)
        x = _MARGIN + column * (self.panel[0] + _GAP)
        return x, self.top + _WORD + row * (_WORD + self.panel[1] + _GAP)

    def fractions(
        self, x: float, y: float, w: float, h: float
    ) -> tuple[float, float, float, float]:
        """Convert a box to fractions of the figure, measured from its bottom left corner."""
        return x / self.width, 1 - (y + h) / self.height, w / self.width, h / self.height


def _layout(image: Image.Image, panels: int, title: str) -> _Layout:
    panel = panel_size(image, _SIDE)
    rows = math.ceil(panels / round(7 / clipped_ratio(image) ** 0.5))
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
    scale: Scale,
) -> "Figure":
    from matplotlib.figure import Figure

    layout = _layout(image, len(words) + 1, title or "")
    figure = Figure(figsize=(layout.width / _DPI, layout.height / _DPI))
    shrink = min(layout.panel[0] / image.width, layout.panel[1] / image.height)
    size = max(1, round(image.width * shrink)), max(1, round(image.height * shrink))
    small = image.resize(size, Image.Resampling.LANCZOS)
    panels = draw_panels(small, attention, offset, scale.maximum)
    for index, (word, panel) in enumerate(zip(["", *words], panels, strict=True)):
        _place_panel(figure, layout, index, word, panel)
    x, y, *_ = layout.fractions(_MARGIN, _MARGIN, 0, 0)
    heading = drawable(layout.heading)
    figure.text(
        x,
        y,
        heading,
        va="top",
        fontsize=12,
        fontfamily=families(heading),
        color="black",
        parse_math=False,
    )
    right = _MARGIN + layout.columns * (layout.panel[0] + _GAP)
    bar = figure.add_axes(layout.fractions(right, layout.top + _WORD, _BAR, layout.panel[1]))
    height = 72 * layout.panel[1] / _DPI
    _color_bar(bar, scale.maximum or float(attention.max()), scale, attention.shape[1:], height)
    return figure


def _place_panel(
    figure: "Figure", layout: _Layout, index: int, word: str, panel: Image.Image
) -> None:
    """Add a panel to the figure with its word above it, in grey if it is a function word."""
    left, top = layout.corner(index)
    axes = figure.add_axes(layout.fractions(left, top, *layout.panel))
    axes.imshow(panel, interpolation="none")
    axes.axis("off")
    x, y, *_ = layout.fractions(left + layout.panel[0] / 2, top - 7, 0, 0)
    dim = is_dimmed(word)
    word = drawable(word)
    figure.text(
        x,
        y,
        word,
        ha="center",
        va="baseline",
        fontsize=min(11.0, 0.7 * layout.panel[0] / max(1, len(word))),
        fontfamily=families(word),
        color=DIM if dim else "black",
        fontweight="normal" if dim else "bold",
        parse_math=False,
    )


def _color_bar(
    axes: "Axes", vmax: float, scale: Scale, grid: tuple[int, ...], height: float
) -> None:
    """Draw the colour bar. height: height of the axes in points."""
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
    fitting = 1.7 * height / len(scale.quantity)  # a letter is about 0.55 of its size wide
    label = "{}\nper cell of {} × {}".format(scale.quantity, *grid)
    axes.set_ylabel(label, fontsize=min(8.0, fitting))
