"""Words that describe given groups of sentences.

Shapes: N sentences.
"""

from collections.abc import Sequence

import numpy as np

from .sentence_vectors import fit_tfidf


def characteristic_words(
    sentences: Sequence[str], groups: np.ndarray, count: int = 3
) -> list[list[str]]:
    """Return at most `count` words for each group, the most characteristic first.

    Words are ranked by (m - M) / sqrt(M), where m is a word's mean tf-idf weight in the unit rows
    of the group's sentences, and M is its mean over all sentences. Words with m <= M are left out,
    so a group may have no words. groups (N,): the group of every sentence, counted from 0. Raises
    InputError if none of the sentences contains a word.
    """
    tfidf = fit_tfidf(sentences, 1)
    sums = np.zeros((int(groups.max()) + 1, len(tfidf.words)))
    for sentence, group in zip(sentences, groups, strict=True):
        ids, weights = tfidf.weigh(sentence)
        sums[group, ids] += weights / max(1e-12, float(np.linalg.norm(weights)))
    sizes = np.maximum(1, np.bincount(groups))
    overall = sums.sum(0) / len(sentences)
    scores = (sums / sizes[:, None] - overall) / np.sqrt(overall)
    return [
        [tfidf.words[i] for i in np.argsort(-row, kind="stable")[:count] if row[i] > 1e-9]
        for row in scores
    ]
