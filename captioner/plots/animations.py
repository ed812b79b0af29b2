"""Animated heatmaps: one frame per word, with its map over the image.

Shapes: T words, (h, w) attention grid.
"""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from .fonts import drawable, font
from .overlays import DIM, GAMMA, INK, is_dimmed, palette
from .panels import overlay_each

_AREA = 320 * 320  # pixels of the scaled image
_MIN_SIDE, _MAX_SIDE = 200, 640  # minimum side of the image's area, maximum side of the image
_MARGIN, _GAP, _BAR, _BAR_TEXT = 16, 12, 14, 56  # pixels
_FONT, _LINE, _SMALL = 20, 32, 13
_SCALE = 64  # number of colours in the colour bar
_PAPER = (255, 255, 255)
_FIRST, _CONTENT, _FUNCTION, _LAST = 900, 900, 300, 1800  # frame durations in milliseconds


def animation(
    extension: str, image: Image.Image, words: Sequence[str], attention: np.ndarray, offset: float
) -> bytes:
    """Encode an animation: the RGB image, then the image overlaid with each map of `(T, h, w)`.

    extension: "gif" or "webp". The caption is drawn below the image, with a box around the word
    whose map is shown. Function words are dimmed and shown for a third of the time; the last word
    is shown for twice the time. All frames share one colour scale; the animation repeats forever.
    offset: as in `overlays.upsample`.
    """
    frames = _frames(image, words, attention, offset)
    durations = [_FUNCTION if is_dimmed(word) else _CONTENT for word in words]
    durations[-1] = _LAST
    quality = {"quality": 85, "method": 4}
    if extension == "gif":
        quality, frames = {}, [_quantize(frame) for frame in frames]
    content = io.BytesIO()
    frames[0].save(
        content,
        format=extension,
        save_all=True,
        append_images=frames[1:],
        duration=[_FIRST, *durations],
        loop=0,
        **quality,
    )
    return content.getvalue()


def _frames(
    image: Image.Image, words: Sequence[str], attention: np.ndarray, offset: float
) -> list[Image.Image]:
    """Draw the frames: the image alone above the caption, then one frame per word."""
    small = _fit(image)
    space = max(small.width, _MIN_SIDE), max(small.height, _MIN_SIDE)  # the image is centred in it
    width = 2 * _MARGIN + space[0] + _GAP + _BAR + _BAR_TEXT
    below = _MARGIN + space[1] + _GAP
    x, y = (_MARGIN + (room - side) // 2 for room, side in zip(space, small.size, strict=True))
    words = [drawable(word) for word in words]
    places, lines = word_places(words, width - 2 * _MARGIN)
    blank = Image.new("RGB", (width, below + lines * _LINE + _MARGIN), "white")
    _draw_color_bar(blank, (_MARGIN + space[0] + _GAP, _MARGIN, space[1]), float(attention.max()))
    frames = []
    for current, shown in enumerate([small, *overlay_each(small, attention, offset)], start=-1):
        frame = blank.copy()
        frame.paste(shown, (x, y))
        _draw_caption(frame, words, places, below, current)
        frames.append(frame)
    return frames


def _draw_caption(
    frame: Image.Image,
    words: Sequence[str],
    places: Sequence[tuple[int, int]],
    below: int,
    current: int,
) -> None:
    """Draw the words from `below` pixels downwards, with a box around the word `current`."""
    pen = ImageDraw.Draw(frame)
    for t, (word, (x, line)) in enumerate(zip(words, places, strict=True)):
        baseline = _MARGIN + x, below + line * _LINE + 22
        color = DIM if is_dimmed(word) else INK
        if t == current:
            x0, y0, _, y1 = pen.textbbox(baseline, "Íg", font=font(_FONT), anchor="ls")
            x1 = x0 + font(_FONT, word).getlength(word)
            pen.rounded_rectangle((x0 - 4, y0 - 2, x1 + 4, y1 + 2), 5, color)
            color = "white"
        pen.text(baseline, word, color, font(_FONT, word), "ls")


def _quantize(frame: Image.Image) -> Image.Image:
    """Reduce a frame to 256 colours, including those of the background and the colour bar.

    Otherwise these colours would vary from frame to frame. Dithering is off because its noise would
    flicker and double the file size.
    """
    fixed = [*_PAPER, *_scale_colors(_SCALE).ravel().tolist()]
    adaptive = np.reshape(frame.quantize(256 - len(fixed) // 3).getpalette() or [], (-1, 3))
    adaptive[(adaptive >= 248).all(1)] = 255  # otherwise Pillow maps the white background to them
    table = Image.new("P", (1, 1))
    table.putpalette([*adaptive.ravel().tolist()[: 3 * 256 - len(fixed)], *fixed])
    return frame.quantize(palette=table, dither=Image.Dither.NONE)


def _fit(image: Image.Image) -> Image.Image:
    """Scale the image to about `_AREA` pixels in total, with no side longer than `_MAX_SIDE`."""
    scale = min((_AREA / (image.width * image.height)) ** 0.5, _MAX_SIDE / max(image.size))
    size = max(1, round(scale * image.width)), max(1, round(scale * image.height))
    return image.resize(size, Image.Resampling.LANCZOS)


def word_places(words: Sequence[str], width: int) -> tuple[list[tuple[int, int]], int]:
    """Wrap words into lines; return each word's (x in pixels, line) and the number of lines."""
    places, x, line = [], 0, 0
    for word in words:
        length = round(font(_FONT, word).getlength(word))
        if x and x + length > width:
            x, line = 0, line + 1
        places.append((x, line))
        x += length + 9
    return places, line + 1


def _draw_color_bar(frame: Image.Image, place: tuple[int, int, int], vmax: float) -> None:
    """Draw the colour bar at (x, y, height), from 0 to the maximum attention, `vmax`."""
    x, y, height = place
    bar = Image.fromarray(_scale_colors(_SCALE)[::-1, None])  # (_SCALE, 1, 3)
    frame.paste(bar.resize((_BAR, height), Image.Resampling.NEAREST), (x, y))
    pen = ImageDraw.Draw(frame)
    for part in (0, 0.25, 0.5, 0.75, 1):
        level = y + round((1 - part) * (height - 1))
        label = f"{vmax * part ** (1 / GAMMA):.{0 if vmax > 0.3 else 1}%}"
        pen.line((x + _BAR, level, x + _BAR + 3, level), INK)
        middle = min(max(level, y + _SMALL // 2), y + height - _SMALL // 2)
        pen.text((x + _BAR + 6, middle), label, INK, font(_SMALL), "lm")


def _scale_colors(count: int) -> np.ndarray:
    """Return `count` evenly spaced colours of the scale, (count, 3), in 0 to 255."""
    colors: np.ndarray = np.rint(255 * palette()[np.linspace(0, 255, count).astype(int)])
    return colors.astype(np.uint8)
