"""Intersection over union against scikit-learn."""

import math

import numpy as np
import pytest

from captioner.errors import InputError
from captioner.metrics.segmentation import VOID, Segmentation, segmentation


@pytest.mark.parametrize("seed", range(5))
def test_scores_match_scikit_learn(seed):
    metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(seed)
    true, given = generator.integers(5, size=(2, 3, 8, 6))
    total = sum(
        (segmentation(g, t, 5) for g, t in zip(given[1:], true[1:], strict=True)),
        segmentation(given[0], true[0], 5),
    )
    flat = true.ravel(), given.ravel()
    each = metrics.jaccard_score(*flat, labels=range(5), average=None)
    np.testing.assert_allclose(total.ious, each)
    assert total.mean_iou == pytest.approx(each.mean())
    micro = metrics.jaccard_score(*flat, labels=range(1, 5), average="micro")
    assert total.micro_iou == pytest.approx(micro)


def test_void_pixels_are_ignored():
    true = np.array([[0, 1, VOID], [VOID, 2, 2]])
    given = np.array([[0, 1, 1], [2, 2, 0]])
    found = segmentation(given, true, 3)
    np.testing.assert_array_equal(found.confusion, [[1, 0, 0], [0, 1, 0], [1, 0, 1]])


def test_classes_that_do_not_occur_do_not_count():
    mask = np.array([[0, 2]])
    found = segmentation(mask, mask, 4)
    assert found.mean_iou == found.micro_iou == 1
    np.testing.assert_array_equal(found.ious, [1, math.nan, 1, math.nan])
    empty = Segmentation(np.zeros((2, 2), np.int64))
    assert math.isnan(empty.mean_iou)
    assert math.isnan(empty.micro_iou)


def test_masks_that_do_not_fit():
    with pytest.raises(InputError, match=r"the same shape \(H, W\), got \(2, 3\) and \(3, 2\)"):
        segmentation(np.zeros((2, 3), int), np.zeros((3, 2), int), 2)
    with pytest.raises(InputError, match="a true mask must be from 0 to 1, got 0 to 2"):
        segmentation(np.zeros((1, 2), int), np.array([[0, 2]]), 2)
