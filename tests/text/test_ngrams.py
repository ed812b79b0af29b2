"""N-grams as numbers, compared with tuples of tokens."""

from collections import Counter

import pytest
import torch

from captioner.text.ngrams import ORDERS, ngram_counts, ngram_ids

TOKENS = torch.tensor([[4, 5, 4, 5, 4, 6, 0, 0], [6, 4, 5, 4, 5, 4, 6, 5]])


def tuples(row, n):
    """The n-grams that begin at each position; None for those that exceed the text."""
    words = [token for token in row if token]
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return [*grams, *[None] * (len(row) - len(grams))]


@pytest.mark.parametrize("n", ORDERS)
def test_equal_numbers_are_equal_ngrams(n):
    ids = ngram_ids(TOKENS, n, 7).flatten().tolist()
    grams = [gram for row in TOKENS.tolist() for gram in tuples(row, n)]
    assert [number == 0 for number in ids] == [gram is None for gram in grams]
    assert len(set(zip(ids, grams, strict=True))) == len(set(ids)) == len(set(grams))


@pytest.mark.parametrize("n", ORDERS)
def test_ngrams_are_counted_among_those_of_another_text(n):
    first, second = ngram_ids(TOKENS, n, 7)
    counts = Counter(tuples(TOKENS[1].tolist(), n))
    expected = [counts[gram] for gram in tuples(TOKENS[0].tolist(), n)]
    assert ngram_counts(first, second).tolist() == expected
