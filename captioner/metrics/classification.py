"""Scores of labels on images: the average precision of each label, compared with chance.

Shapes: I images, L labels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from ..errors import InputError
from .ranking import average_precision

MIN_POSITIVES = 1  # images with a label


@dataclass(frozen=True)
class LabelScores:
    """Average precisions of labels, each in [0, 1].

    chances: the fraction of images with each label, approximately the average precision of random
    scores. left_out: number of labels that were not scored, because fewer than MIN_POSITIVES images
    have them.
    """

    names: tuple[str, ...]
    precisions: tuple[float, ...]
    chances: tuple[float, ...]
    left_out: int = 0

    @property
    def mean(self) -> float:
        """Mean average precision; nan if there are no labels."""
        return fmean(self.precisions) if self.precisions else math.nan

    @property
    def chance(self) -> float:
        """Mean over the labels of the fraction of images with a label; nan if there are none."""
        return fmean(self.chances) if self.chances else math.nan

    @property
    def over_chance(self) -> float:
        """The mean average precision as a multiple of chance; nan if there are no labels."""
        return self.mean / self.chance if self.precisions else math.nan

    def describe(self, title: str) -> str:
        """Return the scores as a line of text."""
        if not self.precisions:
            return f"{title}: mAP not measured, because no image has any of these labels"
        return (
            f"{title}: mAP {self.mean:.3f}, {self.over_chance:.1f} times chance "
            f"({self.chance:.3f}), {len(self.names)} labels"
        )


def label_scores(scores: np.ndarray, targets: np.ndarray, names: Sequence[str]) -> LabelScores:
    """Return the average precision of each label over the images.

    scores (I, L): higher for images that are more likely to have a label. targets (I, L): whether
    an image has a label. Labels of fewer than MIN_POSITIVES images are left out. Raises InputError
    if the shapes do not match, or if a score of any other label is not finite.
    """
    if scores.shape != targets.shape or scores.shape[1:] != (len(names),):
        raise InputError(
            f"scores and targets must have shape (images, {len(names)}), got {scores.shape} and "
            f"{targets.shape}"
        )
    kept, precisions, chances = [], [], []
    for name, own, target in zip(names, scores.T, targets.T, strict=True):
        if target.sum() >= MIN_POSITIVES:
            kept.append(name)
            precisions.append(average_precision(own, target))
            chances.append(float(target.mean()))
    return LabelScores(tuple(kept), tuple(precisions), tuple(chances), len(names) - len(kept))
