"""Images and captions as self-contained HTML without scripts.

Shapes: T words, (h, w) attention grid.
"""

import base64
import io
import math
from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image

from .overlays import is_dimmed
from .panels import overlay_each

_SIDE, _QUALITY = 320, 75  # maximum side in pixels and JPEG quality in a notebook
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
    """Scale the RGB image down, if necessary, so that no side exceeds `side` pixels."""
    scale = min(1.0, side / max(image.size))
    size = max(1, round(scale * image.width)), max(1, round(scale * image.height))
    return image.resize(size, Image.Resampling.LANCZOS)


def jpeg(image: Image.Image, quality: int) -> str:
    """Encode the image as a JPEG file in base64."""
    content = io.BytesIO()
    image.save(content, "JPEG", quality=quality, optimize=True)
    return base64.b64encode(content.getvalue()).decode("ascii")


def caption_html(
    image: Image.Image,
    words: Sequence[str],
    log_probs: Sequence[float],
    attention: np.ndarray | None,
    offset: float,
) -> str:
    """Format the RGB image above its caption; hovering over a word shows its map and probability.

    log_probs: log-probability of each word in nats, optionally followed by that of the end token.
    attention: maps (T, h, w), or None. offset: as in `overlays.upsample`. Each map is an image that
    CSS shows while the pointer or the focus is on its word.
    """
    small = thumbnail(image, _SIDE)

    def img(shown: Image.Image, text: str) -> str:
        source = f"data:image/jpeg;base64,{jpeg(shown, _QUALITY)}"
        return f'<img src="{source}" alt="{escape(text)}" width="{small.width}">'

    maps = [""] * len(words)
    if attention is not None:
        maps = [img(each, "") for each in overlay_each(small, attention, offset)]
    parts = []
    for word, log_prob, overlay in zip(words, log_probs, maps, strict=False):
        dim = ' class="dim"' if is_dimmed(word) else ""
        probability = f"{math.exp(log_prob):.0%}"
        parts.append(f'<b tabindex="0" title="{probability}"{dim}>{escape(word)}{overlay}</b>')
    return (
        f'<div class="captioner-look" style="padding-top:{small.height + 6}px">'
        f"<style>{_STYLE}</style>{img(small, ' '.join(words))}{' '.join(parts)}</div>"
    )
