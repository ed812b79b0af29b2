"""A few images, what a model says of each and where it looked, as one sheet to compare with the
sheets of other epochs; which images, and what is said of them, is the caller's.

Shapes: `T` words, `h, w` the attention grid.
"""

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ..atomic_io import atomic_write
from .animations import font
from .overlays import DIM, INK, is_dimmed, overlay

_WIDTH, _NARROW, _MARGIN, _GAP = 1200, 352, 16, 8  # pixels; widths at most
_PANEL = 112  # on a side of a square image's panel; others have the same area
_TITLE, _TEXT, _WORD, _BETWEEN = 17, 12, 20, 20


@dataclass(frozen=True)
class Sample:
    """An image, its caption in words and as text, one that a person wrote, the maps or None.

    attention: (T, h, w), a map for each of the words.
    """

    image: Image.Image
    words: Sequence[str]
    text: str
    reference: str
    attention: np.ndarray | None = None


def save_samples(path: Path, samples: Sequence[Sample], offset: float = 0.0) -> Image.Image:
    """Write a PNG of the samples below each other, whole or not at all; returns it.

    Each has its caption, a reference in grey, the image, and a panel for each word whose colours
    go from 0 to the strongest cell of the caption. offset: where a cell's value stands, as in
    `overlays.upsample`. Missing directories are made.
    """
    parts = [_part(sample, offset, _WIDTH) for sample in samples]
    height = sum(part.height for part in parts) + _BETWEEN * (len(parts) - 1) + 2 * _MARGIN
    width = max(part.width for part in parts) + 2 * _MARGIN
    sheet = Image.new("RGB", (width, height), "white")
    y = _MARGIN
    for part in parts:
        sheet.paste(part, (_MARGIN, y))
        y += part.height + _BETWEEN
    written = io.BytesIO()
    sheet.save(written, "PNG")
    atomic_write(path, written.getvalue())
    return sheet


def draw_sample(sample: Sample, offset: float = 0.0) -> Image.Image:
    """One sample as on the sheet, but narrow: as wide as TensorBoard shows an image."""
    return _part(sample, offset, _NARROW)


def _part(sample: Sample, offset: float, room: int) -> Image.Image:
    """One sample, `room` pixels wide at most: the two texts, then the panels in lines."""
    panels = _panels(sample, offset)
    step = panels[0].width + _GAP, panels[0].height + _WORD
    each = max(1, (room + _GAP) // step[0])  # panels in a line
    said = textwrap.wrap(sample.text or "(no words)", room // 11)
    reference = textwrap.shorten(f"reference: {sample.reference}", 160)
    lines = [(line, INK, font(_TITLE)) for line in said]
    lines += [(line, DIM, font(_TEXT)) for line in textwrap.wrap(reference, 2 * room // 15)]
    width = max(step[0] * min(each, len(panels)), *(kind.getlength(t) for t, _, kind in lines))
    top = 24 * len(lines)
    part = Image.new("RGB", (round(width), top + step[1] * -(-len(panels) // each)), "white")
    pen = ImageDraw.Draw(part)
    for i, (line, color, kind) in enumerate(lines):
        pen.text((0, 24 * i), line, color, kind)
    words = ["", *sample.words] if len(panels) > 1 else [""]
    for number, (word, panel) in enumerate(zip(words, panels, strict=True)):
        x, y = number % each * step[0], top + number // each * step[1]
        part.paste(panel, (x, y))
        color = DIM if is_dimmed(word) else INK
        tall = min(_TEXT, int(1.5 * panel.width / max(1, len(word))))
        pen.text((x + panel.width / 2, y + panel.height + 3), word, color, font(max(6, tall)), "ma")
    return part


def _panels(sample: Sample, offset: float) -> list[Image.Image]:
    """The image, then the same under each word's map."""
    shape = min(max(sample.image.width / sample.image.height, 1 / 3), 3)  # a stripe is squeezed
    size = round(_PANEL * shape**0.5), round(_PANEL / shape**0.5)
    small = sample.image.resize(size, Image.Resampling.LANCZOS)
    if sample.attention is None or not len(sample.attention):
        return [small]
    vmax = float(sample.attention.max()) or None
    maps = (overlay(small, each, vmax=vmax, offset=offset) for each in sample.attention)
    return [small, *(each.point(lambda value: value & 0xFC) for each in maps)]  # half the file
