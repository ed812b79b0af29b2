"""Pointing accuracy: how often attention peaks on the shape that a word names.

It is measured with the boxes of the demo's shapes; models are never trained on boxes.

Shapes: T words, (h, w) grid; boxes are (x0, y0, x1, y1) in pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..data.demo.shapes import COLORS, PLURALS, SIDE, SIZES, TEXTURES, Box, DrawnShape


@dataclass(frozen=True)
class Pointing:
    """How often attention peaks on the named shape; results can be added with `+`.

    hits: number of mentions for which the peak is on the shape. chance: expected number of hits if
    the peak of each mention were in a uniformly random cell. count: number of mentions.
    """

    hits: int = 0
    chance: float = 0.0
    count: int = 0

    def __add__(self, other: "Pointing") -> "Pointing":
        return Pointing(
            self.hits + other.hits, self.chance + other.chance, self.count + other.count
        )

    @property
    def accuracy(self) -> float:
        """Percentage of mentions that are hits; NaN if there are no mentions."""
        return 100 * self.hits / self.count if self.count else math.nan

    @property
    def chance_level(self) -> float:
        """Expected accuracy if peaks were in uniformly random cells; NaN without mentions."""
        return 100 * self.chance / self.count if self.count else math.nan


def mentions(words: Sequence[str], shapes: Sequence[DrawnShape]) -> list[tuple[int, list[Box]]]:
    """Return the index of each word that names a kind of shape, and the boxes of its matches.

    A shape matches if it fits the whole phrase: the word and the colours, sizes and textures
    directly before it. If no shape of the image matches, the list of boxes is empty. `words` are
    lower-case, without punctuation.
    """
    kinds = {word: kind for kind, plural in PLURALS.items() for word in (kind, plural)}
    mentioned = []
    for t, word in enumerate(words):
        if word not in kinds:
            continue
        start = t
        while start and words[start - 1] in {*COLORS, *SIZES, *TEXTURES}:
            start -= 1
        attributes = set(words[start:t])
        boxes = [
            shape.box
            for shape in shapes
            if shape.kind == kinds[word] and attributes <= {shape.color, shape.size, shape.texture}
        ]
        mentioned.append((t, boxes))
    return mentioned


def pointing(
    words: Sequence[str],
    attention: np.ndarray,
    shapes: Sequence[DrawnShape],
    image_size: tuple[int, int] = (SIDE, SIDE),
    offset: float = 0.0,
) -> Pointing:
    """Score the peak of `attention` (T, h, w) at each word that names a kind of shape.

    A hit is a peak in a cell that overlaps one of the named shapes, that is, whose centre is inside
    a box widened by half a cell on every side. The map covers the whole image, of `image_size`
    (width, height) pixels; cells are shifted by `offset` cells down and to the right, like
    `Encoder.offset`. A mention without a matching shape is a miss and has chance 0. Raises
    ValueError if there are fewer maps than words.
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
        on_shape = np.zeros((height, width), dtype=bool)
        for box in boxes:
            on_shape |= (x0 + dx > box[0]) & (x0 < box[2]) & (y0 + dy > box[1]) & (y0 < box[3])
        hit = int(on_shape.flat[attention[t].argmax()])
        total += Pointing(hit, float(on_shape.mean()), 1)
    return total
