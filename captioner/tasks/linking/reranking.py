"""Re-ranking of a split's candidates by a captioner, and the resulting retrieval scores.

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

    The candidates of images and of captions are scored together, so that every image is encoded
    once. The other items follow in the order of their scores.
    """
    examples = data.split(split)
    texts = [text for example in examples for text in example.captions]
    captions = best_candidates(scores, top)  # (I, K) of each image
    images = best_candidates(scores.T, top)  # (N, K) of each caption
    wanted = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(wanted, captions, True, 1)
    np.put_along_axis(wanted.T, images, True, 1)
    source = reranker.open([example.path for example in examples])
    log_probs = np.full(scores.shape, np.nan)
    log_probs[wanted] = reranker.log_probs(source, texts, np.argwhere(wanted), show_progress=True)
    log_priors = reranker.log_priors(texts, show_progress=True)
    evidence = evidence_for_texts(_take(log_probs, captions), log_priors[captions])
    by_image = place_first(scores, captions, _take(scores, captions) + reranker.weight * evidence)
    evidence = _take(log_probs.T, images)
    by_text = place_first(scores.T, images, _take(scores.T, images) + reranker.weight * evidence)
    return rank_split(by_image, by_text.T, data, split)


def _take(values: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Return the entries (Q, K) of values (Q, N) for each query's candidates (Q, K)."""
    return np.take_along_axis(values, candidates, 1)
