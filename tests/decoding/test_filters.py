"""Decoding options and filters, against sets and loops in plain Python."""

import math
import random

import pytest
import torch

from captioner.decoding.filters import apply_filters, build_filters, cut_scores
from captioner.decoding.options import DecodingOptions
from captioner.errors import InputError

PAD, START, END, UNKNOWN = range(4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "best"}, "method must be greedy, sample or beam, got 'best'"),
        ({"beam_size": 0}, "beam_size must be at least 1, got 0"),
        ({"num_captions": 0}, "num_captions must be at least 1, got 0"),
        ({"max_length": 0}, "max_length must be at least 1, got 0"),
        ({"min_length": -1}, "min_length must be at least 0, got -1"),
        ({"length_penalty": -0.5}, "length_penalty must be at least 0 and at most 10, got -0.5"),
        ({"no_repeat_ngram": 0}, "no_repeat_ngram must be at least 1, got 0"),
        ({"method": "sample", "top_k": 0}, "top_k must be at least 1, got 0"),
        ({"method": "sample", "temperature": 0.0}, "at least 0.0001 and at most 10000, got 0.0"),
        ({"method": "sample", "temperature": 1e-38}, "temperature must be at least 0.0001 and at"),
        ({"method": "sample", "temperature": 1e39}, "temperature must be at least 0.0001 and at"),
        ({"method": "sample", "temperature": float("nan")}, "at most 10000, got nan"),
        ({"length_penalty": float("nan")}, "length_penalty must be at least 0 and at most 10, got"),
        ({"length_penalty": 208.0}, "length_penalty must be at least 0 and at most 10, got 208.0"),
        ({"beam_size": float("inf")}, "beam_size must be finite and at least 1, got inf"),
        (
            {"method": "sample", "beam_size": 1},
            "^beam_size requires method 'beam', got method 'sample'; change the method or omit",
        ),
        (
            {"method": "greedy", "top_k": 5, "seed": 0},
            "^top_k and seed require method 'sample', .*; change the method or omit top_k and",
        ),
        (
            {"seed": 2**70, "method": "sample"},
            "seed must be at least 0 and at most 92233720368",
        ),
        ({"method": "greedy", "length_penalty": 1.0}, "requires method 'beam', got method 'greedy"),
        ({"method": "sample", "top_p": 0.0}, "top_p must be above 0 and at most 1, got 0.0"),
        ({"method": "sample", "top_p": 1.1}, "top_p must be above 0 and at most 1, got 1.1"),
        ({"min_length": 6, "max_length": 5}, "min_length 6 is above max_length 5"),
        ({"temperature": 0.5}, "^temperature requires method 'sample', got method 'beam'"),
        ({"method": "greedy", "top_k": 5}, "requires method 'sample', got method 'greedy'"),
        ({"top_p": 0.9}, "^top_p requires method 'sample', got method 'beam'"),
        ({"method": "greedy", "seed": 0}, "^seed requires method 'sample', got method 'greedy'"),
        ({"beam_size": 2, "num_captions": 3}, "num_captions 3 is above beam_size 2"),
        (
            {"method": "greedy", "num_captions": 2},
            "greedy decoding returns one caption, got num_captions 2",
        ),
    ],
)
def test_contradictory_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        DecodingOptions(**options)


def test_extreme_but_consistent_options_are_allowed():
    DecodingOptions("sample", num_captions=9, temperature=0.1, top_k=1, top_p=1.0)
    DecodingOptions("greedy", min_length=5, max_length=5, no_repeat_ngram=1)
    DecodingOptions("beam", beam_size=5, num_captions=5, min_length=0)


def forbidden(options, words, vocabulary=9, seed=0):
    """The set of tokens that the filters forbid in each row; the others must keep their scores."""
    before = torch.randn(len(words), vocabulary, generator=torch.Generator().manual_seed(seed))
    after = apply_filters(build_filters(options), before.clone(), torch.tensor(words).long())
    cut = after == -torch.inf
    assert torch.equal(after[~cut], before[~cut])
    return [set(row.nonzero()[:, 0].tolist()) for row in cut]


def test_padding_start_and_unknown_are_forbidden():
    nothing = [[]]
    assert forbidden(DecodingOptions(min_length=0), nothing) == [{PAD, START, UNKNOWN}]
    allowed = DecodingOptions(min_length=0, allow_unknown=True)
    assert forbidden(allowed, nothing) == [{PAD, START}]


def test_captions_cannot_end_below_min_length():
    options = DecodingOptions(min_length=3)
    for words in range(6):
        (cut,) = forbidden(options, [[5, 6, 7, 8, 4][:words]])
        assert (END in cut) == (words < 3)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_no_repeat_ngram_equals_a_plain_search(size):
    rng = random.Random(size)
    options = DecodingOptions(no_repeat_ngram=size, min_length=0)
    for length in (0, 1, 2, 3, 5, 8, 13):
        rows = [[rng.choice([4, 5, 6]) for _ in range(length)] for _ in range(20)]
        for row, cut in zip(rows, forbidden(options, rows), strict=True):
            seen = [row[i : i + size] for i in range(length - size + 1)]
            start = row[length - size + 1 :] if size > 1 else []
            repeats = {w for w in range(9) if length >= size and [*start, w] in seen}
            assert cut == {PAD, START, UNKNOWN} | repeats


