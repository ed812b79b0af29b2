"""Lifts of words, computed by hand."""

import pytest

from captioner.text.cooccurrence import MIN_DOCUMENTS, Cooccurrence


def test_lift_is_the_share_beside_the_words_over_the_share_everywhere():
    documents = [{"dog", "grass"}] * 6 + [{"dogs", "park"}] * 6 + [{"grass"}] * 6 + [{"car"}] * 6
    documents += [{"dog", "rare"}] * (MIN_DOCUMENTS - 1)
    lifts = Cooccurrence(documents).lifts([{"dog", "dogs"}])
    share = 6 / (12 + MIN_DOCUMENTS - 1)
    total = len(documents)
    assert list(lifts) == ["park", "grass"]  # the largest first; rare words are left out
    assert lifts == pytest.approx({"park": share / (6 / total), "grass": share / (12 / total)})


def test_all_given_words_must_occur():
    documents = [{"dog", "ball", "red"}] * 5 + [{"dog", "blue"}] * 5 + [{"ball", "blue"}] * 5
    lifts = Cooccurrence(documents).lifts([{"dog"}, {"ball"}])
    assert lifts == {"red": 3.0}
    assert Cooccurrence(documents).lifts([{"zebra"}]) == {}
