"""fastText, and PPMI with SVD against a dense computation."""

import sys

import numpy as np
import pytest

from captioner.errors import InputError
from captioner.text.sentence_vectors import centre, fit_tfidf, fit_word2vec, whiten
from captioner.text.tokenizer import plain_words
from captioner.text.trained_words import SMOOTHING, WINDOW, fit_fasttext, fit_ppmi_svd

RNG = np.random.default_rng(0)
WORDS = [f"w{i}" for i in range(12)]
CAPTIONS = [" ".join(RNG.choice(WORDS[3 * (i % 4) : 3 * (i % 4) + 5], 8)) for i in range(60)]


def count_neighbours(sentences, words):
    counts = np.zeros((len(words), len(words)))
    for sentence in sentences:
        ids = [words.index(w) for w in plain_words(sentence) if w in words]
        for i, word in enumerate(ids):
            for j in range(max(0, i - WINDOW), min(len(ids), i + WINDOW + 1)):
                counts[word, ids[j]] += i != j
    return counts


def count_shared_sentences(sentences, words):
    own = [set(plain_words(sentence)) for sentence in sentences]
    return np.array([[sum({a, b} <= each for each in own) for b in words] for a in words])


def dense_ppmi(counts):
    """Positive pointwise mutual information with smoothed contexts."""
    shares = counts.sum(0) ** SMOOTHING / (counts.sum(0) ** SMOOTHING).sum()
    with np.errstate(divide="ignore"):
        return np.log(counts / counts.sum(1, keepdims=True) / shares).clip(0)


@pytest.mark.parametrize("dimensions", [3, 12, 50])
@pytest.mark.parametrize(
    ("window", "count"), [(WINDOW, count_neighbours), (None, count_shared_sentences)]
)
def test_ppmi_svd_is_the_truncated_svd_of_the_dense_matrix(dimensions, window, count):
    encoder = fit_ppmi_svd(CAPTIONS, 1, dimensions, weighted=False, window=window)
    left, values, _ = np.linalg.svd(dense_ppmi(count(CAPTIONS, list(encoder.words))))
    rows = (left * np.sqrt(values))[:, :dimensions]
    rows -= rows.mean(0)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert encoder.dimensions == min(dimensions, len(encoder.words))
    # Signs of singular vectors are arbitrary; the cosines of words are not.
    np.testing.assert_allclose(encoder.vectors @ encoder.vectors.T, rows @ rows.T, atol=2e-3)
    assert encoder.weights.tolist() == [1] * len(encoder.words)


def test_ppmi_svd_repeats_and_weighs_by_inverse_document_frequency():
    encoder = fit_ppmi_svd(CAPTIONS, 1, 4, weighted=True)
    again = fit_ppmi_svd(CAPTIONS, 1, 4, weighted=True)
    np.testing.assert_array_equal(encoder.vectors, again.vectors)
    np.testing.assert_array_equal(encoder.weights, fit_tfidf(CAPTIONS, 1).weights)


def test_captions_of_single_words_have_no_contexts():
    encoder = fit_ppmi_svd(["dog", "cat", "dog"], 1, 3, weighted=True)
    assert not encoder.encode(["dog cat"]).any()


def test_fasttext_keeps_the_vectors_of_known_words():
    encoder = fit_fasttext(["red dog runs", "a red dog"] * 20, 2, 8, weighted=True, epochs=2)
    assert encoder.unknown_words("#dogs and a #dog") == ["dogs", "and"]
    np.testing.assert_allclose(np.linalg.norm(encoder.vectors, axis=1), 1, rtol=1e-5)
    again = fit_fasttext(["red dog runs", "a red dog"] * 20, 2, 8, weighted=True, epochs=2)
    np.testing.assert_array_equal(encoder.vectors, again.vectors)
    assert encoder.weights[encoder.words.index("dog")] == 1  # in every caption


def test_fasttext_needs_gensim(monkeypatch):
    monkeypatch.setitem(sys.modules, "gensim", None)
    monkeypatch.setitem(sys.modules, "gensim.models", None)
    message = r"^training fastText needs gensim\S*; run pip install 'captioner\[link\]'$"
    with pytest.raises(InputError, match=message):
        fit_fasttext(CAPTIONS, 1, 8, weighted=True)


def test_whitened_vectors_are_uncorrelated():
    vectors = RNG.normal(size=(500, 6)) * [9, 4, 1, 1, 0.1, 0] + [5, 0, 0, 3, 0, 1]
    white = whiten(vectors)
    assert white.shape == (500, 5)  # the constant dimension is left out
    np.testing.assert_allclose(np.linalg.norm(white, axis=1), 1, rtol=1e-5)
    centred = (vectors - vectors.mean(0))[:, :5]
    expected = centred @ np.linalg.inv(centred.T @ centred / 500) @ centred.T
    scale = np.sqrt(np.diag(expected))
    np.testing.assert_allclose(white @ white.T, expected / scale / scale[:, None], atol=1e-4)


def test_few_words_are_only_centred():
    vectors = RNG.normal(size=(11, 3))
    np.testing.assert_array_equal(whiten(vectors), centre(vectors))


def test_word2vec_is_whitened_on_request():
    plain = fit_word2vec(CAPTIONS, 1, 2, weighted=False, whitened=False, epochs=1)
    white = fit_word2vec(CAPTIONS, 1, 2, weighted=False, epochs=1)
    np.testing.assert_allclose(np.linalg.norm(plain.vectors, axis=1), 1, rtol=1e-5)
    assert not np.allclose(plain.vectors @ plain.vectors.T, white.vectors @ white.vectors.T)
