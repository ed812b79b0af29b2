"""Average precision of labels against scikit-learn."""

import math

import numpy as np
import pytest

from captioner.errors import InputError
from captioner.metrics.classification import label_scores


@pytest.mark.parametrize("seed", range(5))
def test_scores_match_scikit_learn(seed):
    metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(seed)
    scores, targets = generator.random((30, 4)), generator.random((30, 4)) < 0.3
    found = label_scores(scores, targets, "abcd")
    each = metrics.average_precision_score(targets, scores, average=None)
    np.testing.assert_allclose(found.precisions, each)
    assert found.mean == pytest.approx(each.mean())
    assert found.chance == pytest.approx(targets.mean())
    assert found.over_chance == pytest.approx(each.mean() / targets.mean())


def test_labels_of_no_image_are_left_out():
    targets = np.array([[True, False], [False, False]])
    found = label_scores(np.array([[0.9, 0.1], [0.2, 0.3]]), targets, ["dog", "cat"])
    assert (found.names, found.precisions, found.chances) == (("dog",), (1.0,), (0.5,))
    assert found.left_out == 1
    assert found.describe("seen") == "seen: mAP 1.000, 2.0 times chance (0.500), 1 labels"
    none = label_scores(np.zeros((2, 1)), targets[:, 1:], ["cat"])
    assert math.isnan(none.mean)
    assert (
        none.describe("held out")
        == "held out: mAP not measured, because no image has any of these labels"
    )


def test_equal_scores_are_the_worst_order():
    targets = np.array([[True], [False], [False], [False]])
    assert label_scores(np.zeros((4, 1)), targets, ["dog"]).mean == 0.25


def test_shapes_must_fit():
    with pytest.raises(
        InputError, match=r"must have shape \(images, 2\), got \(3, 2\) and \(3, 1\)"
    ):
        label_scores(np.zeros((3, 2)), np.zeros((3, 1), bool), "ab")
