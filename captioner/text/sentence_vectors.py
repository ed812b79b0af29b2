"""Sentences as vectors: word counts, tf-idf, LSA, word2vec and files of word vectors.

An encoder is fitted on training captions or read from a file of word vectors. Afterwards it
consists of plain arrays; gensim is needed only to train word2vec, not to use it.

Shapes: N sentences, V known words, Y dimensions.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from ..errors import InputError
from .tokenizer import plain_words
from .word_vectors import read_vectors

SEED = 0  # of all models trained on captions
FLAT, WORDS_PER_DIMENSION = 1e-3, 4  # see `whiten`


class SentenceEncoder(Protocol):
    """Maps sentences to vectors."""

    @property
    def dimensions(self) -> int:
        """The number of dimensions Y of the vectors."""

    def encode(self, sentences: Sequence[str]) -> np.ndarray:
        """Return rows (N, Y), float32, of norm 1; zero for a sentence without known words.

        A row of a `ConcatenatedEncoder` consists of several such rows, so its norm may exceed 1.
        """

    def unknown_words(self, sentence: str) -> list[str]:
        """Return the words of a sentence that do not contribute to its vector, in order."""


@dataclass(frozen=True, eq=False)
class WordSum:
    """Represents a sentence by the weighted sum of its words' vectors, scaled to unit length.

    words (V,): the known words. weights (V,): factor applied to each occurrence of a word. vectors
    (V, Y): the word vectors; None for one-hot vectors, in which case Y is V. Both arrays are
    converted to float32 in row-major order, so that an encoder that was saved and loaded computes
    exactly the same sums.
    """

    words: tuple[str, ...]
    weights: np.ndarray
    vectors: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name in ("weights", "vectors"):
            if (array := getattr(self, name)) is not None:
                object.__setattr__(self, name, np.asarray(array, np.float32, order="C"))

    @cached_property
    def _index(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words)}

    @property
    def dimensions(self) -> int:
        """The number of dimensions Y of the vectors."""
        return len(self.words) if self.vectors is None else self.vectors.shape[1]

    def encode(self, sentences: Sequence[str]) -> np.ndarray:
        """Return unit rows (N, Y), float32; the row of a sentence without known words is zero."""
        rows = np.zeros((len(sentences), self.dimensions), dtype=np.float32)
        for row, sentence in zip(rows, sentences, strict=True):
            ids, weights = self.weigh(sentence)
            if self.vectors is None:
                row[ids] = weights
            else:
                row[:] = weights @ self.vectors[ids]
        return unit_rows(rows)

    def weigh(self, sentence: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids of the distinct known words, and each word's count times its weight."""
        known = (self._index[word] for word in plain_words(sentence) if word in self._index)
        counts = Counter(known)
        ids = np.fromiter(counts, np.int64, len(counts))
        return ids, self.weights[ids] * np.fromiter(counts.values(), np.float32, len(counts))

    def unknown_words(self, sentence: str) -> list[str]:
        """Return the words of a sentence that have no vector, in order."""
        return [word for word in plain_words(sentence) if word not in self._index]


