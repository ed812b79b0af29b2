"""What a metric counts of each image; the score is made of the counts' sums over images.

So that the score of one image, of all of them and of any sample of them are one formula. Works on
lists of words; `metrics` itself takes sentences apart. N images, K counts, S scores.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from . import meteor as java_meteor

Words = Sequence[str]
ORDERS = (1, 2, 3, 4)


@dataclass(frozen=True)
class SufficientStatistics:
    """What one metric counts.

    names: the scores it gives, S. counts (N, K). rate: counts of an image, or sums of them,
    (..., K) -> scores (..., S), 0-100, CIDEr times 100.
    """

    names: tuple[str, ...]
    counts: np.ndarray
    rate: Callable[[np.ndarray], np.ndarray]

    @property
    def corpus(self) -> np.ndarray:
        """The scores of all images together, (S,)."""
        return self.rate(self.counts.sum(0))

    @property
    def per_image(self) -> np.ndarray:
        """The scores of each image, (N, S)."""
        return self.rate(self.counts)


def bleu_statistics(
    hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]
) -> SufficientStatistics:
    """Counted by nltk: matches and n-grams of each order, length, length of the closest reference.

    A caption shorter than n words has no n-grams, where nltk's own score counts one miss.
    """
    from nltk.translate.bleu_score import closest_ref_length, modified_precision

    counts = []
    for words, several in zip(hypotheses, references, strict=True):
        grams = [max(0, len(words) + 1 - n) for n in ORDERS]
        found = [
            round(float(modified_precision(several, words, n)) * there) if there else 0
            for n, there in zip(ORDERS, grams, strict=True)
        ]
        counts.append([*found, *grams, len(words), closest_ref_length(several, len(words))])
    return SufficientStatistics(
        tuple(f"BLEU-{n}" for n in ORDERS), np.array(counts, dtype=float), _rate_bleu
    )


def _rate_bleu(counts: np.ndarray) -> np.ndarray:
    """Papineni et al. 2002, section 2.3, with the tiny numbers that coco-caption adds."""
    found, grams, lengths = counts[..., 0:4], counts[..., 4:8], counts[..., 8:10]
    precisions = (found + 1e-15) / (grams + 1e-9)
    means = np.cumprod(precisions, -1) ** (1 / np.array(ORDERS))
    ratio = (lengths[..., :1] + 1e-15) / (lengths[..., 1:] + 1e-9)
    return 100.0 * means * np.exp(np.minimum(0.0, 1 - 1 / ratio))


def rouge_l_statistics(
    hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]
) -> SufficientStatistics:
    """ROUGE-L of each image by pycocoevalcap; that of several is their mean."""
    from pycocoevalcap.rouge.rouge import Rouge

    _, each = Rouge().compute_score(*_as_coco(hypotheses, references))
    return _tally_mean("ROUGE-L", each)


def cider_statistics(
    hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]
) -> SufficientStatistics:
    """CIDEr-D of each image by pycocoevalcap, words rare among all of these references."""
    from pycocoevalcap.cider.cider import Cider

    if not any(words for several in references for words in several):
        return _tally_mean("CIDEr", np.zeros(len(hypotheses)))  # Cider needs a word
    _, each = Cider().compute_score(*_as_coco(hypotheses, references))
    return _tally_mean("CIDEr", each)


def meteor_statistics(
    hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]
) -> SufficientStatistics:
    """Counted by METEOR's own program, which needs Java; raises InputError where that fails."""
    return SufficientStatistics(
        ("METEOR",), java_meteor.count(hypotheses, references), java_meteor.rate
    )


def _tally_mean(name: str, scores: np.ndarray) -> SufficientStatistics:
    """Of a score that is a mean over images: the score and one image."""
    return SufficientStatistics((name,), np.stack([scores, np.ones(len(scores))], 1), _rate_mean)


def _rate_mean(counts: np.ndarray) -> np.ndarray:
    return 100.0 * counts[..., :1] / counts[..., 1:]


def _as_coco(
    hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]
) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """References and captions by image, as the scorers of coco-caption take them."""
    return (
        {i: [" ".join(words) for words in several] for i, several in enumerate(references)},
        {i: [" ".join(words)] for i, words in enumerate(hypotheses)},
    )
