"""The linear SVM on article embeddings, with which the classifiers are compared.

Shapes: N training texts, M texts of the scored split, A size of articles.
"""

from collections.abc import Sequence

import numpy as np

from ...errors import InputError
from ...models.relation.options import Head

MAX_TEXTS = 10_000  # more take many minutes
SEED = 0


def draw_texts(rows: np.ndarray) -> np.ndarray:
    """Return up to MAX_TEXTS of the rows of training texts, drawn at random, in ascending order."""
    drawn: np.ndarray = np.sort(np.random.default_rng(SEED).permutation(rows)[:MAX_TEXTS])
    return drawn


def svm_predictions(
    heads: Sequence[Head],
    embeddings: np.ndarray,
    labels: np.ndarray,
    scored: np.ndarray,
) -> list[np.ndarray]:
    """Fit a linear SVM for each head; return the indices (M,) of the levels that each predicts.

    embeddings (N, A): article embeddings of training texts. labels (N, heads): indices of their
    levels, -1 for missing labels. scored (M, A): embeddings of the texts to predict. The embeddings
    are standardised; the SVM is scikit-learn's LinearSVC, one against the rest, with C = 1. If only
    one level of a head occurs in training, it is always predicted; if none does, the first level.
    Raises InputError without scikit-learn.
    """
    try:
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from sklearn.svm import LinearSVC
    except ImportError as error:
        raise InputError(
            f"the linear SVM needs {error.name}; run pip install 'captioner[link]', or pass no "
            "autoencoder to --checkpoint"
        ) from error
    predicted = []
    for column, _ in enumerate(heads):
        rows = np.flatnonzero(labels[:, column] >= 0)
        known = labels[rows, column]
        if len(set(known.tolist())) < 2:
            predicted.append(np.full(len(scored), known[0] if len(known) else 0))
            continue
        # The primal problem: coordinate descent on the dual often does not converge.
        svm = make_pipeline(StandardScaler(), LinearSVC(dual=False))
        svm.fit(embeddings[rows], known)
        predicted.append(svm.predict(scored))
    return predicted
