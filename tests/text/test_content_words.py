"""Content words, and families of words with one stem."""

import pytest

from captioner.text.content_words import families, is_content_word, stem


@pytest.mark.parametrize("word", ["dog", "red", "two", "running", "t-shirt", "été"])
def test_content_words(word):
    assert is_content_word(word)


@pytest.mark.parametrize("word", ["a", "the", "of", "is", "x", "'s", "12", ""])
def test_other_words(word):
    assert not is_content_word(word)


@pytest.mark.parametrize(
    "forms",
    [
        ("dog", "dogs"),
        ("run", "runs", "running"),
        ("walk", "walks", "walked", "walking"),
        ("ride", "rides", "riding"),
        ("baby", "babies"),
        ("bus", "buses"),
        ("grass", "grasses"),
        ("climb", "climbing", "climbs"),
    ],
)
def test_forms_of_a_word_share_a_stem(forms):
    assert len(set(map(stem, forms))) == 1


def test_different_words_have_different_stems():
    words = ["dog", "doll", "bus", "but", "car", "cart", "ball", "bald", "red", "sing", "sea"]
    assert len(set(map(stem, words))) == len(words)


def test_families_keep_order_and_phrases_apart():
    words = ["dog", "red", "black dog", "dogs", "black dogs"]
    assert families(words) == [["dog", "dogs"], ["red"], ["black dog", "black dogs"]]
