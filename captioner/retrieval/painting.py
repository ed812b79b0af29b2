"""Painted queries: where in an image a word should be, and where it should not.

Shapes: N images, (h, w) grid of maps, (H, W) painted grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError

PRESETS = {
    "left": ((1, 0),),
    "right": ((0, 1),),
    "top": ((1,), (0,)),
    "bottom": ((0,), (1,)),
    "centre": ((0, 0, 0, 0), (0, 1, 1, 0), (0, 1, 1, 0), (0, 0, 0, 0)),
}
_SPELLINGS = {"center": "centre", "middle": "centre"}


@dataclass(frozen=True, eq=False)
class Layer:
    """A word, phrase or sentence, painted on a grid (H, W) of any size that covers the image.

    Positive cells mark where the word should be, negative cells where it should not be. Cells may
    have any finite weight; a cell with 0 is not painted. Raises InputError for a grid that is
    empty, not two-dimensional, not of finite numbers or without painted cells.
    """

    word: str
    grid: np.ndarray

    def __post_init__(self) -> None:
        try:
            grid = np.asarray(self.grid, np.float64)
        except (TypeError, ValueError) as error:  # of other types, or rows of different lengths
            raise InputError(
                f"the painted grid of {self.word!r} must consist of numbers in rows of equal length"
            ) from error
        if grid.ndim != 2 or not grid.size:
            raise InputError(
                f"the painted grid of {self.word!r} must have rows and columns, got shape "
                f"{grid.shape}"
            )
        if not np.isfinite(grid).all():
            raise InputError(
                f"the painted grid of {self.word!r} must be finite, got NaN or infinity; replace "
                "it with 0"
            )
        if not grid.any():
            raise InputError(f"nothing is painted for {self.word!r}; set a cell to 1 or -1")
        object.__setattr__(self, "grid", grid)


def parse_layer(text: str) -> Layer:
    """Parse WORD=PLACE, such as "person=right" or "-person=left".

    PLACE is one of PRESETS, or "center" or "middle" instead of "centre". A minus sign means that
    the word should not be there. Raises InputError for any other text.
    """
    word, separator, place = text.rpartition("=")
    sign = -1 if word.startswith(("-", "−", "–")) else 1
    word, place = word[sign < 0 :].strip(), place.strip().lower()
    place = _SPELLINGS.get(place, place)
    if not separator or not word or place not in PRESETS:
        raise InputError(
            f"a painting must be WORD=PLACE or -WORD=PLACE with PLACE one of {', '.join(PRESETS)}, "
            f"got {text!r}"
        )
    return Layer(word, sign * np.array(PRESETS[place]))


def painted_scores(maps: np.ndarray, layers: Sequence[Layer], offset: float = 0.0) -> np.ndarray:
    """Return the score of each image (N,), float64.

    maps (N, layers, h, w): the map of each layer's word, in [0, 1]. A layer's grid is resampled to
    (h, w) and multiplied by the map cell by cell; the sum of the products is divided by the sum of
    the grid's absolute values. The score is the sum over the layers, each of which contributes from
    -1 to 1. offset: position of a cell's value, as in `Encoder.offset`. Raises InputError if there
    are no layers.
    """
    if not layers:
        raise InputError("nothing is painted; paint at least one word")
    scores = np.zeros(len(maps))
    for layer, own in zip(layers, maps.swapaxes(0, 1), strict=True):
        grid = resample(layer.grid, (own.shape[1], own.shape[2]), offset)
        painted = np.abs(grid).sum()
        scores += (own * grid).sum((1, 2)) / max(painted, 1e-12)
    return scores


def resample(grid: np.ndarray, size: tuple[int, int], offset: float = 0.0) -> np.ndarray:
    """Resample a grid (H, W) to (h, w) by area: each new cell is the mean of what it covers.

    offset: distance, as a fraction of a cell, by which the new cells are shifted down and to the
    right; the part of a cell outside the image does not count.
    """
    rows, columns = (_overlaps(new, old, offset) for new, old in zip(size, grid.shape, strict=True))
    resampled: np.ndarray = rows @ grid @ columns.T
    return resampled


def _overlaps(new: int, old: int, offset: float) -> np.ndarray:
    """Return the fraction of each new cell that each old cell covers, (new, old); rows sum to 1."""
    starts = ((np.arange(new) + offset) / new).clip(0, 1)[:, None]
    ends = ((np.arange(new) + 1 + offset) / new).clip(0, 1)[:, None]
    edges = np.arange(old + 1) / old
    shared = (np.minimum(ends, edges[1:]) - np.maximum(starts, edges[:-1])).clip(0)
    shares: np.ndarray = shared / shared.sum(1, keepdims=True)
    return shares
