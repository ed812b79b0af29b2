"""Precision at K and average precision of a ranking, computed from scores.

Shapes: I images.
"""

import numpy as np

from ..errors import InputError

K = 5


def precision_at(scores: np.ndarray, relevant: np.ndarray, k: int = K) -> float:
    """Return the fraction of relevant images among the `k` with the highest scores, in [0, 1].

    scores (I,): higher is better. relevant (I,): booleans. Among equal scores, irrelevant images
    come first, so that constant scores yield the worst result. The divisor is `k` even if there are
    fewer images. Raises InputError if k is below 1, the shapes differ, there are no images, or a
    score is not finite.
    """
    if k < 1:
        raise InputError(f"k must be at least 1, got {k}")
    return float(_in_order(scores, relevant)[:k].sum() / k)


def average_precision(scores: np.ndarray, relevant: np.ndarray) -> float:
    """Return the average precision, the mean of the precision at the rank of each relevant image.

    Parameters, ties and errors are as in `precision_at`. Also raises InputError if no image is
    relevant.
    """
    ordered = _in_order(scores, relevant)
    places = np.flatnonzero(ordered)
    if not len(places):
        raise InputError(
            "average precision is undefined: no image is relevant; mark at least one as relevant"
        )
    return float((np.arange(1, len(places) + 1) / (places + 1)).mean())


def _in_order(scores: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Return the relevance (I,) of images sorted by decreasing score; ties: irrelevant first."""
    scores, relevant = np.asarray(scores), np.asarray(relevant, dtype=bool)
    if scores.ndim != 1 or scores.shape != relevant.shape or not len(scores):
        raise InputError(
            "scores and relevant must have the same nonempty shape (images,), got "
            f"{scores.shape} and {relevant.shape}"
        )
    if not np.isfinite(scores).all():
        raise InputError("scores must be finite, got NaN or infinity")
    ordered: np.ndarray = relevant[np.lexsort((relevant, -scores))]
    return ordered
