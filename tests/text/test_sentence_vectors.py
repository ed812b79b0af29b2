"""Sentence vectors against scikit-learn, dense linear algebra and sums by hand."""

import math
import sys

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

from captioner.errors import InputError
from captioner.text.sentence_vectors import (
    ConcatenatedEncoder,
    WordSum,
    fit_counts,
    fit_lsa,
    fit_tfidf,
    fit_word2vec,
    read_word_vectors,
)
from captioner.text.tokenizer import split_words

CAPTIONS = [
    "A dog runs on the beach.",
    "Two dogs run; a dog barks at the dog.",
    "The cat sleeps on a red sofa",
    "a red ball on the beach",
    "A cat and a dog sleep.",
    "children play with the red ball",
]
QUERIES = ["A dog, a cat and a zebra!", "the the the dog", "zebra", ""]


def sorted_columns(encoder, sentences):
    """The rows of an encoder of one-hot vectors, with columns in alphabetical order."""
    order = sorted(range(len(encoder.words)), key=lambda i: encoder.words[i])
    return encoder.encode(sentences)[:, order]


@pytest.mark.parametrize(
    ("fit", "vectorizer"), [(fit_counts, CountVectorizer), (fit_tfidf, TfidfVectorizer)]
)
def test_counts_and_tfidf_are_those_of_scikit_learn(fit, vectorizer):
    theirs = vectorizer(tokenizer=split_words, token_pattern=None, lowercase=False)
    expected = theirs.fit(CAPTIONS).transform(CAPTIONS + QUERIES).toarray()
    norms = np.linalg.norm(expected, axis=1, keepdims=True)
    expected = np.divide(expected, norms, out=np.zeros_like(norms * expected), where=norms > 0)
    encoder = fit(CAPTIONS, 1)
    assert sorted(encoder.words) == theirs.get_feature_names_out().tolist()
    found = sorted_columns(encoder, CAPTIONS + QUERIES)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.dtype == np.float32
    assert found.shape[1] == encoder.dimensions


def test_rare_words_are_left_out_and_unknown():
    encoder = fit_counts(CAPTIONS, 3)
    assert encoder.words == ("a", "the", "dog", "on", "red")  # by count, then by name
    assert encoder.unknown_words("The zebra and the red cat") == ["zebra", "and", "cat"]
    assert not encoder.encode(["cats sleep"]).any()


def test_document_frequencies_count_sentences_of_all_occurrences():
    encoder = fit_tfidf(CAPTIONS, 3)  # "dog" occurs 4 times, in 3 sentences
    weights = dict(zip(encoder.words, encoder.weights.tolist(), strict=True))
    assert weights["dog"] == pytest.approx(math.log(7 / 4) + 1)
    assert weights["a"] == pytest.approx(math.log(7 / 6) + 1)


@pytest.mark.parametrize("dimensions", [1, 4, 6])
def test_lsa_projects_on_the_leading_singular_vectors(dimensions):
    tfidf = fit_tfidf(CAPTIONS, 1)
    basis = np.linalg.svd(tfidf.encode(CAPTIONS).astype(np.float64)).Vh[:dimensions]
    signs = np.sign(basis[np.arange(dimensions), np.abs(basis).argmax(1)])
    expected = tfidf.encode(CAPTIONS + QUERIES) @ (basis * signs[:, None]).T
    norms = np.linalg.norm(expected, axis=1, keepdims=True)
    expected = np.divide(expected, norms, out=np.zeros_like(expected), where=norms > 0)
    encoder = fit_lsa(CAPTIONS, 1, dimensions)
    np.testing.assert_allclose(encoder.encode(CAPTIONS + QUERIES), expected, atol=1e-5)


def test_lsa_has_at_most_one_dimension_for_each_word():
    assert fit_lsa(CAPTIONS, 3, 100).dimensions == 5


def test_word_sum_is_the_weighted_sum_of_vectors():
    weights, vectors = np.array([1.0, 2.0, 0.5]), np.array([[1, 0], [0, 1], [-1, 3]])
    encoder = WordSum(("dog", "cat", "red"), weights, vectors)
    assert encoder.dimensions == 2
    found = encoder.encode(["Red dog, red zebra", "cat", "dog dog", "zebra"])
    # 2 * 0.5 * (-1, 3) + (1, 0) = (0, 3)
    np.testing.assert_allclose(found, [[0, 1], [0, 1], [1, 0], [0, 0]])
    assert encoder.encode([]).shape == (0, 2)


def test_arrays_are_converted_to_float32_in_row_order():
    encoder = WordSum(("dog", "cat"), np.ones(2), np.ones((3, 2)).T)
    assert encoder.vectors.flags.c_contiguous
    assert (encoder.weights.dtype, encoder.vectors.dtype) == (np.float32, np.float32)


