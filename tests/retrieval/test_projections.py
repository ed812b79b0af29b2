"""Projections against a singular value decomposition, and groups that are known."""

import sys

import numpy as np
import pytest
import sklearn.manifold
from threadpoolctl import threadpool_info

from captioner.errors import InputError
from captioner.retrieval.projections import (
    choose_perplexity,
    cluster,
    nearest_words,
    project,
    subtract_means,
)

SIZES = (9, 14, 11)


@pytest.fixture(scope="module")
def blobs():
    """Three well-separated groups of vectors (34, 6) in random order, and their groups."""
    rng = np.random.default_rng(7)
    groups = rng.permutation(np.repeat([0, 1, 2], SIZES))
    centres = 10 * np.eye(3, 6)
    return centres[groups] + rng.normal(size=(len(groups), 6)), groups


def test_pca_gives_the_leading_singular_vectors(blobs):
    centred = blobs[0] - blobs[0].mean(0)
    basis = np.linalg.svd(centred).Vh[:2]
    basis *= np.sign(basis[np.arange(2), np.abs(basis).argmax(1)])[:, None]
    np.testing.assert_allclose(project(blobs[0], "pca"), centred @ basis.T, atol=1e-9)


@pytest.mark.parametrize("method", ["tsne", "pca"])
def test_neighbours_stay_together(blobs, method):
    vectors, groups = blobs
    points = project(vectors, method)
    assert points.shape == (34, 2)
    distances = np.linalg.norm(points[:, None] - points, axis=2) + np.diag(np.full(34, np.inf))
    np.testing.assert_array_equal(groups[distances.argmin(1)], groups)


def test_results_repeat_and_depend_on_the_seed():
    noise = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    np.testing.assert_array_equal(project(noise, seed=1), project(noise, seed=1))
    np.testing.assert_array_equal(cluster(noise, 7, seed=1), cluster(noise, 7, seed=1))
    assert (cluster(noise, 7, seed=1) != cluster(noise, 7, seed=2)).any()


def test_everything_runs_on_one_thread(blobs, monkeypatch):
    seen, fit = [], sklearn.manifold.TSNE.fit_transform

    def recorded(*args):
        seen.extend(threadpool_info())
        return fit(*args)

    monkeypatch.setattr(sklearn.manifold.TSNE, "fit_transform", recorded)
    project(blobs[0])
    assert {library["user_api"] for library in seen} >= {"blas", "openmp"}
    assert {library["num_threads"] for library in seen} == {1}


@pytest.mark.parametrize(("count", "perplexity"), [(5, 4 / 3), (31, 10), (91, 30), (2000, 30)])
def test_perplexity_is_bounded_by_the_number_of_vectors(count, perplexity):
    assert choose_perplexity(count) == pytest.approx(perplexity)


@pytest.mark.parametrize("count", [5, 6, 13])
def test_few_vectors_are_projected(count):
    points = project(np.random.default_rng(0).normal(size=(count, 2)))
    assert np.isfinite(points).all()
    assert len(np.unique(points, axis=0)) == count


def test_groups_are_found_and_numbered_by_size(blobs):
    vectors, groups = blobs
    by_size = np.array([2, 0, 1])  # of SIZES
    found = cluster(vectors, 3)
    np.testing.assert_array_equal(found, by_size[groups])
    assert found.dtype == np.int64


def test_there_are_at_most_as_many_groups_as_distinct_vectors():
    vectors = np.eye(3)[[0, 1, 1, 2, 1, 0]]
    np.testing.assert_array_equal(cluster(vectors, 8), [1, 0, 0, 2, 0, 1])
    assert not cluster(vectors, 1).any()


def test_differences_by_rounding_are_none():
    base = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    vectors = base[[0, 0, 0, 1, 1, 2]]
    vectors *= np.float32(1) + np.float32(1e-6) * np.arange(6, dtype=np.float32)[:, None] / 6
    assert len(np.unique(vectors, axis=0)) > 3
    np.testing.assert_array_equal(cluster(vectors, 5), [0, 0, 0, 1, 1, 2])
    with pytest.raises(InputError, match="all 6 are equal"):
        project(vectors[[0, 1, 2, 0, 1, 2]])


def with_value(value):
    vectors = np.random.default_rng(0).normal(size=(6, 3))
    vectors[[2, 4], 1] = value
    return vectors


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.eye(4), "projections and groups need at least 5 vectors, got 4"),
        (np.ones((1, 1)), "projections and groups need at least 5 vectors, got 1"),
        (np.zeros((0, 3)), "projections and groups need at least 5 vectors, got 0"),
        (np.ones((6, 3)), "need distinct vectors, but all 6 are equal; choose"),
        (with_value(np.nan), "NaN or infinity in 2 of 6, the first in row 2"),
        (with_value(-np.inf), "NaN or infinity in 2 of 6, the first in row 2"),
        (np.ones((6, 1)), r"shape \(N, Y\) with Y at least 2, got \(6, 1\)"),
        (np.ones(6), r"shape \(N, Y\) with Y at least 2, got \(6,\)"),
    ],
)
def test_what_cannot_be_projected(vectors, message):
    for compute in (project, lambda given: project(given, "pca"), lambda given: cluster(given, 2)):
        with pytest.raises(InputError, match=message):
            compute(vectors)


def test_wrong_options(blobs):
    with pytest.raises(InputError, match="method must be one of tsne, pca, got 'umap'"):
        project(blobs[0], "umap")
    with pytest.raises(InputError, match="groups must be at least 1, got 0"):
        cluster(blobs[0], 0)


@pytest.mark.parametrize("compute", [project, lambda vectors: cluster(vectors, 2)])
def test_a_missing_library_is_named(compute, blobs, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(InputError, match=r"scikit-learn; run pip install 'captioner\[link\]'"):
        compute(blobs[0])


def test_the_mean_of_each_modality_is_subtracted():
    vectors = np.array([[1.0, 2], [3, 4], [10, 0], [20, 8]])
    expected = [[-1, -1], [1, 1], [-5, -4], [5, 4]]
    assert subtract_means(vectors, np.array([0, 0, 1, 1])).tolist() == expected
    assert vectors[0].tolist() == [1, 2]


def test_groups_are_named_by_the_words_that_fit_them_better_than_the_others():
    vectors = np.array([[1.0, 0, 1], [1, 0, 1], [0, 1, 1], [9, 9, 9]])
    words, rows = ["all", "first", "second"], np.array([[0.0, 0, 5], [1, 0, 0], [0, 1, 0]])
    groups = np.array([0, 0, 1, -1])
    assert nearest_words(vectors, groups, words, rows, 1) == [["first"], ["second"]]
    assert nearest_words(vectors, groups, words, rows, 2)[0] == ["first", "all"]
    assert nearest_words(vectors, np.array([0, 0, -1, -1]), words, rows, 1) == [["all"]]
    forms, rows = ["star", "stars", "sky"], np.array([rows[0], rows[0], rows[0] / 2])
    assert nearest_words(vectors, groups, forms, rows, 2)[0] == ["star", "sky"]
