"""Sheets of reconstructions: images and texts beside what an autoencoder decodes from both."""

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from ..atomic_io import atomic_write
from .fonts import drawable, font
from .overlays import DIM, INK

_SIDE, _GAP, _MARGIN = 128, 12, 16  # pixels
_TEXT, _LINE, _WIDTH = 12, 17, 640  # font size, line height and width of a text
_LETTERS = 92  # of a line


@dataclass(frozen=True)
class Pair:
    """An image and a text, and what was decoded from their article embedding.

    thumbnail: the image at the size of the decoded one. text, decoded_text: sentences, one per
    line.
    """

    thumbnail: Image.Image
    decoded: Image.Image
    text: str
    decoded_text: str


def save_reconstructions(path: Path, pairs: Sequence[Pair]) -> None:
    """Write a PNG with one row for each pair: thumbnail, decoded thumbnail, and both texts."""
    rows = [_draw(pair) for pair in pairs]
    height = sum(row.height for row in rows) + _GAP * (len(rows) - 1) + 2 * _MARGIN
    sheet = Image.new("RGB", (rows[0].width + 2 * _MARGIN, height), "white")
    y = _MARGIN
    for row in rows:
        sheet.paste(row, (_MARGIN, y))
        y += row.height + _GAP
    content = io.BytesIO()
    sheet.save(content, "PNG")
    atomic_write(path, content.getvalue())


def _draw(pair: Pair) -> Image.Image:
    lines = [(line, DIM) for line in _wrap(pair.text)]
    lines += [("", INK), *((line, INK) for line in _wrap(pair.decoded_text))]
    left = 2 * (_SIDE + _GAP)
    drawing = Image.new("RGB", (left + _WIDTH, max(_SIDE, _LINE * len(lines))), "white")
    for number, image in enumerate((pair.thumbnail, pair.decoded)):
        large = image.resize((_SIDE, _SIDE), Image.Resampling.NEAREST)
        drawing.paste(large, (number * (_SIDE + _GAP), 0))
    pen = ImageDraw.Draw(drawing)
    for number, (line, color) in enumerate(lines):
        pen.text((left, number * _LINE), line, color, font(_TEXT, line))
    return drawing


def _wrap(text: str) -> list[str]:
    """Return the lines of a text; each sentence begins a new one."""
    sentences = text.split("\n")
    return [line for s in sentences for line in textwrap.wrap(drawable(s), _LETTERS) or [""]]
