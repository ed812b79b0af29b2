"""Bootstrap intervals of corpus scores and of differences between scores.

Images are resampled with replacement, and only their sufficient statistics are summed again, so
that no caption is scored twice.

Shapes: N images, M bootstrap samples.
"""

from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .captions import Scores

SEED = 0
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A corpus score, or a difference between two, with its 95 % confidence interval."""

    value: float
    low: float
    high: float

    def __format__(self, form: str) -> str:
        return f"{self.value:{form}} ({self.low:{form}} to {self.high:{form}})"


def resample(scores: Scores, samples: int, seed: int = SEED) -> dict[str, np.ndarray]:
    """Compute the corpus scores (M,), by name, of M samples of N images drawn with replacement.

    The same seed selects the same images. CIDEr keeps the document frequencies of all N images.
    Raises InputError if samples is below 1.
    """
    if samples < 1:
        raise InputError(f"samples must be at least 1, got {samples}")
    statistics = scores.statistics.values()
    generator, images = np.random.default_rng(seed), len(scores.ids)
    counts = np.concatenate([each.counts for each in statistics], axis=1)
    sums = np.stack(
        [
            np.bincount(generator.integers(images, size=images), minlength=images) @ counts
            for _ in range(samples)
        ]
    )
    ends = np.cumsum([each.counts.shape[1] for each in statistics])[:-1]
    resampled: dict[str, np.ndarray] = {}
    for each, part in zip(statistics, np.split(sums, ends, axis=1), strict=True):
        resampled |= dict(zip(each.names, each.score(part).T, strict=True))
    return resampled


def intervals(scores: Scores, samples: int, seed: int = SEED) -> dict[str, Interval]:
    """Compute the percentile interval of each corpus score (Efron 1979).

    Samples and errors are as in `resample`.
    """
    resampled = resample(scores, samples, seed)
    return {name: _interval(value, resampled[name]) for name, value in scores.corpus.items()}


def differences(
    scores: Scores, baseline: Scores, samples: int, seed: int = SEED
) -> dict[str, Interval]:
    """Subtract the baseline's scores, and compute intervals of the differences.

    Both systems are scored on the same samples of images: this is the paired bootstrap (Koehn 2004,
    section 4). The baseline must have all scores that `scores` has. Raises InputError if `samples`
    is below 1, and unless both are scores of the same images in the same order.
    """
    if scores.ids != baseline.ids:
        raise InputError(
            "paired differences require scores of the same images in the same order; pass both "
            "systems' captions in the same order of images"
        )
    left, right = (resample(each, samples, seed) for each in (scores, baseline))
    values = baseline.corpus
    return {
        name: _interval(value - values[name], left[name] - right[name])
        for name, value in scores.corpus.items()
    }


def _interval(value: float, samples: np.ndarray) -> Interval:
    low, high = np.quantile(samples, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(value, float(low), float(high))
