"""Sample sheets: a few images with captions and maps, for comparing epochs.

Shapes: T words, (h, w) attention grid.
"""

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..atomic_io import atomic_write
from .fonts import drawable, font
from .overlays import DIM, INK, is_dimmed
from .panels import draw_panels, panel_size

_WIDTH, _NARROW = 1200, 352  # maximum widths of the sheet's rows and of a single sample
_MARGIN, _GAP, _BETWEEN = 16, 8, 20  # pixels around the sheet, between panels, between samples
_SIDE = 112  # side of a square image's panel; panels of other images have the same area
_TITLE, _TEXT, _LINE = 17, 12, 24  # font sizes of caption and reference; line height
_WORD = 20  # height of the word under a panel


@dataclass(frozen=True)
class Sample:
    """One image of a sheet.

    words, text: the generated caption as words and as a sentence. reference: reference caption.
    attention (T, h, w): one map per word; None for a model without attention.
    """

    image: Image.Image
    words: Sequence[str]
    text: str
    reference: str
    attention: np.ndarray | None = None


def save_samples(path: Path, samples: Sequence[Sample], offset: float = 0.0) -> Image.Image:
    """Write a PNG with the samples stacked vertically, and return the image.

    Each sample shows its caption, a reference in grey, the image and, if there are maps, one panel
    per word; the panels of a caption share one colour scale, from 0 to its maximum attention.
    offset: as in `overlays.upsample`. Missing directories are created; the file is replaced
    atomically.
    """
    rows = [_draw(sample, offset, _WIDTH) for sample in samples]
    height = sum(row.height for row in rows) + _BETWEEN * (len(rows) - 1) + 2 * _MARGIN
    width = max(row.width for row in rows) + 2 * _MARGIN
    sheet = Image.new("RGB", (width, height), "white")
    y = _MARGIN
    for row in rows:
        sheet.paste(row, (_MARGIN, y))
        y += row.height + _BETWEEN
    content = io.BytesIO()
    sheet.save(content, "PNG")
    atomic_write(path, content.getvalue())
    return sheet


def draw_sample(sample: Sample, offset: float = 0.0) -> Image.Image:
    """Draw one sample as on the sheet, but narrow enough for TensorBoard to show it unscaled."""
    return _draw(sample, offset, _NARROW)


def _draw(sample: Sample, offset: float, max_width: int) -> Image.Image:
    """Draw one sample: the caption, the reference, then the panels in rows."""
    small = sample.image.resize(panel_size(sample.image, _SIDE), Image.Resampling.LANCZOS)
    panels = draw_panels(small, sample.attention, offset)
    text = _text_lines(sample, max_width)
    step = small.width + _GAP, small.height + _WORD
    columns = max(1, (max_width + _GAP) // step[0])
    rows = -(-len(panels) // columns)
    top = _LINE * len(text)
    widths = (kind.getlength(line) for line, _, kind in text)
    width = max(step[0] * min(columns, len(panels)), *widths)
    drawing = Image.new("RGB", (round(width), top + step[1] * rows), "white")
    pen = ImageDraw.Draw(drawing)
    for i, (line, color, kind) in enumerate(text):
        pen.text((0, _LINE * i), line, color, kind)
    words = ["", *map(drawable, sample.words)] if len(panels) > 1 else [""]
    for i, (word, panel) in enumerate(zip(words, panels, strict=True)):
        row, column = divmod(i, columns)
        x, y = column * step[0], top + row * step[1]
        drawing.paste(panel, (x, y))
        size = min(_TEXT, int(1.5 * panel.width / max(1, len(word))))
        color = DIM if is_dimmed(word) else INK
        below = x + panel.width / 2, y + panel.height + 3
        pen.text(below, word, color, font(max(6, size), word), "ma")
    return drawing


def _text_lines(sample: Sample, max_width: int) -> list[tuple[str, str, ImageFont.FreeTypeFont]]:
    """Wrap the caption and the reference into lines, each with its colour and font."""
    caption = textwrap.wrap(drawable(sample.text) or "(no words)", max_width // 11)
    reference = textwrap.shorten(f"reference: {drawable(sample.reference)}", 160)
    return [
        *((line, INK, font(_TITLE, line)) for line in caption),
        *((line, DIM, font(_TEXT, line)) for line in textwrap.wrap(reference, 2 * max_width // 15)),
    ]
