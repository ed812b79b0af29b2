"""Projections of vectors onto a plane, and groups of similar vectors.

`plots.projections` draws them. Everything runs in one thread: with several threads, the order of
additions varies, and t-SNE amplifies the resulting differences in rounding.

Shapes: N vectors, Y dimensions.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from ..errors import InputError
from ..text.content_words import stem

METHODS = ("tsne", "pca")
MIN_VECTORS = 5
TOLERANCE = 1e-5  # differences relative to the largest value that are due to float32
PERPLEXITY = 30.0  # of t-SNE; between the 5 and 50 that its authors recommend


def project(vectors: np.ndarray, method: str = "tsne", seed: int = 0) -> np.ndarray:
    """Project vectors (N, Y) onto a plane and return their positions (N, 2), float64.

    method: "tsne" (van der Maaten and Hinton 2008) keeps neighbours together, but distances between
    groups mean little; "pca" returns the first two principal components, with signs that make the
    largest loading of each positive. Distances are Euclidean. The result is the same for the same
    vectors and seed; "pca" does not depend on the seed. Raises InputError if there are fewer than 5
    vectors or 2 dimensions, if a value is not finite, if all vectors are equal up to rounding, if
    the method is unknown, or if the extra `link` is not installed.
    """
    vectors = _check(vectors)
    if method not in METHODS:
        raise InputError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    with _one_thread():
        from sklearn.decomposition import PCA
        from sklearn.manifold import TSNE

        if method == "pca":
            points = PCA(2, svd_solver="full").fit_transform(vectors)
        else:
            perplexity = choose_perplexity(len(vectors))
            tsne = TSNE(perplexity=perplexity, init="pca", random_state=seed)
            points = tsne.fit_transform(vectors)
    return np.asarray(points, dtype=np.float64)


def choose_perplexity(count: int) -> float:
    """Return t-SNE's perplexity for `count` vectors: min(30, (count - 1) / 3).

    For every vector, t-SNE considers three times as many neighbours as the perplexity.
    """
    return min(PERPLEXITY, (count - 1) / 3)


def cluster(vectors: np.ndarray, groups: int, seed: int = 0) -> np.ndarray:
    """Divide vectors (N, Y) into groups by k-means; return the group of each (N,), int64.

    groups: number of groups, at least 1; the result has fewer if there are fewer distinct vectors.
    Group 0 is the largest. Raises InputError for the same vectors as `project`, for fewer than 1
    group, or if the extra `link` is not installed.
    """
    vectors = _check(vectors)
    if groups < 1:
        raise InputError(f"groups must be at least 1, got {groups}")
    with _one_thread():
        from sklearn.cluster import KMeans

        # Sentences of the same words in another order differ by rounding only.
        rounded = np.round(vectors / (TOLERANCE * np.abs(vectors).max()))
        distinct = len(np.unique(rounded, axis=0))
        means = KMeans(min(groups, distinct), n_init=10, random_state=seed)
        found = means.fit_predict(vectors)
    by_size = np.argsort(-np.bincount(found), kind="stable")
    return np.asarray(np.argsort(by_size)[found], dtype=np.int64)


def subtract_means(vectors: np.ndarray, modalities: np.ndarray) -> np.ndarray:
    """Subtract from each vector (N, Y) the mean vector of its modality.

    modalities (N,): integers, such as 0 for images and 1 for texts. The means of the embeddings of
    images and of texts differ, so that a projection would otherwise show two separate clusters.
    """
    centred = np.array(vectors, dtype=np.float64)
    for modality in np.unique(modalities):
        centred[modalities == modality] -= centred[modalities == modality].mean(0)
    return centred


def nearest_words(
    vectors: np.ndarray, groups: np.ndarray, words: Sequence[str], rows: np.ndarray, count: int = 3
) -> list[list[str]]:
    """Return, for each group, the `count` words that distinguish it best from the other groups.

    vectors (N, Y): embeddings. groups (N,): the group of each vector, from 0, or -1 for none. rows
    (words, Y): the embeddings of the words. Words are ranked by their dot product with the
    difference between the group's mean vector and the mean of all groups' mean vectors; with the
    mean vector itself if there is only one group. Of several forms of a word, only the best counts.
    """
    means = np.stack([vectors[groups == group].mean(0) for group in range(groups.max() + 1)])
    scores = (means - means.mean(0)) @ rows.T  # (groups, words)
    if len(means) == 1:
        scores = means @ rows.T
    found = []
    for order in np.argsort(-scores, axis=1, kind="stable"):
        best: dict[str, str] = {}  # by stem
        for i in order:
            best.setdefault(stem(words[i]), words[i])
            if len(best) == count:
                break
        found.append(list(best.values()))
    return found


def _check(vectors: np.ndarray) -> np.ndarray:
    """Return the vectors as float64; raise InputError if they cannot be projected or grouped."""
    vectors = np.asarray(vectors, dtype=np.float64)
    if len(vectors) < MIN_VECTORS:
        raise InputError(
            f"projections and groups need at least {MIN_VECTORS} vectors, got {len(vectors)}; "
            "choose more images or sentences"
        )
    if vectors.ndim != 2 or vectors.shape[1] < 2:
        raise InputError(f"vectors must have shape (N, Y) with Y at least 2, got {vectors.shape}")
    if len(wrong := np.flatnonzero(~np.isfinite(vectors).all(1))):
        raise InputError(
            f"vectors must be finite, got NaN or infinity in {len(wrong)} of {len(vectors)}, the "
            f"first in row {wrong[0]} (counted from 0); compute them again, or omit them"
        )
    if np.ptp(vectors, axis=0).max() <= TOLERANCE * np.abs(vectors).max():
        raise InputError(
            f"projections and groups need distinct vectors, but all {len(vectors)} are equal; "
            "choose other images, sentences or vectors"
        )
    return vectors


@contextmanager
def _one_thread() -> Iterator[None]:
    """Limit scikit-learn to one thread; raise InputError if it is not installed."""
    try:
        # Imported here, because the limit applies only to libraries that are already loaded.
        import sklearn.cluster
        import sklearn.decomposition
        import sklearn.manifold  # noqa: F401
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise InputError(
            "projections and groups need scikit-learn; run pip install 'captioner[link]'"
        ) from error
    with threadpool_limits(1):
        yield
