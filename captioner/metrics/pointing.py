"""Does attention lie on what the word names? The score that the demo's known boxes allow.

Boxes are never trained on. Shapes: T words, h, w grid; boxes are (x0, y0, x1, y1) in pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..data.demo.shapes import COLORS, PLURALS, SIDE, SIZES, TEXTURES, Box, DrawnShape


@dataclass(frozen=True)
class Pointing:
    """How often attention lies on the shape that is being named; adds up with `+`."""

    hits: int = 0
    chance: float = 0.0  # the hits expected of a cell drawn at random for each mention
    count: int = 0  # mentions

    def __add__(self, other: "Pointing") -> "Pointing":
        return Pointing(
            self.hits + other.hits, self.chance + other.chance, self.count + other.count
        )

    @property
    def accuracy(self) -> float:
        """Hits in 100 mentions, nan without mentions."""
        return 100 * self.hits / self.count if self.count else math.nan

    @property
    def chance_level(self) -> float:
        """The accuracy expected of a cell drawn at random, nan without mentions."""
        return 100 * self.chance / self.count if self.count else math.nan


def mentions(words: Sequence[str], shapes: Sequence[DrawnShape]) -> list[tuple[int, list[Box]]]:
    """For each word that names a kind of shape: its index, and the boxes of what its phrase means.

    The phrase is the word and the colours, sizes and textures right before it. A caption that
    names what is not there gets an empty list. `words` are lower-case, without punctuation.
    """
    kinds = {word: kind for kind, plural in PLURALS.items() for word in (kind, plural)}
    found = []
    for t, word in enumerate(words):
        if word not in kinds:
            continue
        start = t
        while start and words[start - 1] in {*COLORS, *SIZES, *TEXTURES}:
            start -= 1
        looks = set(words[start:t])
        fits = (s.kind == kinds[word] and looks <= {s.color, s.size, s.texture} for s in shapes)
        found.append((t, [s.box for s, fit in zip(shapes, fits, strict=True) if fit]))
    return found


def pointing(
    words: Sequence[str],
    attention: np.ndarray,
    shapes: Sequence[DrawnShape],
    image_size: tuple[int, int] = (SIDE, SIDE),
    offset: float = 0.0,
) -> Pointing:
    """Score where `attention` (T, h, w) is highest at each word that names a kind of shape.

    A hit is a cell that overlaps one of the named shapes: its middle lies in a box widened by half
    a cell on every side. The map covers the whole image, of `image_size` (width, height), and
    each cell lies `offset` cells below and to the right of its square, as `Encoder.offset` says.
    A mention of what is not there is a miss, by chance too. Raises ValueError when words and maps
    do not match.
    """
    if attention.ndim != 3 or len(attention) < len(words):
        raise ValueError(
            f"attention must have a map (h, w) for each of {len(words)} words, "
            f"got shape {attention.shape}"
        )
    height, width = attention.shape[1:]
    dx, dy = image_size[0] / width, image_size[1] / height
    x0, y0 = dx * (np.arange(width) + offset), dy * (np.arange(height)[:, None] + offset)
    total = Pointing()
    for t, boxes in mentions(words, shapes):
        good = np.zeros((height, width), dtype=bool)
        for box in boxes:
            good |= (x0 + dx > box[0]) & (x0 < box[2]) & (y0 + dy > box[1]) & (y0 < box[3])
        total += Pointing(int(good.flat[attention[t].argmax()]), float(good.mean()), 1)
    return total
