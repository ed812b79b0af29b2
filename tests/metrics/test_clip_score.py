"""CLIPScore and RefCLIPScore against the paper's equations, written plainly."""

import numpy as np
import pytest

from captioner.metrics.clip_score import clip_score, ref_clip_score


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_scores_are_those_of_the_equations():
    random = np.random.default_rng(0)
    images, captions = unit(random.normal(size=(6, 4))), unit(random.normal(size=(6, 4)))
    references, owners = unit(random.normal(size=(9, 4))), np.array([0, 0, 1, 2, 3, 3, 3, 4, 5])
    scores = clip_score(images, captions)
    against = ref_clip_score(scores, captions, references, owners)
    for i in range(6):
        expected = 2.5 * max(images[i] @ captions[i], 0)
        assert scores[i] == pytest.approx(100 * expected)
        best = max(max(captions[i] @ references[r], 0) for r in np.flatnonzero(owners == i))
        harmonic = 2 / (1 / expected + 1 / best) if expected and best else 0
        assert against[i] == pytest.approx(100 * harmonic)
    assert (scores == 0).any()
    assert (scores > 0).any()


def test_a_caption_without_words_scores_nothing():
    image, empty = unit(np.ones((1, 3))), np.zeros((1, 3))
    assert clip_score(image, empty) == 0
    assert ref_clip_score(np.zeros(1), empty, image, np.zeros(1, int)) == 0
