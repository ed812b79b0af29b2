"""Counts per image from which BLEU, ROUGE-L, CIDEr and METEOR are computed.

A corpus score is a function of the counts summed over images, so that one formula scores a single
image, the whole corpus and any bootstrap sample of it. The functions take lists of words;
captions.py splits the sentences.

Shapes: N images, K counts, S scores.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .meteor import meteor_counts, meteor_score

Words = Sequence[str]
ORDERS = (1, 2, 3, 4)


@dataclass(frozen=True)
class SufficientStatistics:
    """The counts from which one metric computes its scores.

    names: names of the S scores. counts (N, K): one row per image. score: function from the counts
    of one image, or their sums over images, (..., K), to scores (..., S), 0-100 (CIDEr: times 100).
    """

    names: tuple[str, ...]
    counts: np.ndarray
    score: Callable[[np.ndarray], np.ndarray]

    @property
    def corpus(self) -> dict[str, float]:
        """The scores of all images together, by name."""
        return dict(zip(self.names, map(float, self.score(self.counts.sum(0))), strict=True))

    @property
    def per_image(self) -> dict[str, list[float]]:
        """The N scores of individual images, by name."""
        return dict(zip(self.names, self.score(self.counts).T.tolist(), strict=True))


def bleu_statistics(
    hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]
) -> SufficientStatistics:
    """Count the n-grams of orders 1 to 4, both matched ones and all, and the words.

    The words are counted in the caption and in the reference closest in length. The n-gram counts
    are nltk's, except that a caption shorter than n words has no n-grams, whereas nltk's score
    counts one miss.
    """
    from nltk.translate.bleu_score import closest_ref_length, modified_precision

    counts = []
    for words, image_references in zip(hypotheses, references, strict=True):
        totals = [max(0, len(words) + 1 - n) for n in ORDERS]
        matches = [
            round(float(modified_precision(image_references, words, n)) * total) if total else 0
            for n, total in zip(ORDERS, totals, strict=True)
        ]
        closest = closest_ref_length(image_references, len(words))
        counts.append([*matches, *totals, len(words), closest])
    return SufficientStatistics(
        tuple(f"BLEU-{n}" for n in ORDERS), np.array(counts, dtype=float), _bleu_score
    )


def _bleu_score(counts: np.ndarray) -> np.ndarray:
    """Compute BLEU (Papineni et al. 2002, section 2.3) with coco-caption's tiny constants."""
    matches, totals, lengths = counts[..., 0:4], counts[..., 4:8], counts[..., 8:10]
    precisions = (matches + 1e-15) / (totals + 1e-9)
    means = np.cumprod(precisions, -1) ** (1 / np.array(ORDERS))
    ratio = (lengths[..., :1] + 1e-15) / (lengths[..., 1:] + 1e-9)
    return 100.0 * means * np.exp(np.minimum(0.0, 1 - 1 / ratio))


def rouge_l_statistics(
    hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]
) -> SufficientStatistics:
    """Compute ROUGE-L of each image with pycocoevalcap; the corpus score is the mean."""
    from pycocoevalcap.rouge.rouge import Rouge

    _, scores = Rouge().compute_score(*_coco_inputs(hypotheses, references))
    return _mean_statistics("ROUGE-L", scores)


def cider_statistics(
    hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]
) -> SufficientStatistics:
    """Compute CIDEr-D of each image with pycocoevalcap; the corpus score is the mean.

    Document frequencies are counted in `references`.
    """
    from pycocoevalcap.cider.cider import Cider

    if not any(words for image_references in references for words in image_references):
        return _mean_statistics("CIDEr", np.zeros(len(hypotheses)))  # Cider fails without words
    _, scores = Cider().compute_score(*_coco_inputs(hypotheses, references))
    return _mean_statistics("CIDEr", scores)


def meteor_statistics(
    hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]
) -> SufficientStatistics:
    """Run METEOR's Java program for its counts; raise InputError if Java is missing or fails."""
    return SufficientStatistics(("METEOR",), meteor_counts(hypotheses, references), meteor_score)


def _mean_statistics(name: str, scores: np.ndarray) -> SufficientStatistics:
    """Return the statistics of a mean over images: each image's score, and a count of 1."""
    return SufficientStatistics((name,), np.stack([scores, np.ones(len(scores))], 1), _mean_score)


def _mean_score(counts: np.ndarray) -> np.ndarray:
    scores: np.ndarray = 100.0 * counts[..., :1] / counts[..., 1:]
    return scores


def _coco_inputs(
    hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]
) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """Return references and captions by image index, in the format of coco-caption's scorers."""
    return (
        {
            i: [" ".join(words) for words in image_references]
            for i, image_references in enumerate(references)
        },
        {i: [" ".join(words)] for i, words in enumerate(hypotheses)},
    )
