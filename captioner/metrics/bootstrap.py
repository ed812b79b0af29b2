"""How sure a corpus score is, by drawing other images from those there; nothing is scored anew.

N images, M samples.
"""

from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .captions import Scores

SEED = 0
SHARE = 0.95  # of the samples that an interval holds


@dataclass(frozen=True)
class Interval:
    """A corpus score, or the difference of two, and where 95 % of the samples lie."""

    value: float
    low: float
    high: float

    def __format__(self, form: str) -> str:
        return f"{self.value:{form}} ({self.low:{form}} to {self.high:{form}})"


def resample(scores: Scores, samples: int, seed: int = SEED) -> dict[str, np.ndarray]:
    """By name the scores (M,) of samples of N images, drawn with replacement.

    The same seed draws the same images. CIDEr keeps the weights that all the images gave its
    words.
    """
    if samples < 1:
        raise InputError(f"bootstrap must draw at least 1 sample, got {samples}")
    tallies = scores.tallies.values()
    draw, images = np.random.default_rng(seed), len(scores.ids)
    counts = np.concatenate([tally.counts for tally in tallies], axis=1)
    sums = np.stack(
        [
            np.bincount(draw.integers(images, size=images), minlength=images) @ counts
            for _ in range(samples)
        ]
    )
    ends = np.cumsum([tally.counts.shape[1] for tally in tallies])[:-1]
    found: dict[str, np.ndarray] = {}
    for tally, part in zip(tallies, np.split(sums, ends, axis=1), strict=True):
        found |= dict(zip(tally.names, tally.rate(part).T, strict=True))
    return found


def intervals(scores: Scores, samples: int, seed: int = SEED) -> dict[str, Interval]:
    """Each corpus score with its interval (Efron 1979: the percentiles of the samples)."""
    drawn = resample(scores, samples, seed)
    return {name: _interval(value, drawn[name]) for name, value in scores.corpus.items()}


def differences(
    ours: Scores, theirs: Scores, samples: int, seed: int = SEED
) -> dict[str, Interval]:
    """How much more each score of ours is than theirs, both of the same images in every sample.

    Koehn 2004, section 4 (paired bootstrap). Raises InputError for scores of other images.
    """
    if ours.ids != theirs.ids:
        raise InputError("paired differences need two scores of the same images in one order")
    left, right = (resample(scores, samples, seed) for scores in (ours, theirs))
    values = theirs.corpus
    return {
        name: _interval(value - values[name], left[name] - right[name])
        for name, value in ours.corpus.items()
    }


def _interval(value: float, samples: np.ndarray) -> Interval:
    low, high = np.quantile(samples, [(1 - SHARE) / 2, (1 + SHARE) / 2])
    return Interval(value, float(low), float(high))
