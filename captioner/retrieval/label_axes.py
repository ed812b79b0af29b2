"""Positions of images on a plane whose axes or anchors are labels.

Shapes: N images, L labels.
"""

import numpy as np

from ..errors import InputError

TEMPERATURE = 0.1  # of the softmax over labels; scores are in [0, 1]


def label_points(scores: np.ndarray, other: np.ndarray | None = None, seed: int = 0) -> np.ndarray:
    """Return the positions (N, 2) of images with label scores (N, L) in [0, 1].

    The score of a single label is the first coordinate; the second is `other` (N,), or a random
    number from 0 to 1 if `other` is None. The scores of two labels are the two coordinates. Three
    or more labels have anchors on a circle (see `anchors`). An image is then at the mean of the
    anchors, weighted by the softmax of its scores divided by TEMPERATURE. Raises InputError if
    there are no labels, or if `other` is passed with more than one label.
    """
    count = scores.shape[1]
    if not count:
        raise InputError("positions need at least one label, got none; pass the scores of one")
    if other is not None and count > 1:
        raise InputError(
            f"other can be combined with one label only, got {count} labels; omit it, or pass the "
            "scores of one"
        )
    if count == 1:
        spread = np.random.default_rng(seed).random(len(scores)) if other is None else other
        return np.stack([scores[:, 0], spread], axis=1).astype(np.float64)
    if count == 2:
        return scores.astype(np.float64)
    weights = np.exp((scores - scores.max(1, keepdims=True)) / TEMPERATURE)
    points: np.ndarray = weights / weights.sum(1, keepdims=True) @ anchors(count)
    return points


def anchors(count: int) -> np.ndarray:
    """Return equally spaced points (count, 2) on the unit circle, clockwise from the top."""
    angles = 2 * np.pi * np.arange(count) / count
    return np.stack([np.sin(angles), np.cos(angles)], axis=1)


def strongest(scores: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """Return the index of each image's best label (N,) by scores (N, L).

    The index is -1 if the score of the best label is below the threshold.
    """
    best = scores.argmax(1)
    return np.where(scores.max(1) >= threshold, best, -1)
