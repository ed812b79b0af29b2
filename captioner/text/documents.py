"""Documents as vectors: LDA topics and doc2vec, trained with gensim and inferred without it.

Shapes: N sentences, T distinct words of a sentence, V known words, Y topics or dimensions.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .sentence_vectors import SEED, document_frequencies, inverse_frequencies, unit_rows
from .tokenizer import plain_words

BLOCK = 512  # sentences inferred at once
PASSES = 5  # of LDA's training
ROUNDS, CONVERGED = 100, 1e-4  # of LDA's inference; mean change of a document's topic counts
EPOCHS = 50  # of doc2vec's training
STEPS = 50  # of doc2vec's inference
RATE, LAST_RATE = 0.025, 0.0001  # learning rates of its first and last step
NEGATIVES = 5  # noise words per word
NOISE = 256  # words that represent the noise distribution in inference


@dataclass(frozen=True, eq=False)
class TopicModel:
    """Represents a sentence by its topics (Blei et al. 2003), centred and scaled to unit length.

    words (V,): the known words. weights (V,): weight of each occurrence of a word. topics (Y, V):
    exponentials of the expected log-probabilities of words in topics. prior (Y,): parameters of the
    Dirichlet prior of a sentence's topics. mean (Y,): mean topic proportions of the training
    captions.
    """

    words: tuple[str, ...]
    weights: np.ndarray
    topics: np.ndarray
    prior: np.ndarray
    mean: np.ndarray

    @cached_property
    def _index(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words)}

    @property
    def dimensions(self) -> int:
        """The number of topics Y."""
        return len(self.topics)

    def encode(self, sentences: Sequence[str]) -> np.ndarray:
        """Return unit rows (N, Y), float32; the row of a sentence without a known word is zero."""
        return _encode(self._index, self.weights, sentences, self.mean, self.infer)

    def infer(self, ids: Tensor, counts: Tensor) -> Tensor:
        """Return the topic proportions (N, Y) of padded documents; ids, counts (N, T).

        Runs the E step of Hoffman et al. 2010, algorithm 2, from equal topics until convergence, or
        for at most ROUNDS iterations.
        """
        prior = torch.from_numpy(self.prior)
        words = torch.from_numpy(self.topics).T[ids]  # (N, T, Y)
        gamma = torch.ones(len(ids), len(prior))
        for _ in range(ROUNDS):
            theta = (torch.digamma(gamma) - torch.digamma(gamma.sum(1, keepdim=True))).exp()
            norm = torch.einsum("nty,ny->nt", words, theta) + 1e-30
            found = prior + theta * torch.einsum("nt,nty->ny", counts / norm, words)
            change = (found - gamma).abs().mean()
            gamma = found
            if change < CONVERGED:
                break
        return gamma / gamma.sum(1, keepdim=True)

    def unknown_words(self, sentence: str) -> list[str]:
        """Return the words of a sentence that the topics do not contain, in order."""
        return [word for word in plain_words(sentence) if word not in self._index]


@dataclass(frozen=True, eq=False)
class ParagraphVectors:
    """Represents a sentence by its doc2vec vector (PV-DBOW, Le and Mikolov 2014).

    The vector is centred and scaled to unit length. words (V,): the known words. weights (V,): the
    probability that training kept an occurrence of a word, since frequent words are downsampled.
    outputs (V, Y): the output vectors of the words. noise (M, Y): output vectors of words that
    represent the noise distribution. mean (Y,): the mean vector of the training captions.
    """

    words: tuple[str, ...]
    weights: np.ndarray
    outputs: np.ndarray
    noise: np.ndarray
    mean: np.ndarray

    @cached_property
    def _index(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words)}

    @property
    def dimensions(self) -> int:
        """The number of dimensions Y of the vectors."""
        return int(self.outputs.shape[1])

    def encode(self, sentences: Sequence[str]) -> np.ndarray:
        """Return unit rows (N, Y), float32; the row of a sentence without a known word is zero."""
        return _encode(self._index, self.weights, sentences, self.mean, self.infer)

    def infer(self, ids: Tensor, counts: Tensor) -> Tensor:
        """Return the vectors (N, Y) of padded documents; ids, counts (N, T).

        Runs gradient ascent on the objective of negative sampling, as gensim's inference does. It
        is deterministic, because it starts from zero, uses all words at once, and replaces noise
        samples by the expectation over the noise words.
        """
        words = torch.from_numpy(self.outputs)[ids]  # (N, T, Y)
        noise = torch.from_numpy(self.noise)
        share = NEGATIVES * counts.sum(1, keepdim=True) / len(noise)
        vectors = torch.zeros(len(ids), self.dimensions)
        for rate in np.linspace(RATE, LAST_RATE, STEPS).tolist():
            scores = torch.einsum("nty,ny->nt", words, vectors)
            towards = torch.einsum("nt,nty->ny", counts * torch.sigmoid(-scores), words)
            away = torch.sigmoid(vectors @ noise.T) @ noise
            vectors = vectors + rate * (towards - share * away)
        return vectors

    def unknown_words(self, sentence: str) -> list[str]:
        """Return the words of a sentence that have no vector, in order."""
        return [word for word in plain_words(sentence) if word not in self._index]


def fit_lda(sentences: Sequence[str], min_count: int, topics: int) -> TopicModel:
    """Train latent Dirichlet allocation with gensim on the captions, each of which is a document.

    Words are weighted by inverse document frequency, so that function words do not dominate topics.
    Raises InputError if the extra `link` is not installed, or if no word occurs `min_count` times.
    """
    models = _import_gensim("LDA")
    words, frequencies = document_frequencies(sentences, min_count)
    weights = inverse_frequencies(frequencies, len(sentences))
    index = {word: i for i, word in enumerate(words)}
    documents = [_weigh(index, weights, sentence) for sentence in sentences]
    trained = models.LdaModel(
        [list(document.items()) for document in documents if document],
        num_topics=topics,
        id2word=dict(enumerate(words)),
        chunksize=2000,
        passes=PASSES,
        random_state=SEED,
    )
    model = TopicModel(
        words,
        weights,
        np.ascontiguousarray(trained.expElogbeta, np.float32),
        np.ascontiguousarray(trained.alpha, np.float32),
        np.zeros(topics, np.float32),
    )
    mean = _infer(model.infer, documents, topics).mean(0)
    return TopicModel(words, weights, model.topics, model.prior, mean)


def fit_doc2vec(sentences: Sequence[str], min_count: int, dimensions: int) -> ParagraphVectors:
    """Train doc2vec (PV-DBOW with negative sampling) with gensim; a caption is a paragraph.

    Raises InputError in the same cases as `fit_lda`.
    """
    models = _import_gensim("doc2vec")
    documents = [plain_words(sentence) for sentence in sentences]
    document_frequencies(sentences, min_count)  # raises InputError if no word is frequent
    trained = models.Doc2Vec(
        [models.doc2vec.TaggedDocument(words, [i]) for i, words in enumerate(documents)],
        dm=0,
        vector_size=dimensions,
        min_count=min_count,
        epochs=EPOCHS,
        negative=NEGATIVES,
        alpha=RATE,
        min_alpha=LAST_RATE,
        seed=SEED,
        workers=1,  # with several, the vectors depend on the order in which threads run
    )
    words = tuple(trained.wv.index_to_key)
    counts = np.array([trained.wv.get_vecattr(word, "count") for word in words], np.float64)
    threshold = trained.sample * counts.sum()
    kept = np.minimum(1, (np.sqrt(counts / threshold) + 1) * threshold / counts)
    outputs = np.ascontiguousarray(trained.syn1neg, np.float32)
    cumulative = np.cumsum(counts**trained.ns_exponent)
    places = (np.arange(NOISE) + 0.5) / NOISE * cumulative[-1]
    model = ParagraphVectors(
        words,
        kept.astype(np.float32),
        outputs,
        outputs[np.searchsorted(cumulative, places)],
        np.zeros(dimensions, np.float32),
    )
    bags = [_weigh(model._index, model.weights, sentence) for sentence in sentences]
    mean = _infer(model.infer, bags, dimensions).mean(0)
    return ParagraphVectors(words, model.weights, outputs, model.noise, mean)


Inference = Callable[[Tensor, Tensor], Tensor]


def _import_gensim(title: str) -> Any:
    try:
        from gensim import models
    except ImportError as error:
        raise InputError(
            f"training {title} needs {error.name}; run pip install 'captioner[link]'"
        ) from error
    return models


def _weigh(index: dict[str, int], weights: np.ndarray, sentence: str) -> dict[int, float]:
    """Return a dict from the id of each known word of a sentence to its weighted count."""
    counts = Counter(index[word] for word in plain_words(sentence) if word in index)
    return {i: count * float(weights[i]) for i, count in counts.items()}


def _encode(
    index: dict[str, int],
    weights: np.ndarray,
    sentences: Sequence[str],
    mean: np.ndarray,
    infer: Inference,
) -> np.ndarray:
    """Return the inferred vectors minus `mean` as unit rows; zeros without a known word."""
    bags = [_weigh(index, weights, sentence) for sentence in sentences]
    rows = _infer(infer, bags, len(mean)) - mean
    rows[[not bag for bag in bags]] = 0
    return unit_rows(rows)


def _infer(infer: Inference, bags: Sequence[dict[int, float]], size: int) -> np.ndarray:
    """Infer the vectors (N, Y), float32, of documents in blocks of similar length."""
    rows = np.zeros((len(bags), size), np.float32)
    order = sorted((i for i, bag in enumerate(bags) if bag), key=lambda i: len(bags[i]))
    for first in range(0, len(order), BLOCK):
        block = order[first : first + BLOCK]
        ids = torch.zeros(len(block), len(bags[block[-1]]), dtype=torch.long)
        counts = torch.zeros(ids.shape)  # padding has the count 0, and so no effect
        for i, number in enumerate(block):
            bag = bags[number]
            ids[i, : len(bag)] = torch.tensor(list(bag))
            counts[i, : len(bag)] = torch.tensor(list(bag.values()))
        rows[block] = infer(ids, counts).numpy()
    return rows
