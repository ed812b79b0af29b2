"""Exact search against a sort of all products."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from captioner.retrieval import exact


def unit_rows(count, dimensions, seed=0):
    rows = np.random.default_rng(seed).standard_normal((count, dimensions))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def sorted_all(rows, vector, top):
    """Return the best rows in order, and their products, in float64."""
    products: np.ndarray = (rows.astype(np.float64) * vector).sum(1)
    order = sorted(range(len(rows)), key=lambda i: (-products[i], i))[:top]
    return order, products[order]


@pytest.mark.parametrize("count", [1, 9, exact.BLOCK, 2 * exact.BLOCK + 7])
@pytest.mark.parametrize("top", [1, 10, 10**6])
def test_the_largest_products_are_found(count, top):
    rows, vector = unit_rows(count, 33), unit_rows(1, 33, seed=1)[0].astype(np.float32)
    indices, products = exact.search(rows, vector, top)
    expected, values = sorted_all(rows, vector, top)
    assert len(set(indices)) == len(expected)
    np.testing.assert_allclose(products, values, atol=1e-6)
    np.testing.assert_allclose(products, (rows[indices].astype(float) * vector).sum(1), atol=1e-6)
    assert indices[:10].tolist() == expected[:10]  # rows that float32 can tell apart
    assert products.dtype == np.float32


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_equal_rows_are_ordered_by_row(threads):
    """Matrix products of equal rows would depend on their place and on the number of threads."""
    rows = np.repeat(unit_rows(1, 300), exact.BLOCK + 103, axis=0)
    torch.set_num_threads(threads)
    try:
        indices, products = exact.search(rows, unit_rows(1, 300, seed=1)[0].astype(np.float32), 50)
    finally:
        torch.set_num_threads(1)
    assert indices.tolist() == list(range(50))
    assert len(set(products.tolist())) == 1


@given(st.lists(st.integers(-2, 2), min_size=1, max_size=40), st.integers(1, 50))
def test_ties_are_ordered_by_row(values, top):
    rows = np.array(values, np.float16)[:, None] / 2
    vector = np.ones(1, np.float32)
    assert exact.search(rows, vector, top)[0].tolist() == sorted_all(rows, vector, top)[0]


def test_no_rows_and_no_results():
    vector = np.ones(4, np.float32)
    assert len(exact.search(np.empty((0, 4), np.float16), vector, 5)[0]) == 0
    assert len(exact.search(np.ones((3, 4), np.float16), vector, 0)[1]) == 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_damaged_row_is_an_error(value):
    rows = unit_rows(9, 4)
    rows[5, 2] = value
    with pytest.raises(ValueError, match="a row contains values that are not finite numbers"):
        exact.search(rows, np.ones(4, np.float32), 1)
