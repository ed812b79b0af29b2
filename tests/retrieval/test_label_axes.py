"""Positions of images among labels."""

import numpy as np
import pytest

from captioner.errors import InputError
from captioner.retrieval.label_axes import TEMPERATURE, anchors, label_points, strongest


def test_anchors_are_on_a_circle():
    np.testing.assert_allclose(anchors(4), [[0, 1], [1, 0], [0, -1], [-1, 0]], atol=1e-12)


def test_one_label_has_its_score_and_a_spread_or_another_axis():
    scores = np.array([[0.1], [0.9]])
    spread = label_points(scores, seed=3)
    np.testing.assert_array_equal(spread[:, 0], [0.1, 0.9])
    assert ((spread[:, 1] >= 0) & (spread[:, 1] <= 1)).all()
    np.testing.assert_array_equal(spread, label_points(scores, seed=3))
    other = label_points(scores, np.array([0.5, 0.25]))
    np.testing.assert_array_equal(other, [[0.1, 0.5], [0.9, 0.25]])


def test_two_labels_are_the_axes():
    scores = np.array([[0.1, 0.2], [0.3, 0.4]])
    np.testing.assert_array_equal(label_points(scores), scores)


def test_several_labels_attract_by_softmax():
    scores = np.array([[0.9, 0.1, 0.3], [0.2, 0.2, 0.2]])
    places = anchors(3)
    for point, row in zip(label_points(scores), scores, strict=True):
        weights = [np.exp(score / TEMPERATURE) for score in row]
        expected = sum(w * place for w, place in zip(weights, places, strict=True)) / sum(weights)
        np.testing.assert_allclose(point, expected, atol=1e-12)
    assert np.linalg.norm(label_points(scores)[0] - places[0]) < 0.01


def test_strongest_label():
    scores = np.array([[0.9, 0.8], [0.4, 0.3], [0.5, 0.6]])
    assert strongest(scores).tolist() == [0, -1, 1]


def test_what_is_refused():
    with pytest.raises(InputError, match="at least one label"):
        label_points(np.zeros((2, 0)))
    with pytest.raises(InputError, match="other can be combined with one label only, got 2 labels"):
        label_points(np.zeros((2, 2)), np.zeros(2))