@dataclass(frozen=True)
class ConcatenatedEncoder:
    """Concatenates the vectors of one or more encoders.

    Every nonzero part has unit length, so that all parts contribute equally to a dot product; the
    length of the whole row is the square root of the number of nonzero parts.
    """

    parts: tuple[SentenceEncoder, ...]

    @property
    def dimensions(self) -> int:
        """The sum of the parts' dimensions."""
        return sum(part.dimensions for part in self.parts)

    def encode(self, sentences: Sequence[str]) -> np.ndarray:
        """Return rows (N, Y), float32: the concatenated unit vectors of all parts, in order."""
        return np.concatenate([part.encode(sentences) for part in self.parts], axis=1)

    def unknown_words(self, sentence: str) -> list[str]:
        """Return the words that are unknown to every part, in order."""
        first, *others = (part.unknown_words(sentence) for part in self.parts)
        return [word for word in first if all(word in other for other in others)]


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Divide each row by its Euclidean norm; rows of zeros are left unchanged."""
    norms: np.ndarray = np.linalg.norm(rows, axis=1, keepdims=True)
    scaled: np.ndarray = rows / np.maximum(norms, 1e-12)
    return scaled


def flatten_parts(encoder: SentenceEncoder) -> tuple[SentenceEncoder, ...]:
    """Return the encoders that `encoder` concatenates, or only `encoder` if it is a single one."""
    if not isinstance(encoder, ConcatenatedEncoder):
        return (encoder,)
    return tuple(part for each in encoder.parts for part in flatten_parts(each))


def fit_counts(sentences: Sequence[str], min_count: int) -> WordSum:
    """Fit word counts: one dimension for each word that occurs at least `min_count` times.

    Raises InputError if no word occurs that often, as do the other functions that fit an encoder.
    """
    words, _ = document_frequencies(sentences, min_count)
    return WordSum(words, np.ones(len(words), np.float32))


def fit_tfidf(sentences: Sequence[str], min_count: int) -> WordSum:
    """Fit tf-idf: word counts weighted by the smoothed inverse document frequency.

    The weight is log((1 + N) / (1 + n)) + 1 for a word in n of N sentences, as in scikit-learn.
    """
    words, frequencies = document_frequencies(sentences, min_count)
    return WordSum(words, inverse_frequencies(frequencies, len(sentences)))


def fit_lsa(sentences: Sequence[str], min_count: int, dimensions: int) -> WordSum:
    """Fit latent semantic analysis: unit tf-idf rows projected onto leading singular vectors.

    Follows Deerwester et al. 1990, without centring. dimensions: number of singular vectors, at
    least 1; if it exceeds the number of words, all singular vectors are used. Signs are chosen so
    that the component of largest magnitude in every singular vector is positive.
    """
    tfidf = fit_tfidf(sentences, min_count)
    # The matrix of all sentences is large and sparse; its Gram matrix is the sum over sentences.
    gram = np.zeros((len(tfidf.words), len(tfidf.words)))
    for sentence in sentences:
        ids, weights = tfidf.weigh(sentence)
        gram[np.ix_(ids, ids)] += np.outer(weights, weights) / max(1e-12, weights @ weights)
    leading = np.linalg.eigh(gram).eigenvectors[:, ::-1][:, :dimensions]
    largest = np.take_along_axis(leading, np.abs(leading).argmax(0)[None], axis=0)
    return WordSum(tfidf.words, tfidf.weights, (leading * np.sign(largest)).astype(np.float32))


def fit_word2vec(
    sentences: Sequence[str],
    min_count: int,
    dimensions: int,
    *,
    weighted: bool,
    whitened: bool = True,
    epochs: int = 25,
) -> WordSum:
    """Train word2vec (Mikolov et al. 2013, CBOW) on the captions with gensim.

    weighted: whether words are weighted by inverse document frequency; if not, all weights are 1.
    whitened: whether the word vectors are processed by `whiten`, or only by `centre`. Raises
    InputError if the extra `link` is not installed.
    """
    try:
        from gensim.models import Word2Vec
    except ImportError as error:
        raise InputError(
            f"training word2vec needs {error.name}; run pip install 'captioner[link]'"
        ) from error
    words, frequencies = document_frequencies(sentences, min_count)
    model = Word2Vec(
        [plain_words(sentence) for sentence in sentences],  # a list, because it is read repeatedly
        vector_size=dimensions,
        window=5,
        min_count=min_count,
        epochs=epochs,
        seed=SEED,
        workers=1,  # with several, the vectors depend on the order in which threads run
    )
    vectors = np.stack([model.wv[word] for word in words])
    weights = (
        inverse_frequencies(frequencies, len(sentences))
        if weighted
        else np.ones(len(words), np.float32)
    )
    return WordSum(words, weights, whiten(vectors) if whitened else centre(vectors))


def read_word_vectors(
    path: Path,
    sentences: Sequence[str],
    min_count: int,
    *,
    weighted: bool,
    whitened: bool = True,
) -> WordSum:
    """Read the vectors of the training captions' words from a GloVe or word2vec file.

    The formats are those of `word_vectors.read_vectors`. Words without a vector are unknown;
    weighting and whitening are as in `fit_word2vec`. Raises InputError if the file is missing, if
    its format is not supported, or if no word has a vector.
    """
    words, frequencies = document_frequencies(sentences, min_count)
    found = read_vectors(path, set(words))
    kept = [i for i, word in enumerate(words) if word in found]
    if not kept:
        raise InputError(
            f"{path} contains no vector for any of the {len(words)} words of the captions; choose "
            "vectors for the captions' language"
        )
    known = tuple(words[i] for i in kept)
    vectors = np.stack([found[word] for word in known])
    weights = word_weights(frequencies[kept], len(sentences), weighted=weighted)
    return WordSum(known, weights, whiten(vectors) if whitened else centre(vectors))


def document_frequencies(
    sentences: Sequence[str], min_count: int
) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the words that occur at least `min_count` times, and their document frequencies (V,).

    The most frequent word comes first. Raises InputError if there is no such word.
    """
    counts: Counter[str] = Counter()
    containing: Counter[str] = Counter()
    for sentence in sentences:
        words = plain_words(sentence)
        counts.update(words)
        containing.update(set(words))
    kept = sorted((-n, word) for word, n in counts.items() if n >= min_count)
    if not kept:
        if not counts:
            raise InputError(f"the {len(sentences)} texts contain no words; add texts with words")
        raise InputError(
            f"fitting a sentence encoder failed: no word occurs at least {min_count} times in the "
            f"{len(sentences)} captions; lower text_min_count"
        )
    frequencies = [containing[word] for _, word in kept]
    return tuple(word for _, word in kept), np.array(frequencies, dtype=np.float32)


