"""Scores of predicted classes: accuracy with a bootstrap interval, macro F1 and confusion.

Shapes: N items, L classes, M bootstrap samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..errors import InputError
from .bootstrap import CONFIDENCE, SEED, Interval

SAMPLES = 1000


@dataclass(frozen=True, eq=False)
class ClassScores:
    """True and predicted classes of N items, and their scores.

    truth, predicted (N,): indices of classes. groups (N,): items of the same group, such as texts
    of the same image, are resampled together. classes: names of the L classes.
    """

    truth: np.ndarray
    predicted: np.ndarray
    groups: np.ndarray
    classes: tuple[str, ...]

    @property
    def accuracy(self) -> float:
        """The share of items whose class is predicted."""
        return float((self.truth == self.predicted).mean())

    @cached_property
    def confusion(self) -> np.ndarray:
        """The confusion matrix (L, L): counts by true class (row) and predicted class (column)."""
        size = len(self.classes)
        counts = np.bincount(self.truth * size + self.predicted, minlength=size * size)
        table: np.ndarray = counts.reshape(size, size)
        return table

    @property
    def recalls(self) -> np.ndarray:
        """The share (L,) of each class's items that are predicted as it; nan without items."""
        totals = self.confusion.sum(1)
        shares: np.ndarray = self.confusion.diagonal() / np.where(totals, totals, np.nan)
        return shares

    @property
    def macro_f1(self) -> float:
        """The mean F1 of the classes that occur among the true or the predicted ones."""
        table = self.confusion
        sums = table.sum(0) + table.sum(1)  # twice the true positives, and all errors
        occurring = sums > 0
        return float((2 * table.diagonal()[occurring] / sums[occurring]).mean())

    @cached_property
    def interval(self) -> Interval:
        """The accuracy with its 95 % percentile interval over groups (Efron 1979)."""
        return _interval(self.accuracy, _resample(self.truth == self.predicted, self.groups))

    def difference(self, baseline: "ClassScores") -> Interval:
        """Return the accuracy minus that of the baseline, with its interval.

        The interval is as in `interval`; both accuracies are computed on the same samples of
        groups. Raises InputError if the true classes of the baseline's items differ.
        """
        if not np.array_equal(self.truth, baseline.truth):
            raise InputError(
                "paired differences need scores of the same items in the same order, but the true "
                "classes differ; score both on the same items"
            )
        right = (self.truth == self.predicted).astype(float)
        gained = right - (baseline.truth == baseline.predicted)
        return _interval(self.accuracy - baseline.accuracy, _resample(gained, self.groups))

    def describe(self) -> str:
        """Return the confusion matrix and the recalls as lines of text, true classes in rows.

        Classes without items have no row.
        """
        width = max(6, *(len(name) + 1 for name in self.classes))
        head = "".join(f"{name:>{width}}" for name in self.classes)
        lines = [f"{'true, predicted':18}{head}{'recall':>9}"]
        for name, row, recall in zip(self.classes, self.confusion, self.recalls, strict=True):
            if row.sum():
                cells = "".join(f"{count:>{width},}" for count in row)
                lines.append(f"{name:>15}   {cells}{recall:>9.3f}")
        return "\n".join(lines)


def majority(truth: np.ndarray, groups: np.ndarray, classes: Sequence[str]) -> ClassScores:
    """Return the scores of predicting, for all items, the class that is most frequent among them.

    Of equally frequent classes, the one with the lowest index is predicted.
    """
    most = np.bincount(truth, minlength=len(classes)).argmax()
    return ClassScores(truth, np.full_like(truth, most), groups, tuple(classes))


def _resample(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the mean (M,) of values (N,) in samples of groups drawn with replacement."""
    _, owner = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(owner, values), np.bincount(owner)
    generator = np.random.default_rng(SEED)
    means = np.empty(SAMPLES)
    for sample in range(SAMPLES):
        drawn = generator.integers(len(sums), size=len(sums))
        means[sample] = sums[drawn].sum() / counts[drawn].sum()
    return means


def _interval(value: float, samples: np.ndarray) -> Interval:
    low, high = np.quantile(samples, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(value, float(low), float(high))
