"""Candidates of re-ranking and their order, against sorting in plain Python."""

from pathlib import Path

import numpy as np
import pytest

from captioner.errors import InputError
from captioner.retrieval.reranking import (
    RerankOptions,
    best_candidates,
    evidence_for_texts,
    place_first,
)


@pytest.mark.parametrize("top", [1, 3, 7, 20])
def test_best_candidates(top):
    scores = np.random.default_rng(0).integers(0, 4, (9, 7)) / 4  # many are equal
    expected = [sorted(range(7), key=lambda i: (-row[i], i))[:top] for row in scores]
    assert best_candidates(scores, top).tolist() == expected


def test_candidates_precede_all_others():
    noise = np.random.default_rng(1)
    scores = noise.normal(size=(5, 8)).astype(np.float32)
    candidates = best_candidates(scores, 3)
    values = noise.normal(0, 100, (5, 3))
    placed = place_first(scores, candidates, values)
    for row, chosen, value, new in zip(scores, candidates, values, placed, strict=True):
        others = [i for i in np.argsort(-row) if i not in chosen]
        order = [chosen[i] for i in np.argsort(-value)] + others
        assert np.argsort(-new).tolist() == order
        assert np.diff(new[chosen]) == pytest.approx(np.diff(value))
        assert (new[others] == row[others]).all()


def test_the_prior_is_subtracted_up_to_a_quantile_of_the_candidates():
    image = np.array([[-3.0, -30.0, -5.0, -900.0], [-8.0, -6.0, -4.0, -2.0]])
    prior = np.array([[-7.0, -20.0, -50.0, -1000.0], [-8.0, -7.0, -6.0, -5.0]])
    found = evidence_for_texts(image, prior)
    for row, difference in zip(found, image - prior, strict=True):  # 4, -10, 45, 100; 0, 1, 2, 3
        limit = np.quantile(difference, 0.7)
        assert row == pytest.approx(-np.log(np.exp(-difference) + np.exp(-limit)))
        assert (np.argsort(row) == np.argsort(difference)).all()
    assert found[0, :2] == pytest.approx([4, -10], abs=1e-3)  # far below the limit
    assert found[0, 3] == pytest.approx(np.quantile([4, -10, 45, 100], 0.7))  # far above it
    alone = evidence_for_texts(image[:1, :1], prior[:1, :1])
    assert alone == pytest.approx(4 - np.log(2))
    assert evidence_for_texts(image[:, :0], prior[:, :0]).shape == (2, 0)
    assert evidence_for_texts(image, None) is image


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rerank_top": 5}, "^--rerank-top needs --rerank$"),
        ({"rerank_weight": 1.0}, "^--rerank-weight needs --rerank$"),
        ({"rerank": (Path("a"),), "rerank_top": 0}, "^rerank_top must be at least 1, got 0"),
        (
            {"rerank": (Path("a"),), "rerank_weight": -1.0},
            "^rerank_weight must be at least 0, got -1",
        ),
    ],
)
def test_invalid_options(options, message):
    with pytest.raises(InputError, match=message):
        RerankOptions(**options)