def test_no_repeat_ngram_never_forbids_the_end_token():
    (cut,) = forbidden(DecodingOptions(no_repeat_ngram=1, min_length=0), [[4, 5, 6, 7, 8]])
    assert cut == set(range(9)) - {END}


def test_filtered_scores_are_float32():
    scores = torch.zeros(1, 9, dtype=torch.bfloat16)
    assert apply_filters([], scores, torch.empty(1, 0)).dtype == torch.float32


# ---- temperature, top_k, top_p -------------------------------------------------------------------

PROBABILITIES = [0.3, 0.05, 0.4, 0.05, 0.2]


def drawn_from(probabilities, **options):
    """The words that can be drawn, with their probabilities."""
    scores = torch.tensor([probabilities]).log()
    shaped = cut_scores(scores, DecodingOptions("sample", **options))[0].softmax(0)
    return {word: pytest.approx(p, abs=1e-6) for word, p in enumerate(shaped.tolist()) if p > 0}


def test_nothing_is_cut_by_default():
    assert drawn_from(PROBABILITIES) == dict(enumerate(PROBABILITIES))
    assert drawn_from(PROBABILITIES, top_p=1.0) == dict(enumerate(PROBABILITIES))
    assert drawn_from(PROBABILITIES, top_k=5) == dict(enumerate(PROBABILITIES))
    assert drawn_from(PROBABILITIES, top_k=99) == dict(enumerate(PROBABILITIES))


@pytest.mark.parametrize("temperature", [0.25, 0.5, 2.0])
def test_temperature_raises_probabilities_to_a_power(temperature):
    powers = [p ** (1 / temperature) for p in PROBABILITIES]
    expected = {word: p / sum(powers) for word, p in enumerate(powers)}
    assert drawn_from(PROBABILITIES, temperature=temperature) == expected


def test_top_k_keeps_exactly_k_words_even_with_ties():
    assert drawn_from(PROBABILITIES, top_k=1) == {2: 1.0}
    assert drawn_from(PROBABILITIES, top_k=2) == {0: 3 / 7, 2: 4 / 7}
    left = drawn_from(PROBABILITIES, top_k=4)
    assert len(left) == 4
    assert left.keys() > {0, 2, 4}
    assert len(drawn_from([0.2] * 5, top_k=3)) == 3


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [
        (0.01, {2}),
        (0.39, {2}),
        (0.41, {2, 0}),
        (0.69, {2, 0}),
        (0.71, {2, 0, 4}),
        (0.89, {2, 0, 4}),
    ],
)
def test_top_p_keeps_the_smallest_set_of_that_mass(top_p, kept):
    mass = sum(PROBABILITIES[word] for word in kept)
    expected = {word: PROBABILITIES[word] / mass for word in kept}
    assert drawn_from(PROBABILITIES, top_p=top_p) == expected


def test_top_p_keeps_no_more_than_needed_with_ties():
    assert len(drawn_from([0.25] * 4, top_p=0.6)) == 3
    assert len(drawn_from(PROBABILITIES, top_p=0.93)) == 4


def test_the_likeliest_word_can_always_be_drawn():
    assert drawn_from(PROBABILITIES, top_p=1e-46) == {2: 1.0}  # 0 in float32
    assert drawn_from(PROBABILITIES, temperature=1e-4) == {2: 1.0}
    uniform = dict.fromkeys(range(5), pytest.approx(0.2, abs=1e-3))
    assert drawn_from(PROBABILITIES, temperature=1e4) == uniform


def test_temperature_applies_before_top_k_before_top_p():
    # At temperature 2 the likeliest word has less than 0.39.
    assert drawn_from(PROBABILITIES, temperature=2.0, top_p=0.39).keys() == {2, 0}
    # Of the two kept words the likelier has 4/7, which alone reaches 0.5.
    assert drawn_from(PROBABILITIES, top_k=2, top_p=0.5).keys() == {2}


def test_cuts_never_allow_forbidden_words():
    scores = torch.tensor([[-math.inf, 1.0, -math.inf, 0.0]])
    for options in ({"top_k": 3}, {"top_p": 0.999}, {"temperature": 9.0, "top_k": 4}):
        shaped = cut_scores(scores, DecodingOptions("sample", **options))[0]
        assert torch.isinf(shaped[[0, 2]]).all()
        assert torch.isfinite(shaped[[1, 3]]).all()


def test_the_default_length_penalty_of_beam_search():
    assert DecodingOptions().penalty == 0.5
    assert DecodingOptions(length_penalty=0).penalty == 0
    assert DecodingOptions("beam", length_penalty=1.0).penalty == 1
