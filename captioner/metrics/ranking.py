"""Precision among the first K and average precision of a ranking, from scores.

Shapes: I images, Q queries.
"""

import numpy as np

from ..errors import InputError

K = 5


def precision_at(scores: np.ndarray, relevant: np.ndarray, k: int = K) -> float:
    """Return the share of relevant images among the `k` with the highest scores.

    scores, relevant (I,): numbers and booleans. Irrelevant images come first among equal scores, so
    that constant scores yield the worst result. If there are fewer than `k` images, the share is
    still of k. Raises InputError if k is below 1, the shapes differ or a score is not finite.
    """
    if k < 1:
        raise InputError(f"k must be at least 1, got {k}")
    return float(_in_order(scores, relevant)[:k].sum() / k)


def average_precision(scores: np.ndarray, relevant: np.ndarray) -> float:
    """Return the mean, over relevant images, of the precision down to their ranks.

    Parameters, ties and errors are as in `precision_at`. Raises InputError if no image is relevant.
    """
    ordered = _in_order(scores, relevant)
    places = np.flatnonzero(ordered)
    if not len(places):
        raise InputError(
            "average precision is undefined: no image is relevant; mark at least one as relevant"
        )
    return float((np.arange(1, len(places) + 1) / (places + 1)).mean())


def _in_order(scores: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Return the relevance (I,) of images by decreasing score, irrelevant ones first in ties."""
    scores, relevant = np.asarray(scores), np.asarray(relevant, dtype=bool)
    if scores.ndim != 1 or scores.shape != relevant.shape or not len(scores):
        raise InputError(
            "scores and relevant must be (images,) and nonempty, got "
            f"{scores.shape} and {relevant.shape}"
        )
    if not np.isfinite(scores).all():
        raise InputError("scores must be finite, got NaN or infinity")
    ordered: np.ndarray = relevant[np.lexsort((relevant, -scores))]
    return ordered
