"""Sentences as vectors: weighted words, projected counts, a transformer in a local directory.

A sentence encoder is fitted on training captions, or read from files, and is then plain arrays: no
library that trained it is needed to use it. Shapes: N sentences, V words known, Y dimensions.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import InputError
from .tokenizer import split_words

SEED = 0


class SentenceEncoder(Protocol):
    """Maps sentences to rows; `settings` and `arrays` are all that is needed to rebuild it."""

    @property
    def dimensions(self) -> int: ...

    def encode(self, sentences: Sequence[str]) -> np.ndarray:
        """Rows (N, Y), float32, of unit length, or zeros for a sentence without a known word."""

    def unknown_words(self, sentence: str) -> list[str]:
        """The words of a sentence that the encoder ignores, in order."""

    @property
    def settings(self) -> dict[str, Any]: ...

    @property
    def arrays(self) -> dict[str, np.ndarray]: ...


@dataclass(frozen=True)
class WordSum:
    """Each sentence is a weighted sum of its words' vectors, scaled to unit length.

    words (V,): the words known. weights (V,): what each occurrence of a word counts. vectors
    (V, Y), or None where every word has a dimension of its own. l2_first: whether the weighted
    counts of a sentence are scaled to unit length before they are multiplied by the vectors, as
    latent semantic analysis does (it changes nothing but rounding where the result is scaled).
    """

    words: tuple[str, ...]
    weights: np.ndarray
    vectors: np.ndarray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "_index", {word: i for i, word in enumerate(self.words)})

    @property
    def dimensions(self) -> int:
        return len(self.words) if self.vectors is None else self.vectors.shape[1]

    def encode(self, sentences: Sequence[str]) -> np.ndarray:
        rows = np.zeros((len(sentences), self.dimensions), dtype=np.float32)
        for row, sentence in zip(rows, sentences, strict=True):
            counts = Counter(self._known(split_words(sentence)))
            ids = np.fromiter(counts, dtype=np.int64, count=len(counts))
            if not len(ids):
                continue
            weights = self.weights[ids] * np.fromiter(counts.values(), np.float32, len(counts))
            if self.vectors is None:
                row[ids] = weights
            else:
                row[:] = weights @ self.vectors[ids]
        return unit_rows(rows)

    def unknown_words(self, sentence: str) -> list[str]:
        return [word for word in split_words(sentence) if word not in self._index]

    @property
    def settings(self) -> dict[str, Any]:
        return {"kind": "word-sum", "words": list(self.words)}

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        found = {"weights": self.weights}
        return found if self.vectors is None else found | {"vectors": self.vectors}

    def _known(self, words: Iterable[str]) -> Iterable[int]:
        index: dict[str, int] = self._index  # type: ignore[attr-defined]
        return (index[word] for word in words if word in index)


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Rows divided by their length; a row of zeros stays."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


# ---- fitted on training captions ----------------------------------------------------------------


def count_words(sentences: Sequence[str], min_count: int) -> tuple[tuple[str, ...], np.ndarray]:
    """The words that occur at least `min_count` times, and in how many sentences each occurs."""
    counts: Counter[str] = Counter()
    containing: Counter[str] = Counter()
    for sentence in sentences:
        words = split_words(sentence)
        counts.update(words)
        containing.update(set(words))
    kept = sorted(
        (word for word, n in counts.items() if n >= min_count), key=lambda w: (-counts[w], w)
    )
    if not kept:
        raise InputError(f"no word occurs {min_count} times in the captions; lower --min-count")
    return tuple(kept), np.array([containing[word] for word in kept], dtype=np.float32)


def fit_counts(sentences: Sequence[str], min_count: int) -> WordSum:
    """Word counts: a dimension for each word."""
    words, _ = count_words(sentences, min_count)
    return WordSum(words, np.ones(len(words), np.float32))


def fit_tfidf(sentences: Sequence[str], min_count: int) -> WordSum:
    """tf-idf: a dimension for each word, weighted by its inverse document frequency."""
    words, containing = count_words(sentences, min_count)
    return WordSum(words, _idf(containing, len(sentences)))


def fit_lsa(sentences: Sequence[str], min_count: int, dimensions: int) -> WordSum:
    """Latent semantic analysis: tf-idf projected on its leading singular vectors.

    Deerwester et al. 1990. The sentence matrix is sparse and is multiplied, not stored densely.
    """
    import torch

    plain = fit_tfidf(sentences, min_count)
    dimensions = min(dimensions, len(plain.words) - 1)
    rows, columns, values = [], [], []
    for number, sentence in enumerate(sentences):
        counts = Counter(plain._known(split_words(sentence)))
        ids = np.fromiter(counts, dtype=np.int64, count=len(counts))
        weights = plain.weights[ids] * np.fromiter(counts.values(), np.float32, len(counts))
        rows += [number] * len(ids)
        columns += ids.tolist()
        values += (weights / max(1e-12, float(np.linalg.norm(weights)))).tolist()
    matrix = torch.sparse_coo_tensor(
        torch.tensor([rows, columns]), torch.tensor(values), (len(sentences), len(plain.words))
    ).coalesce()
    gram = torch.sparse.mm(matrix.t(), matrix).to_dense().double()  # (V, V)
    _, vectors = torch.linalg.eigh(gram)
    leading = vectors.flip(1)[:, :dimensions]
    leading = leading * leading.gather(0, leading.abs().argmax(0, keepdim=True)).sign()
    return WordSum(plain.words, plain.weights, leading.float().numpy().copy())


def fit_word2vec(
    sentences: Sequence[str], min_count: int, dimensions: int, *, weighted: bool, epochs: int = 25
) -> WordSum:
    """word2vec (Mikolov et al. 2013, CBOW) trained on the captions, by gensim.

    weighted: words count by inverse document frequency instead of equally. The vectors are centred
    by their mean over the vocabulary: they share a large direction that says nothing.
    """
    models = _gensim("word2vec")
    words, containing = count_words(sentences, min_count)
    model = models.Word2Vec(
        [split_words(sentence) for sentence in sentences],  # a list: an iterator trains on nothing
        vector_size=dimensions,
        window=5,
        min_count=min_count,
        epochs=epochs,
        seed=SEED,
        workers=1,  # more workers give other vectors each time
    )
    vectors = np.stack([model.wv[word] for word in words])
    return _of_vectors(words, vectors, containing, len(sentences), weighted)


def read_word_vectors(
    path: Path, sentences: Sequence[str], min_count: int, *, weighted: bool
) -> WordSum:
    """Vectors of the training captions' words from a GloVe or word2vec file.

    Words without a vector are unknown. Raises InputError for a file that is neither, and where no
    word of the captions has a vector.
    """
    words, containing = count_words(sentences, min_count)
    found = _read_vectors(path, set(words))
    kept = [i for i, word in enumerate(words) if word in found]
    if not kept:
        raise InputError(f"{path} has a vector for none of the {len(words)} words of the captions")
    vectors = np.stack([found[words[i]] for i in kept])
    chosen = tuple(words[i] for i in kept)
    return _of_vectors(chosen, vectors, containing[kept], len(sentences), weighted)


def _of_vectors(
    words: tuple[str, ...],
    vectors: np.ndarray,
    containing: np.ndarray,
    sentences: int,
    weighted: bool,
) -> WordSum:
    vectors = unit_rows((vectors - vectors.mean(0)).astype(np.float32))
    weights = _idf(containing, sentences) if weighted else np.ones(len(words), np.float32)
    return WordSum(words, weights, vectors)


def _idf(containing: np.ndarray, sentences: int) -> np.ndarray:
    """Smoothed inverse document frequencies: log((1 + N) / (1 + n)) + 1."""
    return (np.log((1 + sentences) / (1 + containing)) + 1).astype(np.float32)


def _read_vectors(path: Path, wanted: set[str]) -> dict[str, np.ndarray]:
    """Vectors by word from a text file of GloVe or word2vec, or a .npy beside a .txt of words."""
    if not path.is_file():
        raise InputError(f"word vectors {path} do not exist")
    found: dict[str, np.ndarray] = {}
    size = 0
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            word, *values = line.rstrip("\n").split(" ")
            if number == 1 and len(values) == 1:  # word2vec's header: words and dimensions
                continue
            size = size or len(values)
            if len(values) != size or size < 2:
                raise InputError(f"{path}, line {number}: not a word and {size or 'its'} numbers")
            if word in wanted:
                try:
                    found[word] = np.array(values, dtype=np.float32)
                except ValueError as error:
                    raise InputError(
                        f"{path}, line {number}: not a word and its numbers"
                    ) from error
    return found


def _gensim(module: str) -> Any:
    try:
        from importlib import import_module

        return import_module(f"gensim.models.{module}")
    except ImportError as error:
        raise InputError(
            f"training word vectors failed: {error.name} is missing; pip install 'captioner[link]'"
        ) from error


# ---- several side by side, and back from files --------------------------------------------------


@dataclass(frozen=True)
class SideBySide:
    """The rows of several encoders next to each other, each scaled to unit length."""

    parts: tuple[SentenceEncoder, ...]

    @property
    def dimensions(self) -> int:
        return sum(part.dimensions for part in self.parts)

    def encode(self, sentences: Sequence[str]) -> np.ndarray:
        return np.concatenate([part.encode(sentences) for part in self.parts], axis=1)

    def unknown_words(self, sentence: str) -> list[str]:
        """The words that no part knows."""
        first, *others = (part.unknown_words(sentence) for part in self.parts)
        return [word for word in first if all(word in other for other in others)]

    @property
    def settings(self) -> dict[str, Any]:
        return {"kind": "side-by-side", "parts": [part.settings for part in self.parts]}

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        return {
            f"{number}.{name}": array
            for number, part in enumerate(self.parts)
            for name, array in part.arrays.items()
        }


def dumps(settings: Any) -> str:
    return json.dumps(settings)
