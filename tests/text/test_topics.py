"""Words of groups against scikit-learn's tf-idf."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from captioner.errors import InputError
from captioner.text.tokenizer import split_words
from captioner.text.topics import characteristic_words

SENTENCES = [
    "a dog runs on the beach",
    "a dog runs in the grass",
    "the dog barks",
    "a red car on the road",
    "the red bus",
    "a red car",
    "a cake on the table",
]
GROUPS = np.array([0, 0, 0, 1, 1, 1, 2])


@pytest.mark.parametrize("count", [1, 3, 50])
def test_words_are_ranked_by_their_excess_in_the_group(count):
    theirs = TfidfVectorizer(tokenizer=split_words, token_pattern=None, lowercase=False)
    rows = theirs.fit_transform(SENTENCES).toarray()
    names, overall = theirs.get_feature_names_out(), rows.mean(0)
    found = characteristic_words(SENTENCES, GROUPS, count)
    assert len(found) == 3
    for group, words in enumerate(found):
        scores = (rows[group == GROUPS].mean(0) - overall) / overall**0.5
        by_name = dict(zip(names, scores, strict=True))
        expected = sorted((score for score in scores if score > 1e-6), reverse=True)[:count]
        assert [by_name[word] for word in words] == pytest.approx(expected, abs=1e-5)


def test_frequent_words_need_a_larger_excess():
    """Both groups say "the", the first more often; only the first mentions a dog."""
    sentences = ["the dog"] * 4 + ["the"] * 4 + ["the cat sat here"] * 4 + ["cat cat"] * 4
    groups = np.repeat([0, 1], 8)
    first, second = characteristic_words(sentences, groups)
    assert first == ["dog", "the"]
    assert second[0] == "cat"


def test_words_of_all_groups_describe_none():
    first, second, third = characteristic_words(SENTENCES, GROUPS)
    assert first[:2] == ["dog", "runs"]
    assert second[:2] == ["red", "car"]
    assert "the" not in [*first, *second]
    assert characteristic_words(["a dog", "a dog"], np.array([0, 1])) == [[], []]
    assert set(third) <= {"cake", "table", "on", "a", "the"}


def test_groups_without_words():
    assert characteristic_words(["dog", "!", "dog"], np.array([0, 2, 0])) == [["dog"], [], []]
    with pytest.raises(InputError, match="the 2 texts contain no words; add texts"):
        characteristic_words(["!", "..."], np.array([0, 1]))
