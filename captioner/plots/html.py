"""Images and captions as they stand inside a page, with nothing beside it and no script.

Shapes: `T` words, `h, w` the attention grid.
"""

import base64
import io
import math
from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image

from .overlays import is_dimmed, overlay

_SIDE, _QUALITY = 320, 75  # of an image in a notebook
_STYLE = """
.captioner-look { position: relative; max-width: 40em; }
.captioner-look img { position: absolute; top: 0; left: 0; max-width: none; margin: 0; }
.captioner-look b { font-weight: normal; border-bottom: 2px solid #c8602f; }
.captioner-look .dim { color: color-mix(in srgb, currentColor 65%, transparent); }
.captioner-look b:hover, .captioner-look b:focus { background: #222; color: #fff; outline: none; }
.captioner-look b img { visibility: hidden; }
.captioner-look b:hover img, .captioner-look b:focus img { visibility: visible; }
"""


def thumbnail(image: Image.Image, side: int) -> Image.Image:
    """The RGB image with neither side above `side` pixels; a smaller one as it is."""
    scale = min(1.0, side / max(image.size))
    size = max(1, round(scale * image.width)), max(1, round(scale * image.height))
    return image.resize(size, Image.Resampling.LANCZOS)


def jpeg(image: Image.Image, quality: int) -> str:
    """The image as a JPEG file in base64."""
    written = io.BytesIO()
    image.save(written, "JPEG", quality=quality, optimize=True)
    return base64.b64encode(written.getvalue()).decode("ascii")


def caption_html(
    image: Image.Image,
    words: Sequence[str],
    log_probs: Sequence[float],
    attention: np.ndarray | None,
    offset: float,
) -> str:
    """The RGB image over its caption; pointing at a word shows its map `(T, h, w)` and odds.

    Works without a script: the maps are images that appear while the word is pointed at or has
    the focus.
    """
    small = thumbnail(image, _SIDE)

    def shown(drawn: Image.Image, text: str) -> str:
        source = f"data:image/jpeg;base64,{jpeg(drawn, _QUALITY)}"
        return f'<img src="{source}" alt="{escape(text)}" width="{small.width}">'

    vmax = 0.0 if attention is None else float(attention.max(initial=0))
    parts = []
    for t, (word, log_prob) in enumerate(zip(words, log_probs, strict=False)):  # not the end's
        over = ""
        if attention is not None:
            over = shown(overlay(small, attention[t], vmax=vmax or None, offset=offset), "")
        odds = f"{math.exp(log_prob):.0%}"
        dim = ' class="dim"' if is_dimmed(word) else ""
        parts.append(f'<b tabindex="0" title="{odds}"{dim}>{escape(word)}{over}</b>')
    return (
        f'<div class="captioner-look" style="padding-top:{small.height + 6}px">'
        f"<style>{_STYLE}</style>{shown(small, ' '.join(words))}{' '.join(parts)}</div>"
    )
