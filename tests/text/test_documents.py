"""LDA and doc2vec: inference without gensim against gensim's own."""

import sys

import numpy as np
import pytest
import torch

from captioner.errors import InputError
from captioner.text.documents import ParagraphVectors, TopicModel, fit_doc2vec, fit_lda
from captioner.text.sentence_vectors import fit_tfidf
from captioner.text.tokenizer import plain_words

TOPICS = (
    ("dog", "grass", "runs", "ball", "collar", "park", "tail"),
    ("boat", "water", "lake", "river", "sail", "fish", "wave"),
    ("street", "car", "bus", "city", "road", "light", "sign"),
)
RNG = np.random.default_rng(0)
CAPTIONS = [" ".join(RNG.choice(TOPICS[i % 3], 5)) for i in range(240)]


@pytest.fixture(scope="module")
def lda():
    return fit_lda(CAPTIONS, 1, 3)


@pytest.fixture(scope="module")
def doc2vec():
    return fit_doc2vec(CAPTIONS, 1, 16)


def test_topics_are_those_that_gensim_infers():
    from gensim.models import LdaModel

    tfidf = fit_tfidf(CAPTIONS, 1)
    bags = [list(zip(*map(np.ndarray.tolist, tfidf.weigh(text)), strict=True)) for text in CAPTIONS]
    trained = LdaModel(
        bags,
        3,
        id2word=dict(enumerate(tfidf.words)),
        random_state=0,
        iterations=2000,
        gamma_threshold=1e-7,
        passes=5,
    )
    gamma, _ = trained.inference(bags)
    expected = gamma / gamma.sum(1, keepdims=True)
    arrays = (a.astype(np.float32) for a in (tfidf.weights, trained.expElogbeta, trained.alpha))
    weights, topics, prior = arrays
    model = TopicModel(tfidf.words, weights, topics, prior, np.zeros(3, np.float32))
    rows = model.encode(CAPTIONS)
    found = rows / rows.sum(1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=0.01)


def test_paragraph_vectors_are_near_those_that_gensim_infers():
    from gensim.models.doc2vec import Doc2Vec, TaggedDocument

    captions = [plain_words(text) for text in CAPTIONS]
    tagged = [TaggedDocument(words, [i]) for i, words in enumerate(captions)]
    options = {"dm": 0, "vector_size": 16, "min_count": 1, "epochs": 50, "workers": 1, "seed": 0}
    trained = Doc2Vec(tagged, sample=1e-3, **options)
    own = fit_doc2vec(CAPTIONS, 1, 16)
    own = ParagraphVectors(own.words, own.weights, own.outputs, own.noise, 0 * own.mean)
    theirs = np.stack([trained.infer_vector(words) for words in captions[:60]])
    theirs /= np.linalg.norm(theirs, axis=1, keepdims=True)
    cosines = (own.encode(CAPTIONS[:60]) * theirs).sum(1)
    assert cosines.mean() > 0.9  # gensim draws words at random


@pytest.mark.parametrize("kind", ["lda", "doc2vec"])
def test_sentences_of_a_topic_are_alike(kind, request):
    encoder = request.getfixturevalue(kind)
    rows = encoder.encode(CAPTIONS)
    assert (rows.dtype, rows.shape[1]) == (np.float32, encoder.dimensions)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    topic = np.arange(len(rows)) % 3
    cosines, same = rows @ rows.T, topic[:, None] == topic
    assert cosines[same].mean() > 0.4 > 0 > cosines[~same].mean()


@pytest.mark.parametrize("kind", ["lda", "doc2vec"])
def test_vectors_do_not_depend_on_the_other_sentences(kind, request):
    encoder = request.getfixturevalue(kind)
    texts = ["dog", "boat water lake river sail fish wave", "", "zebra", "a dog, a car!"]
    rows = encoder.encode(texts)
    for row, text in zip(rows, texts, strict=True):
        np.testing.assert_allclose(encoder.encode([text])[0], row, atol=1e-3)
    assert not rows[[2, 3]].any()
    assert encoder.encode([]).shape == (0, encoder.dimensions)
    assert encoder.unknown_words("a #dog and a zebra") == ["a", "and", "a", "zebra"]


def test_training_repeats(lda, doc2vec):
    np.testing.assert_array_equal(fit_lda(CAPTIONS, 1, 3).topics, lda.topics)
    np.testing.assert_array_equal(fit_doc2vec(CAPTIONS, 1, 16).outputs, doc2vec.outputs)


def test_inference_changes_no_global_state(lda, doc2vec):
    before = torch.random.get_rng_state()
    lda.encode(CAPTIONS[:3])
    doc2vec.encode(CAPTIONS[:3])
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(("fit", "title"), [(fit_lda, "LDA"), (fit_doc2vec, "doc2vec")])
def test_training_needs_gensim_and_frequent_words(fit, title, monkeypatch):
    with pytest.raises(InputError, match="no word occurs at least 999 times"):
        fit(CAPTIONS, 999, 3)
    monkeypatch.setitem(sys.modules, "gensim", None)
    message = rf"^training {title} needs gensim; run pip install 'captioner\[link\]'$"
    with pytest.raises(InputError, match=message):
        fit(CAPTIONS, 1, 3)
