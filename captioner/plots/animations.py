"""The heatmap that moves: a frame for each word, the image with its map over the caption.

Shapes: `T` words, `h, w` the attention grid.
"""

import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .overlays import DIM, GAMMA, INK, is_dimmed, overlay, palette

_AREA = 320 * 320  # pixels of the image; a square one has 320 on a side
_LEAST, _MOST = 200, 640  # of a side, however narrow the image
_MARGIN, _GAP, _BAR, _BAR_TEXT = 16, 12, 14, 56  # pixels
_FONT, _LINE, _SMALL = 20, 32, 13
_SCALE = 64  # colours of the bar
_PAPER = (255, 255, 255)
_FIRST, _CONTENT, _FUNCTION, _LAST = 900, 900, 300, 1800  # milliseconds that each stays


def animation(
    ending: str, image: Image.Image, words: Sequence[str], attention: np.ndarray, offset: float
) -> bytes:
    """A GIF or WebP, by `ending`, of the RGB image as it is and then each word's `(T, h, w)`.

    Below stands the caption, with a box around the word whose map is shown. Function words are
    dimmed, and stay a third as long as others. All frames share one colour scale and repeat for
    ever.
    """
    frames = _frames(image, words, attention, offset)
    stay = [_FUNCTION if is_dimmed(word) else _CONTENT for word in words]
    stay[-1] = _LAST
    quality = {"quality": 85, "method": 4}
    if ending == "gif":
        quality, frames = {}, [_few_colors(frame) for frame in frames]
    drawn = io.BytesIO()
    frames[0].save(
        drawn,
        format=ending,
        save_all=True,
        append_images=frames[1:],
        duration=[_FIRST, *stay],
        loop=0,
        **quality,
    )
    return drawn.getvalue()


def _frames(
    image: Image.Image, words: Sequence[str], attention: np.ndarray, offset: float
) -> list[Image.Image]:
    """The image alone over the caption, then one frame a word."""
    small = _fit(image)
    room = max(small.width, _LEAST), max(small.height, _LEAST)  # where a stripe is in the middle
    width = 2 * _MARGIN + room[0] + _GAP + _BAR + _BAR_TEXT
    below = _MARGIN + room[1] + _GAP
    corner = [_MARGIN + (space - side) // 2 for space, side in zip(room, small.size, strict=True)]
    places, lines = _places(words, width - 2 * _MARGIN)
    blank = Image.new("RGB", (width, below + lines * _LINE + _MARGIN), "white")
    vmax = float(attention.max())
    _draw_scale(blank, (_MARGIN + room[0] + _GAP, _MARGIN, room[1]), vmax)
    frames = []
    for now in range(-1, len(words)):
        frame = blank.copy()
        shown = small
        if now >= 0:
            shown = overlay(small, attention[now], vmax=vmax or None, offset=offset)
        frame.paste(shown, (corner[0], corner[1]))
        pen = ImageDraw.Draw(frame)
        for t, (word, (x, line)) in enumerate(zip(words, places, strict=True)):
            at = _MARGIN + x, below + line * _LINE + 22
            color = DIM if is_dimmed(word) else INK
            if t == now:
                x0, y0, x1, y1 = pen.textbbox(at, "Íg", font=font(_FONT), anchor="ls")
                x1 = x0 + font(_FONT).getlength(word)
                pen.rounded_rectangle((x0 - 4, y0 - 2, x1 + 4, y1 + 2), 5, color)
                color = "white"
            pen.text(at, word, color, font(_FONT), "ls")
        frames.append(frame)
    return frames


def _few_colors(frame: Image.Image) -> Image.Image:
    """A frame of 256 colours, paper and scale among them, which else differ from frame to frame.

    Undithered: noise would flicker, and double the file.
    """
    fixed = [*_PAPER, *_scale_colors(_SCALE).ravel().tolist()]
    chosen = np.reshape(frame.quantize(256 - len(fixed) // 3).getpalette() or [], (-1, 3))
    chosen[(chosen >= 248).all(1)] = 255  # Pillow takes these for the paper's white
    table = Image.new("P", (1, 1))
    table.putpalette([*chosen.ravel().tolist()[: 3 * 256 - len(fixed)], *fixed])
    return frame.quantize(palette=table, dither=Image.Dither.NONE)


def _fit(image: Image.Image) -> Image.Image:
    """The image with about `_AREA` pixels, and no side too long."""
    scale = min((_AREA / (image.width * image.height)) ** 0.5, _MOST / max(image.size))
    size = max(1, round(scale * image.width)), max(1, round(scale * image.height))
    return image.resize(size, Image.Resampling.LANCZOS)


def _places(words: Sequence[str], width: int) -> tuple[list[tuple[int, int]], int]:
    """Where each word stands, as (pixels from the left, line), and the number of lines."""
    places, x, line = [], 0, 0
    for word in words:
        wide = round(font(_FONT).getlength(word))
        if x and x + wide > width:
            x, line = 0, line + 1
        places.append((x, line))
        x += wide + 9
    return places, line + 1


def _draw_scale(frame: Image.Image, place: tuple[int, int, int], vmax: float) -> None:
    """The colour scale at (x, y, height), from 0 to the strongest cell's share."""
    x, y, height = place
    bar = Image.fromarray(_scale_colors(_SCALE)[::-1, None])  # (_SCALE, 1, 3)
    frame.paste(bar.resize((_BAR, height), Image.Resampling.NEAREST), (x, y))
    pen = ImageDraw.Draw(frame)
    for part in (0, 0.25, 0.5, 0.75, 1):
        level = y + round((1 - part) * (height - 1))
        share = f"{vmax * part ** (1 / GAMMA):.{0 if vmax > 0.3 else 1}%}"
        pen.line((x + _BAR, level, x + _BAR + 3, level), INK)
        middle = min(max(level, y + _SMALL // 2), y + height - _SMALL // 2)
        pen.text((x + _BAR + 6, middle), share, INK, font(_SMALL), "lm")


def _scale_colors(count: int) -> np.ndarray:
    """So many colours of the scale, evenly from nothing to most, (count, 3) of 0 to 255."""
    return np.rint(255 * palette()[np.linspace(0, 255, count).astype(int)]).astype(np.uint8)


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along: it has the letters of most languages."""
    import matplotlib

    directory = Path(matplotlib.get_data_path(), "fonts", "ttf")
    return ImageFont.truetype(directory / "DejaVuSans.ttf", size)
