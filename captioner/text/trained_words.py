"""Word vectors trained on captions: fastText, and PPMI with SVD, which needs no extra.

word2vec is trained in `sentence_vectors`. Shapes: N sentences, V known words, Y dimensions.
"""

from collections.abc import Sequence

import numpy as np
import torch

from ..errors import InputError
from .sentence_vectors import (
    SEED,
    WordSum,
    centre,
    document_frequencies,
    whiten,
    word_weights,
)
from .tokenizer import plain_words

WINDOW = 5  # words on either side
BUCKETS = 50_000  # of fastText's character n-grams; gensim's 2,000,000 take gigabytes
SMOOTHING = 0.75  # exponent of the context counts
ITERATIONS = 4  # of the subspace iteration


def fit_fasttext(
    sentences: Sequence[str], min_count: int, dimensions: int, *, weighted: bool, epochs: int = 25
) -> WordSum:
    """Train fastText (Bojanowski et al. 2017, CBOW) on the captions with gensim.

    Only the vectors of the captions' words are kept. fastText can compose a vector for any word
    from its character n-grams, but for an unknown word this vector carries little meaning. The
    vectors are processed by `whiten`. The parameter weighted and the errors are as in
    `fit_word2vec`.
    """
    try:
        from gensim.models import FastText
    except ImportError as error:
        raise InputError(
            f"training fastText needs {error.name}; run pip install 'captioner[link]'"
        ) from error
    words, frequencies = document_frequencies(sentences, min_count)
    model = FastText(
        [plain_words(sentence) for sentence in sentences],  # a list, because it is read repeatedly
        vector_size=dimensions,
        window=WINDOW,
        min_count=min_count,
        epochs=epochs,
        bucket=BUCKETS,
        seed=SEED,
        workers=1,  # with several, the vectors depend on the order in which threads run
    )
    vectors = np.stack([model.wv[word] for word in words])
    weights = word_weights(frequencies, len(sentences), weighted=weighted)
    return WordSum(words, weights, whiten(vectors))


def fit_ppmi_svd(
    sentences: Sequence[str],
    min_count: int,
    dimensions: int,
    *,
    weighted: bool,
    window: int | None = WINDOW,
) -> WordSum:
    """Factorise the positive pointwise mutual information of words that occur together.

    Like GloVe, this uses counts of co-occurrence, but an SVD instead of gradient descent. Counts of
    contexts are raised to the power SMOOTHING, and the singular vectors are multiplied by the
    square roots of the singular values (Levy et al. 2015, sections 3.2 and 3.3), which works better
    than whitening. The vectors are processed by `centre`. dimensions: number of singular vectors,
    limited to V. weighted: as in `fit_word2vec`. window: maximum distance of two words that occur
    together. None counts the sentences that contain both words, wherever they are; a word then also
    occurs with itself.
    """
    words, frequencies = document_frequencies(sentences, min_count)
    index = {word: i for i, word in enumerate(words)}
    known = [[index[w] for w in plain_words(s) if w in index] for s in sentences]
    size = len(words)
    counted = _shared_texts(known, size) if window is None else _neighbours(known, size, window)
    matrix = _ppmi(*counted, size)
    vectors = _leading_rows(matrix, min(dimensions, len(words))).numpy()
    weights = word_weights(frequencies, len(sentences), weighted=weighted)
    return WordSum(words, weights, centre(vectors))


def _neighbours(
    known: Sequence[Sequence[int]], size: int, window: int
) -> tuple[np.ndarray, np.ndarray]:
    """Count pairs of words up to `window` words apart, in texts of word ids.

    Returns the pairs that occur, as first * V + second, and their counts.
    """
    ids = np.array([i for row in known for i in row], dtype=np.int64)
    owner = np.repeat(np.arange(len(known)), [len(row) for row in known])
    pairs = []
    for distance in range(1, window + 1):
        together = owner[:-distance] == owner[distance:]
        left, right = ids[:-distance][together], ids[distance:][together]
        pairs += [left * size + right, right * size + left]
    return np.unique(np.concatenate(pairs), return_counts=True)


def _shared_texts(known: Sequence[Sequence[int]], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Count the texts that contain both words of a pair; returns pairs as `_neighbours` does."""
    shared = np.zeros((size, size), np.int32)
    for row in known:
        distinct = np.unique(np.array(row, np.int64))
        shared[np.ix_(distinct, distinct)] += 1
    flat = shared.ravel()
    cells = np.flatnonzero(flat)
    return cells, flat[cells]


def _ppmi(cells: np.ndarray, counts: np.ndarray, size: int) -> torch.Tensor:
    """Return the sparse PPMI matrix (V, V) of words and contexts from counts of their pairs."""
    rows, columns = cells // size, cells % size
    totals = np.bincount(rows, counts, size)  # (V,), also of the contexts: counts are symmetric
    contexts = totals**SMOOTHING
    expected = totals[rows] * contexts[columns] / max(1.0, contexts.sum())
    values = np.log(counts / expected).clip(0)
    kept = values > 0
    indices = torch.from_numpy(np.stack([rows[kept], columns[kept]]))
    content = torch.from_numpy(values[kept].astype(np.float32))
    # Checking the indices costs little, and without a choice torch 2.14 warns.
    return torch.sparse_coo_tensor(indices, content, (size, size), check_invariants=True).coalesce()


def _leading_rows(matrix: torch.Tensor, count: int) -> torch.Tensor:
    """Return U sqrt(S) (V, count) of a sparse square matrix, computed by subspace iteration.

    See Halko et al. 2011, algorithms 4.4 and 5.1. The random start is always the same.
    """
    size = matrix.shape[0]
    wide = min(size, count + 20)
    basis = torch.randn(size, wide, generator=torch.Generator().manual_seed(SEED))
    transposed = matrix.T.coalesce()
    basis, _ = torch.linalg.qr(torch.sparse.mm(matrix, basis))
    for _ in range(ITERATIONS):
        basis, _ = torch.linalg.qr(torch.sparse.mm(transposed, basis))
        basis, _ = torch.linalg.qr(torch.sparse.mm(matrix, basis))
    small = torch.sparse.mm(transposed, basis).T  # (wide, V)
    left, values, _ = torch.linalg.svd(small, full_matrices=False)
    rows: torch.Tensor = (basis @ left[:, :count]) * values[:count].sqrt()
    return rows
