"""Intersection over union of predicted and true masks, summed over images.

Shapes: (H, W) pixels, C classes; class 0 is the background.
"""

import math
from dataclasses import dataclass

import numpy as np

from ..errors import InputError

VOID = 255  # pixels of no class, such as the borders of objects in Pascal VOC; they are ignored


@dataclass(frozen=True)
class Segmentation:
    """A confusion matrix of pixels (C, C), int64: rows are true, columns predicted classes.

    Matrices of several images can be added with `+`.
    """

    confusion: np.ndarray

    def __add__(self, other: "Segmentation") -> "Segmentation":
        return Segmentation(self.confusion + other.confusion)

    @property
    def ious(self) -> np.ndarray:
        """The intersection over union of each class (C,); nan for a class that does not occur."""
        found, true = self.confusion.sum(0), self.confusion.sum(1)
        hits = self.confusion.diagonal()
        union = found + true - hits
        return np.where(union > 0, hits / np.maximum(union, 1), np.nan)

    @property
    def mean_iou(self) -> float:
        """The mean of `ious` over all classes that occur, including the background, or nan."""
        ious = self.ious[~np.isnan(self.ious)]
        return float(ious.mean()) if len(ious) else math.nan

    @property
    def micro_iou(self) -> float:
        """The summed intersections of all classes but the background, divided by the summed unions.

        The result is nan if all pixels are background and were predicted as background.
        """
        hits = self.confusion.diagonal()[1:].sum()
        union = self.confusion.sum(0)[1:].sum() + self.confusion.sum(1)[1:].sum() - hits
        return float(hits / union) if union else math.nan


def segmentation(predicted: np.ndarray, true: np.ndarray, classes: int) -> Segmentation:
    """Compare masks (H, W) of class indices below `classes`; VOID pixels of `true` are ignored.

    Raises InputError if the shapes differ or an index is out of range.
    """
    if predicted.shape != true.shape or predicted.ndim != 2:
        raise InputError(
            f"masks must have the same shape (H, W), got {predicted.shape} and {true.shape}"
        )
    clear = true != VOID
    given, wanted = predicted[clear].astype(np.int64), true[clear].astype(np.int64)
    for name, values in (("predicted", given), ("true", wanted)):
        if len(values) and not 0 <= values.min() <= values.max() < classes:
            raise InputError(
                f"the classes of a {name} mask must be from 0 to {classes - 1}, got "
                f"{values.min()} to {values.max()}"
            )
    counts = np.bincount(wanted * classes + given, minlength=classes * classes)
    return Segmentation(counts.reshape(classes, classes))
