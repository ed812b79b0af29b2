"""Approximate search beside exact search."""

import sys

import numpy as np
import pytest

from captioner.errors import InputError
from captioner.retrieval import approximate, exact

SIZE = 16


def draw(count, seed=0):
    """Unit rows around 50 centres, float16."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(7).standard_normal((50, SIZE))
    rows = centres[generator.integers(50, size=count)] + 0.3 * generator.standard_normal(
        (count, SIZE)
    )
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


ROWS = draw(20_000)
QUERIES = draw(100, seed=1).astype(np.float32)


@pytest.fixture(scope="module")
def clusters():
    return approximate.build(ROWS)


def test_most_of_the_nearest_rows_are_found_with_their_exact_products(clusters):
    found = 0
    for query in QUERIES:
        rows, products = clusters.search(ROWS, query, 10)
        nearest, largest = exact.search(ROWS, query, 10)
        found += len(np.intersect1d(rows, nearest))
        np.testing.assert_array_equal(products, np.sort(products)[::-1])
        np.testing.assert_allclose(products, ROWS[rows].astype(np.float32) @ query, atol=1e-6)
        assert (products <= largest).all()
    assert found / (10 * len(QUERIES)) > 0.95


def test_few_clusters_are_searched(clusters, monkeypatch):
    compared = []
    search = exact.search

    def count(rows, vector, top):
        compared.append(len(rows))
        return search(rows, vector, top)

    monkeypatch.setattr(exact, "search", count)
    clusters.search(ROWS, QUERIES[0], 30)
    assert compared == [300]


def test_an_index_of_few_rows_is_searched_completely():
    rows = draw(150)
    for count in (0, 1, 7, 150):
        clusters = approximate.build(rows[:count])
        for query in QUERIES[:20]:
            found = clusters.search(rows[:count], query, 100)
            for actual, expected in zip(found, exact.search(rows[:count], query, 100), strict=True):
                np.testing.assert_array_equal(actual, expected)


def test_rows_appended_since_are_found(clusters):
    new = draw(10, seed=2)
    rows = np.concatenate([ROWS, new])
    for number, row in enumerate(new):
        found, _ = clusters.search(rows, row.astype(np.float32), 5)
        assert len(ROWS) + number in found


def test_equal_rows_are_in_the_order_of_the_rows():
    rows = np.repeat(draw(30), 2, axis=0)
    found, _ = approximate.build(rows).search(rows, rows[20].astype(np.float32), 2)
    assert found.tolist() == [20, 21]


def test_clusters_are_the_same_every_time_and_after_reading(clusters, tmp_path):
    approximate.build(ROWS).write(tmp_path / "a")
    clusters.write(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    again = approximate.read(tmp_path / "a", SIZE)
    assert len(again) == len(ROWS)
    for query in QUERIES[:20]:
        expected = clusters.search(ROWS, query, 10)
        for actual, right in zip(again.search(ROWS, query, 10), expected, strict=True):
            np.testing.assert_array_equal(actual, right)


def test_damaged_clusters(clusters, tmp_path):
    path = tmp_path / "clusters-1.faiss"
    clusters.write(path)
    with pytest.raises(InputError, match="is damaged: its rows have 16 dimensions, expected 8"):
        approximate.read(path, 8)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"is damaged: .*run captioner index --approximate again"):
        approximate.read(path, SIZE)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="is damaged"):
        approximate.read(path, SIZE)


def test_without_faiss(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(InputError, match=r"pip install 'captioner\[approximate\]'"):
        approximate.build(ROWS)