def test_concatenation_has_unit_parts_and_the_unknown_words_of_all():
    first = WordSum(("dog", "cat"), np.ones(2))
    second = WordSum(("dog", "red"), np.ones(2), np.array([[3.0], [-1.0]]))
    third = WordSum(("dog",), np.ones(1))
    joined = ConcatenatedEncoder((first, second, third))
    assert joined.dimensions == 4
    found = joined.encode(["dog cat", "red", "zebra"])
    half = 0.5**0.5
    np.testing.assert_allclose(found, [[half, half, 1, 1], [0, 0, -1, 0], [0] * 4], atol=1e-7)
    assert joined.unknown_words("a red cat and a dog") == ["a", "and", "a"]


# Word pairs that share their contexts, so that word2vec must place them together.
CONTEXTS = [
    f"{animal} {verb} {place}"
    for animals, verbs, places in (
        (("dog", "wolf"), ("barks", "howls"), ("outside", "here")),
        (("car", "bus"), ("drives", "brakes"), ("fast", "slowly")),
    )
    for animal in animals
    for verb in verbs
    for place in places
]


def test_word2vec_places_words_of_like_contexts_together():
    encoder = fit_word2vec(CONTEXTS * 100, 1, 16, weighted=False, epochs=50)
    words = ["dog", "wolf", "car", "bus"]
    rows = encoder.encode(words)
    similarities = rows @ rows.T
    assert similarities[0, 1] > 0.5 > 0 > similarities[0, 2]
    assert similarities[2, 3] > 0.5 > 0 > similarities[1, 3]
    again = fit_word2vec(CONTEXTS * 100, 1, 16, weighted=False, epochs=50)
    np.testing.assert_array_equal(again.encode(words), rows)
    assert encoder.weights.tolist() == [1] * 12


def test_weighted_word2vec_weighs_by_inverse_document_frequency():
    encoder = fit_word2vec(CAPTIONS, 1, 8, weighted=True, epochs=1)
    tfidf = fit_tfidf(CAPTIONS, 1)
    assert encoder.words == tfidf.words
    np.testing.assert_array_equal(encoder.weights, tfidf.weights)
    np.testing.assert_allclose(np.linalg.norm(encoder.vectors, axis=1), 1, rtol=1e-5)


def test_word2vec_needs_gensim(monkeypatch):
    monkeypatch.setitem(sys.modules, "gensim", None)
    monkeypatch.setitem(sys.modules, "gensim.models", None)
    message = r"^training word2vec needs gensim\S*; run pip install 'captioner\[link\]'$"
    with pytest.raises(InputError, match=message):
        fit_word2vec(CAPTIONS, 1, 8, weighted=True)


VECTORS = {"dog": [1, 2, 0], "the": [0, -1, 1], "zebra": [9, 9, 9], "dog . .": [5, 5, 5]}
LINES = [" ".join([word, *map(str, vector)]) for word, vector in VECTORS.items()]


@pytest.mark.parametrize("form", ["glove", "word2vec", "trailing spaces"])
@pytest.mark.parametrize("weighted", [True, False])
def test_vectors_of_a_file_are_centred_and_weighted(tmp_path, form, weighted):
    path = tmp_path / "vectors.txt"
    lines = {
        "glove": LINES,
        "word2vec": [f"{len(LINES)} 3", *LINES],
        "trailing spaces": ["4 3", *(line + " " for line in LINES)],
    }[form]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    encoder = read_word_vectors(path, CAPTIONS, 1, weighted=weighted)
    assert encoder.words == ("the", "dog")
    mean = np.mean([VECTORS["dog"], VECTORS["the"]], axis=0)
    dog = (VECTORS["dog"] - mean) / np.linalg.norm(VECTORS["dog"] - mean)
    np.testing.assert_allclose(encoder.vectors, [-dog, dog], atol=1e-6)
    idf = [math.log(7 / 6) + 1, math.log(7 / 4) + 1] if weighted else [1, 1]
    np.testing.assert_allclose(encoder.weights, idf, rtol=1e-6)
    assert encoder.unknown_words("the cat") == ["cat"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dog 1 2\ncat 1\n", r"vectors\.txt, line 2: expected a word and its vector of finite"),
        ("dog 1 x\n", r"vectors\.txt, line 1: expected a word and its vector"),
        ("dog 1 nan\n", "line 1: expected a word"),
        ("a text of another kind\n", r"line 1: expected a word"),
        ("zebra 1 2\n", "contains no vector for any of the 21 words of the captions; choose"),
        ("", "contains no vector for any"),
    ],
)
def test_files_without_vectors_are_refused(tmp_path, text, message):
    path = tmp_path / "vectors.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_word_vectors(path, CAPTIONS, 1, weighted=True)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"^word vectors .*gone cannot be read: No such file"):
        read_word_vectors(tmp_path / "gone", CAPTIONS, 1, weighted=True)


@pytest.mark.parametrize("fit", [fit_counts, fit_tfidf])
def test_captions_without_a_frequent_word_are_refused(fit):
    message = "no word occurs at least 99 times in the 6 captions; lower text_min_count$"
    with pytest.raises(InputError, match=message):
        fit(CAPTIONS, 99)
