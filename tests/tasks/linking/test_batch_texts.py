"""Short texts and exchanged words, against plain loops over words."""

import itertools

import numpy as np
import pytest
import torch

from captioner.errors import InputError
from captioner.tasks.linking.batch_texts import Opposites, ShortTexts, are_parts
from captioner.tasks.linking.options import JointTaskOptions
from captioner.text.vocabulary import Vocabulary

TOKENS = torch.tensor([[4, 5, 6, 7, 4], [8, 4, 0, 0, 0], [9, 0, 0, 0, 0], [0, 0, 0, 0, 0]])


def words(rows):
    return [[token for token in row if token] for row in rows.tolist()]


def is_part(short, text):
    """Whether a text has these words in this order, by trying every choice of its words."""
    return any(list(chosen) == short for chosen in itertools.combinations(text, len(short)))


def test_short_texts_are_words_of_their_text_in_order():
    short, generator = ShortTexts.of(TOKENS, 10), torch.Generator().manual_seed(0)
    lengths = [[] for _ in TOKENS]
    for _ in range(600):
        for n, found in enumerate(words(short.draw(TOKENS, generator))):
            assert is_part(found, words(TOKENS)[n])
            lengths[n].append(len(found))
    shares = np.bincount(lengths[0], minlength=6) / 600
    np.testing.assert_allclose(shares, [0, 0.2, 0.2, 0.2, 0.2, 0.2], atol=0.05)
    assert [set(found) for found in lengths[1:]] == [{1, 2}, {1}, {0}]


def test_rarer_words_are_drawn_more_often():
    short, generator = ShortTexts.of(TOKENS, 10), torch.Generator().manual_seed(0)
    drawn = [short.draw(torch.tensor([[4, 5]]), generator) for _ in range(3000)]
    single = [row.flatten().tolist() for row in drawn if row.shape[1] == 1]
    share = np.mean([row == [5] for row in single])
    # Word 4 occurs three times, word 5 once.
    assert share == pytest.approx(3**0.5 / (3**0.5 + 1), abs=0.04)


def test_parts_are_words_in_order():
    captions = torch.tensor([[4, 5, 6, 4], [5, 4, 0, 0], [0, 0, 0, 0]])
    short = torch.tensor([[4, 6], [4, 4], [5, 4], [6, 5], [7, 0], [0, 0], [4, 0]])
    expected = [[is_part(s, c) for c in words(captions)] for s in words(short)]
    assert are_parts(short, captions).tolist() == expected
    assert expected[4:6] == [[False] * 3, [True] * 3]


def test_opposite_words_are_exchanged():
    vocabulary = Vocabulary.build([["left", "right", "of", "top", "a"]], 1)
    opposites = Opposites.of(["left/right", "top/bottom"], vocabulary)
    rows = [vocabulary.encode(text.split()) for text in ("a left of", "a top of", "right left a")]
    changed, at = opposites.exchange(torch.tensor(rows))
    assert at.tolist() == [0, 2]  # "bottom" is unknown
    expected = [vocabulary.encode(text.split()) for text in ("a right of", "left right a")]
    assert changed.tolist() == expected


@pytest.mark.parametrize("pair", ["left", "left/", "/left", "left/left", "a/b/c"])
def test_pairs_that_are_not_two_words_are_refused(pair):
    with pytest.raises(InputError, match=f"opposites must be pairs .* got '{pair}'"):
        JointTaskOptions(opposites=(pair,))
