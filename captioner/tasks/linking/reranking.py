"""Re-ranking of a split's candidates by models that score pairs, and the resulting scores.

Shapes: I images, N captions, P pairs, K candidates.
"""

import numpy as np

from ...data.dataset import CaptionData
from ...reranker import Reranker
from ...retrieval.reranking import best_candidates, evidence_for_texts, place_first
from .vectors import RetrievalResult, rank_split


def rerank_split(
    reranker: Reranker, scores: np.ndarray, data: CaptionData, split: str, top: int
) -> RetrievalResult:
    """Rank a split by `scores` (I, N), and re-rank the `top` best candidates of each query.

    A model scores the candidates of images and of captions together, so that it encodes every image
    once. The items that are not candidates follow in the order of their scores.
    """
    examples = data.split(split)
    texts = [text for example in examples for text in example.captions]
    captions = best_candidates(scores, top)  # (I, K) of each image
    images = best_candidates(scores.T, top)  # (N, K) of each caption
    wanted = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(wanted, captions, True, 1)
    np.put_along_axis(wanted.T, images, True, 1)
    paths, pairs = [example.path for example in examples], np.argwhere(wanted)
    by_image, by_text = _take(scores, captions), _take(scores.T, images)
    for scorer, weight in zip(reranker.scorers, reranker.weights, strict=True):
        found = np.full(scores.shape, np.nan)
        found[wanted] = scorer.score(paths, texts, pairs, show_progress=True)
        priors = scorer.log_priors(texts, show_progress=True)
        chosen = None if priors is None else priors[captions]
        by_image = by_image + weight * evidence_for_texts(_take(found, captions), chosen)
        by_text = by_text + weight * _take(found.T, images)
    ranked = place_first(scores, captions, by_image), place_first(scores.T, images, by_text).T
    return rank_split(*ranked, data, split)


def _take(values: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Return the entries (Q, K) of values (Q, N) for each query's candidates (Q, K)."""
    return np.take_along_axis(values, candidates, 1)
