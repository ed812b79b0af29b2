"""Re-ranking: options, the candidates of each query, and their order.

`Reranker` computes what captioners and m-CNNs add to the cosines. Shapes: Q queries, N items, K
candidates.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..options import Options, check_bounds, flag_of, option

TOP = 50
# Chosen on Flickr8k's dev split, where weights from 0.01 to 0.05 are better than none.
CAPTIONER_WEIGHT = 0.03  # of a nat beside the cosine
MCNN_WEIGHT = 0.1  # of an m-CNN's score beside the cosine
SHARED_WEIGHT = 0.15  # of several m-CNNs, divided by their number
QUANTILE = 0.7  # of the evidence of a query's candidates
SAMPLE = 16  # training images over which a captioner's p(text) is estimated


@dataclass(frozen=True)
class RerankOptions(Options):
    """The models that re-rank the best results, the number of these results, and a weight."""

    rerank: tuple[Path, ...] = option(
        (), "captioners or m-CNNs that re-rank the results; the scores of several are added"
    )
    rerank_top: int = option(TOP, "number of best results to re-rank per query", at_least=1)
    rerank_weight: float | None = option(
        None,
        "weight of each model beside the cosine "
        f"[captioner: {CAPTIONER_WEIGHT}, m-CNN: {MCNN_WEIGHT}, several m-CNNs: {SHARED_WEIGHT} "
        "in all]",
        at_least=0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self)
        if not self.rerank and (idle := self.given - {"rerank"}):
            raise InputError(f"{flag_of(min(idle))} needs --rerank")


def evidence_for_texts(scores: np.ndarray, log_priors: np.ndarray | None) -> np.ndarray:
    """Return the evidence for each candidate text of one image (K,) or of Q images (Q, K).

    scores (Q, K): scores of the candidates of each image. They are returned if `log_priors` is
    None; otherwise they are a captioner's log p(text | image), in nats. log_priors (Q, K): log
    p(text), which is subtracted, because a captioner prefers common sentences for every image. The
    difference d grows with the number of rare words, even if they do not fit. It is therefore
    softly limited to q, its quantile QUANTILE over the image's candidates: -log(e^-d + e^-q).
    """
    if log_priors is None:
        return scores
    difference: np.ndarray = scores - log_priors
    if not difference.shape[-1]:  # without candidates, there is no quantile
        return difference
    limit = np.quantile(difference, QUANTILE, axis=-1, keepdims=True)
    limited: np.ndarray = -np.logaddexp(-difference, -limit)
    return limited


def best_candidates(scores: np.ndarray, top: int) -> np.ndarray:
    """Return the columns of the `top` highest scores of each row (Q, min(top, N)), best first.

    scores (Q, N). Equal scores are in the order of the columns.
    """
    top = min(top, scores.shape[1])
    found = np.empty((len(scores), top), np.int64)
    for row, values in zip(found, scores, strict=True):
        near = np.flatnonzero(values >= np.partition(values, -top)[-top])
        row[:] = near[np.lexsort((near, -values[near]))[:top]]
    return found


def place_first(scores: np.ndarray, candidates: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return scores (Q, N), float64, that rank all candidates above the other items.

    scores (Q, N): scores of all items, kept for those that are not candidates. candidates (Q, K):
    columns of the candidates, distinct in each row. values (Q, K), with K at least 1: new scores of
    the candidates, which are shifted by a constant for each query.
    """
    placed = scores.astype(np.float64)
    shift = placed.max(1, keepdims=True) + 1 - values.min(1, keepdims=True)
    np.put_along_axis(placed, candidates, values + shift, 1)
    return placed