def inverse_frequencies(frequencies: np.ndarray, sentences: int) -> np.ndarray:
    """Return smoothed inverse document frequencies (V,), float32, as in `fit_tfidf`."""
    idf: np.ndarray = np.log((1 + sentences) / (1 + frequencies)) + 1
    return idf.astype(np.float32)


def word_weights(frequencies: np.ndarray, sentences: int, *, weighted: bool) -> np.ndarray:
    """Return inverse document frequencies (V,) if the words are weighted, else ones; float32."""
    weights = inverse_frequencies(frequencies, sentences)
    return weights if weighted else np.ones_like(weights)


def centre(vectors: np.ndarray) -> np.ndarray:
    """Subtract the mean from word vectors (V, Y), and scale them to unit length; float32.

    The word vectors of a model share a large component, which would make all words similar.
    """
    return unit_rows((vectors - vectors.mean(0)).astype(np.float32))


def whiten(vectors: np.ndarray) -> np.ndarray:
    """Whiten word vectors (V, Y), that is, make dimensions uncorrelated and of equal variance.

    The mean is subtracted before, and the vectors are scaled to unit length afterwards, as in
    `centre`. Otherwise a few dimensions would dominate every cosine, and all words of a topic would
    be similar. Dimensions whose standard deviation is below FLAT times the largest are left out.
    With fewer than WORDS_PER_DIMENSION words per dimension, vectors are only centred: whitening
    would make all of them equally dissimilar.
    """
    if len(vectors) < WORDS_PER_DIMENSION * vectors.shape[1]:
        return centre(vectors)
    centred = np.asarray(vectors, np.float64) - vectors.mean(0)
    variances, directions = np.linalg.eigh(centred.T @ centred / len(vectors))
    deviations = np.sqrt(variances.clip(0))
    kept = deviations > FLAT * deviations[-1]
    return unit_rows((centred @ directions[:, kept] / deviations[kept]).astype(np.float32))
