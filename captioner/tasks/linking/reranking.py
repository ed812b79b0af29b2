"""Re-ranking of a split's candidates by a captioner, and the scores of retrieval that result.

Shapes: I images, N captions, P pairs, K candidates.
"""

import numpy as np

from ...data.dataset import CaptionData
from ...reranker import Reranker
from ...retrieval.reranking import best_candidates, place_first
from .vectors import RetrievalResult, rank_split


def rerank_split(
    reranker: Reranker, scores: np.ndarray, data: CaptionData, split: str, top: int
) -> RetrievalResult:
    """Rank a split by `scores` (I, N), and re-rank the first `top` candidates of each query.

    The candidates of images and of captions are scored together, so that every image is encoded
    once. The other candidates follow in the order of their scores.
    """
    examples = data.split(split)
    texts = [text for example in examples for text in example.captions]
    captions = best_candidates(scores, top)  # (I, K) of each image
    images = best_candidates(scores.T, top)  # (N, K) of each caption
    wanted = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(wanted, captions, True, 1)
    np.put_along_axis(wanted.T, images, True, 1)
    pairs = np.argwhere(wanted)  # (P, 2)
    source = reranker.open([example.path for example in examples])
    log_probs = reranker.log_probs(source, texts, pairs, show_progress=True)
    log_priors, tokens = reranker.log_priors(texts, show_progress=True), reranker.tokens(texts)
    rows, columns = pairs.T
    for_texts, for_images = scores.astype(np.float64), scores.astype(np.float64)
    for values, parts in ((for_images, log_probs), (for_texts, log_probs - log_priors[columns])):
        values[rows, columns] = reranker.combine(values[rows, columns], parts, tokens[columns])
    by_image = place_first(scores, captions, np.take_along_axis(for_texts, captions, 1))
    by_text = place_first(scores.T, images, np.take_along_axis(for_images.T, images, 1)).T
    return rank_split(by_image, by_text, data, split)
