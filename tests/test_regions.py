"""Clusters, diversity and segments of regions."""

import numpy as np
import pytest
import torch

from captioner.errors import InputError
from captioner.models.linking.linear import LinearMap
from captioner.models.linking.options import LinearOptions
from captioner.regions import cluster_regions, diversity, segment, spatial


def unit(rows, axis):
    return rows / np.linalg.norm(rows, axis=axis, keepdims=True)


def test_clusters_find_a_seam():
    generator = np.random.default_rng(0)
    left, right = unit(generator.normal(size=(2, 3, 8)), -1)
    regions = np.empty((3, 8, 4, 6))
    regions[..., :2], regions[..., 2:] = left[..., None, None], right[..., None, None]
    noisy = unit(regions + generator.normal(0, 0.05, regions.shape), 1)
    groups = cluster_regions(noisy, np.eye(8), 2)
    np.testing.assert_array_equal(groups, np.repeat([[0, 0, 1, 1, 1, 1]], 4, 0))


def test_clusters_are_as_good_as_those_of_scikit_learn():
    cluster = pytest.importorskip("sklearn.cluster")
    generator = np.random.default_rng(1)
    regions = unit(generator.normal(size=(2, 4, 5, 5)), 1)
    labels = unit(generator.normal(size=(6, 4)), 1)
    points = np.einsum("keyx,le->yxl", regions, labels).reshape(25, 6) / 2
    found = cluster_regions(regions, labels, 3).ravel()
    inertia = sum(((points[found == g] - points[found == g].mean(0)) ** 2).sum() for g in range(3))
    best = cluster.KMeans(3, n_init=10, random_state=0).fit(points).inertia_
    assert inertia <= 1.1 * best


def test_clusters_ignore_what_no_label_describes():
    """The halves differ in the first dimension, the rows, which differ more, in the second."""
    regions = np.zeros((1, 2, 4, 4))
    regions[:, 0, :, 2:], regions[:, 1, ::2] = 0.5, 5
    assert cluster_regions(regions, np.array([[1.0, 0]]), 2).tolist() == [[0, 0, 1, 1]] * 4
    assert cluster_regions(regions, np.eye(2), 2).tolist() == [[0] * 4, [1] * 4] * 2


def test_equal_cells_and_many_clusters():
    regions = np.ones((1, 2, 2, 2)) / np.sqrt(2)
    assert cluster_regions(regions, np.eye(2), 1).tolist() == [[0, 0], [0, 0]]
    assert cluster_regions(regions, np.eye(2), 3).max() == 0
    with pytest.raises(InputError, match=r"number of regions, must be from 1 to 4, .*, got 5"):
        cluster_regions(regions, np.eye(2), 5)


def test_diversity_is_the_variance_of_unit_vectors():
    generator = np.random.default_rng(0)
    regions = unit(generator.normal(size=(2, 3, 4, 2, 5)), 2)
    flat = np.moveaxis(regions, 2, -1).reshape(2, -1, 4)
    expected = [((each - each.mean(0)) ** 2).sum(1).mean() for each in flat]
    np.testing.assert_allclose(diversity(torch.from_numpy(regions)), expected)
    assert diversity(torch.ones(1, 1, 1, 2, 2)).item() == 0


def test_segments_are_the_largest_value_above_the_threshold():
    maps = np.array([[[0.9, 0.2], [0.7, 0.85]], [[0.8, 0.9], [0.6, 0.95]]])
    assert segment(maps, 0.8).tolist() == [[1, 2], [0, 2]]


def test_a_model_without_regions_is_refused():
    with pytest.raises(InputError, match=r"is not spatial.*--system spatial"):
        spatial(LinearMap(4, 4, LinearOptions()))
