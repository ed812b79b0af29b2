"""Precision and average precision against scikit-learn, and by hand for ties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_score

from captioner.errors import InputError
from captioner.metrics.ranking import average_precision, precision_at


@given(st.integers(0, 10_000), st.integers(1, 40))
def test_distinct_scores_agree_with_scikit_learn(seed, size):
    rng = np.random.default_rng(seed)
    scores = rng.permutation(size) / 7.0
    relevant = rng.random(size) < 0.4
    relevant[rng.integers(size)] = True
    found = average_precision(scores, relevant)
    assert found == pytest.approx(average_precision_score(relevant, scores))
    k = int(rng.integers(1, size + 1))
    first = scores >= np.sort(scores)[-k]
    assert precision_at(scores, relevant, k) == pytest.approx(precision_score(relevant, first))


def test_equal_scores_count_as_wrong():
    relevant = np.array([True, False, True, False])
    assert precision_at(np.zeros(4), relevant, 2) == 0
    assert average_precision(np.zeros(4), relevant) == pytest.approx((1 / 3 + 2 / 4) / 2)
    assert precision_at(np.array([1, 1, 2, 0]), relevant, 2) == 0.5


def test_fewer_images_than_k_are_still_a_share_of_k():
    assert precision_at(np.array([1.0, 2.0]), np.array([True, True]), 5) == 0.4


@pytest.mark.parametrize(
    ("scores", "relevant", "message"),
    [
        ([1.0, np.nan], [True, False], "scores must be finite"),
        (
            [1.0, 2.0],
            [True],
            r"must have the same nonempty shape \(images,\), got \(2,\) and \(1,\)",
        ),
        ([], [], "nonempty"),
    ],
)
def test_unusable_scores_are_refused(scores, relevant, message):
    for measure in (precision_at, average_precision):
        with pytest.raises(InputError, match=message):
            measure(np.array(scores), np.array(relevant, bool))


def test_undefined_values_are_refused():
    with pytest.raises(InputError, match="average precision is undefined: no image is relevant"):
        average_precision(np.ones(2), np.zeros(2, bool))
    with pytest.raises(InputError, match="k must be at least 1, got 0"):
        precision_at(np.ones(2), np.ones(2, bool), 0)
