"""Decoding against plain Python: all captions of a toy model enumerated, beams kept in lists."""

import math
from collections import Counter
from dataclasses import replace
from itertools import product
from typing import get_type_hints

import numpy as np
import pytest
import torch

from captioner.decoding.decode import decode
from captioner.decoding.filters import apply_filters, build_filters
from captioner.decoding.options import DecodingKeywords, DecodingOptions
from captioner.decoding.sampling import choose_words
from captioner.decoding.teacher_forcing import score_captions
from tests.support.toys import END, METHODS, START, Toy, all_captions, found, ranked, toy_features

WORDS = (4, 5, 6)
MAX_LENGTH = 4
PENALTIES = (0.0, 0.7, 1.0, 2.0)


class Blind(Toy):
    """The toy model without attention maps."""

    def step(self, tokens, state, memory):
        return (*super().step(tokens, state, memory)[:2], None)


def replay(model, features, tokens, options):
    """Log-probabilities (V,) and attention map at every word of one image's caption, by `step`."""
    memory, state = model.start(features[None], 1)
    rows, maps = [], []
    for t, word in enumerate([START, *tokens]):
        scores, state, attention = model.step(torch.tensor([word]), state, memory)
        words = torch.tensor([tokens[:t]], dtype=torch.long)
        scores = apply_filters(build_filters(options), scores.clone(), words)
        rows.append(torch.log_softmax(scores[0], 0).tolist())
        maps.append(None if attention is None else attention[0])
    return rows, maps


def next_words(model, features, options):
    """A cached function from a tuple of words to {next word: log-probability}."""
    known = {}

    def after(words):
        if words not in known:
            row = replay(model, features, list(words), options)[0][-1]
            known[words] = {w: p for w, p in enumerate(row) if p > -math.inf}
        return known[words]

    return after


def beam_in_lists(after, options):
    """Beam search over lists without early stopping, and the step at which it could have stopped.

    Of the 2K best continuations those that end and are among the first K are finished; the first
    K others stay live. The search could stop once the best live hypothesis, if all its further
    words were certain, would not beat the last requested finished one.
    """
    live, ended, enough = [((), 0.0)], [], None
    for t in range(options.max_length):
        longer = [
            ((*words, word), total + log_prob)
            for words, total in live
            for word, log_prob in after(words).items()
        ]
        longer = sorted(longer, key=lambda item: -item[1])[: 2 * options.beam_size]
        first = longer[: options.beam_size]
        ended += [(w, s, s / len(w) ** options.length_penalty) for w, s in first if w[-1] == END]
        live = [item for item in longer if item[0][-1] != END][: options.beam_size]
        ended.sort(key=lambda item: -item[2])
        asked = ended[: options.num_captions]
        bound = live[0][1] / options.max_length**options.length_penalty if live else -math.inf
        if enough is None and len(asked) == options.num_captions and asked[-1][2] >= bound:
            enough = t + 1
    best = [(words, total) for words, total, _ in ended] + live
    expected = [(words, pytest.approx(s, abs=1e-4)) for words, s in best[: options.num_captions]]
    return expected, enough or options.max_length


# ---- beam search --------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("seed", range(3))
def test_a_wide_beam_finds_the_best_of_all_captions(seed, penalty):
    model, features = Toy(seed), toy_features(2, seed)
    options = DecodingOptions(
        beam_size=120, num_captions=20, max_length=MAX_LENGTH, length_penalty=penalty
    )
    for image, hypotheses in zip(features, decode(model, features, options), strict=True):
        ended, _ = all_captions(next_words(model, image, options), MAX_LENGTH)
        assert len(ended) == 3 + 9 + 27
        assert found(hypotheses) == ranked(ended, penalty)[:20]


def test_finished_captions_rank_before_cut_ones():
    model, features = Toy(0), toy_features(1)
    options = DecodingOptions(
        beam_size=120, num_captions=60, max_length=MAX_LENGTH, length_penalty=1.0
    )
    ended, cut = all_captions(next_words(model, features[0], options), MAX_LENGTH)
    (hypotheses,) = decode(model, features, options)
    assert found(hypotheses) == ranked(ended, 1.0) + ranked(cut, 1.0)[: 60 - len(ended)]


@pytest.mark.parametrize(
    "filter_options",
    [{"min_length": 2}, {"min_length": 0}, {"no_repeat_ngram": 1}, {"allow_unknown": True}],
    ids=str,
)
def test_log_probabilities_are_normalised_after_filtering(filter_options):
    model, features = Toy(5), toy_features(1)
    options = DecodingOptions(
        beam_size=256, num_captions=10, max_length=MAX_LENGTH, length_penalty=0, **filter_options
    )
    ended, _ = all_captions(next_words(model, features[0], options), MAX_LENGTH)
    (hypotheses,) = decode(model, features, options)
    assert found(hypotheses) == ranked(ended, 0.0)[:10]


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize(("beams", "captions"), [(1, 1), (2, 1), (3, 3), (4, 2)])
def test_narrow_beams_equal_beams_in_lists_and_stop_as_early_as_possible(beams, captions, penalty):
    early = Counter()
    for seed in range(8):
        model, features = Toy(seed, end=1.0), toy_features(1, seed)
        options = DecodingOptions(
            beam_size=beams, num_captions=captions, max_length=9, length_penalty=penalty
        )
        after = next_words(Toy(seed, end=1.0), features[0], options)
        expected, enough = beam_in_lists(after, options)
        (hypotheses,) = decode(model, features, options)
        assert found(hypotheses) == expected
        assert model.steps == enough
        early[model.steps < 9] += 1
    if penalty < 1:
        assert early[True] > early[False]


@pytest.mark.parametrize("seed", range(3))
def test_live_hypotheses_are_returned_if_none_has_ended(seed):
    # The beam holds all 27 captions of three words, which rank before any that ends.
    model, features = Toy(seed, end=-40.0), toy_features(1)
    options = DecodingOptions(beam_size=27, num_captions=4, max_length=4, min_length=2)
    _, cut = all_captions(next_words(model, features[0], options), 4)
    (hypotheses,) = decode(model, features, options)
    assert found(hypotheses) == ranked(cut, 0.0)[:4]
    assert all(END not in hypothesis.tokens for hypothesis in hypotheses)


def test_finished_hypotheses_are_not_continued():
    for seed in range(5):
        options = DecodingOptions(beam_size=6, num_captions=6, max_length=8)
        for hypotheses in decode(Toy(seed, end=2.0), toy_features(3), options):
            tokens = [hypothesis.tokens for hypothesis in hypotheses]
            assert len(set(tokens)) == 6
            for words in tokens:
                assert END not in words[:-1]
                assert set(words[:-1]) <= set(WORDS)


def test_fewer_captions_are_returned_if_no_more_exist():
    # Captions of at most two tokens: a word and the end token, or two different words.
    options = DecodingOptions(beam_size=30, num_captions=30, max_length=2, no_repeat_ngram=1)
    (hypotheses,) = decode(Toy(0), toy_features(1), options)
    expected = {(w, END) for w in WORDS} | {(v, w) for v, w in product(WORDS, WORDS) if v != w}
    assert {hypothesis.tokens for hypothesis in hypotheses} == expected
    assert len(hypotheses) == len(expected)
    assert all(math.isfinite(hypothesis.score) for hypothesis in hypotheses)


@pytest.mark.parametrize("method", ["greedy", "sample", "beam"])
def test_a_caption_ends_below_min_length_if_no_word_is_allowed(method):
    options = DecodingOptions(method, max_length=9, min_length=9, no_repeat_ngram=1)
    for hypotheses in decode(Toy(0), toy_features(3), options):
        assert set(hypotheses[0].tokens[:3]) == set(WORDS)
        assert hypotheses[0].tokens[3:] == (END,)
        assert hypotheses[0].log_probs[3] == 0


# ---- greedy and sampling ------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_greedy_takes_the_likeliest_word_and_equals_a_beam_of_one(seed):
    model, features = Toy(seed, end=0.5), toy_features(6, seed)
    options = DecodingOptions("greedy", max_length=7)
    greedy = decode(model, features, options)
    beam = decode(model, features, DecodingOptions(beam_size=1, max_length=7))
    for image, (one,), (other,) in zip(features, greedy, beam, strict=True):
        after, words = next_words(model, image, options), ()
        while len(words) < 7 and END not in words:
            words += (max(after(words), key=after(words).get),)
        assert one.tokens == other.tokens == words
        assert one.log_probs == pytest.approx(other.log_probs)
        np.testing.assert_allclose(one.attention, other.attention)


def test_sampling_frequencies_are_the_probabilities():
    model, features = Toy(1), toy_features(1)
    options = DecodingOptions("sample", num_captions=5000, max_length=1, min_length=0, seed=3)
    probabilities = {
        word: math.exp(p) for word, p in next_words(model, features[0], options)(()).items()
    }
    (hypotheses,) = decode(model, features, options)
    counts = Counter(hypothesis.tokens[0] for hypothesis in hypotheses)
    assert counts.keys() <= probabilities.keys() == {END, *WORDS}
    chi_square = sum((counts[w] - 5000 * p) ** 2 / (5000 * p) for w, p in probabilities.items())
    assert chi_square < 16.3  # exceeded once in 1000 times with 3 degrees of freedom


def test_temperature_and_cuts_leave_the_reported_log_probabilities():
    model, features = Toy(1), toy_features(1)
    options = DecodingOptions(
        "sample", num_captions=300, max_length=1, temperature=3.0, top_k=2, seed=0
    )
    after = next_words(model, features[0], options)(())
    likeliest = sorted(after, key=after.get)[-2:]
    (hypotheses,) = decode(model, features, options)
    assert {hypothesis.tokens[0] for hypothesis in hypotheses} == set(likeliest)
    for hypothesis in hypotheses:
        assert hypothesis.score == pytest.approx(after[hypothesis.tokens[0]], abs=1e-5)
    assert hypotheses[0].score >= hypotheses[-1].score


@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize("number", [0.0, 1 - 2**-24])
def test_extreme_random_numbers_draw_allowed_words(number, seed, monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.full(shape, number))
    options = DecodingOptions("sample", max_length=5, num_captions=50, seed=seed)
    for hypothesis in decode(Toy(1), toy_features(1), options)[0]:
        assert hypothesis.tokens
        assert set(hypothesis.tokens) <= {END, *WORDS}
    (greedy,) = decode(Toy(1), toy_features(1), DecodingOptions("greedy", max_length=5))[0]
    for hypothesis in decode(Toy(1), toy_features(1), replace(options, top_k=1))[0]:
        assert hypothesis.tokens == greedy.tokens


def test_seeded_samples_are_stratified():
    features = toy_features(2)
    options = DecodingOptions("sample", num_captions=40, max_length=2, seed=3)
    seconds = Counter()
    for image, group in enumerate(decode(Toy(1), features, options)):
        after = next_words(Toy(1), features[image], options)
        firsts = Counter(hypothesis.tokens[0] for hypothesis in group)
        for word, log_prob in after(()).items():
            assert abs(firsts[word] - 40 * math.exp(log_prob)) < 2
        seconds.update(hypothesis.tokens[:2] for hypothesis in group)
    assert len(seconds) > 6  # the strata of successive steps are combined at random


@pytest.mark.parametrize("method", ["greedy", "sample"])
def test_choose_words_gives_the_words_of_decode(method):
    more = {"num_captions": 4, "seed": 2} if method == "sample" else {}
    options = DecodingOptions(method, max_length=5, **more)
    whole = decode(Toy(1), toy_features(6), options)
    alone = choose_words(Toy(1), toy_features(6), options)
    assert alone.shape == (6, options.num_captions, 5)
    for hypotheses, words in zip(whole, alone.tolist(), strict=True):
        expected = sorted([*h.tokens, *[0] * (5 - len(h.tokens))] for h in hypotheses)
        assert sorted(words) == expected
    assert any(END not in h.tokens for hypotheses in whole for h in hypotheses)  # cut


def sample_in_lists(after, options):
    """The samples of one image: the distribution inverted at the seed's stratified numbers."""
    steps, count = options.max_length, options.num_captions
    generator = torch.Generator().manual_seed(options.seed)
    uniform = torch.rand(steps, count, generator=generator).double()
    interval = torch.rand(steps, count, generator=generator).argsort(1)
    numbers = ((interval + uniform) / count).tolist()
    captions = []
    for k in range(count):
        words = ()
        while len(words) < steps and END not in words:
            number = numbers[len(words)][k]
            for word, log_prob in sorted(after(words).items()):  # noqa: B007 - read after the loop
                number -= math.exp(log_prob)
                if number < 0:
                    break
            words += (word,)
        captions.append(words)
    return captions


@pytest.mark.parametrize("more", [{}, {"no_repeat_ngram": 2}])
def test_ended_samples_are_dropped_and_the_others_are_unchanged(more):
    rows = []

    class Counted(Toy):
        def step(self, tokens, state, memory):
            rows.append(len(tokens))
            return super().step(tokens, state, memory)

    features = toy_features(3)
    options = DecodingOptions("sample", num_captions=16, max_length=12, seed=4, **more)
    found = decode(Counted(2, end=0.5), features, options)
    assert set(rows) <= {3 * count for count in (16, 12, 8, 6, 4, 3, 2, 1)}
    assert rows[0] == 48
    assert rows[-1] < 24
    model = Toy(2, end=0.5)
    for image, hypotheses in zip(features, found, strict=True):
        expected = sample_in_lists(next_words(model, image, options), options)
        assert sorted(hypothesis.tokens for hypothesis in hypotheses) == sorted(expected)
        for hypothesis in hypotheses:
            words = list(hypothesis.tokens)
            log_probs, maps = replay(model, image, words[:-1], options)
            expected = [row[word] for row, word in zip(log_probs, words, strict=True)]
            assert hypothesis.log_probs == pytest.approx(expected, abs=1e-5)
            np.testing.assert_allclose(hypothesis.attention, torch.stack(maps), atol=1e-6)


def test_the_largest_length_penalty_still_ranks_captions():
    options = DecodingOptions(beam_size=9, num_captions=9, max_length=40, length_penalty=10)
    for captions in decode(Toy(2), toy_features(3), options):
        ended = [h for h in captions if h.tokens[-1] == END]
        scores = [h.score / len(h.tokens) ** 10 for h in ended]
        assert len(set(scores)) > 1
        assert scores == sorted(scores, reverse=True)


def test_sampling_from_one_word_equals_greedy():
    features = toy_features(4)
    greedy = decode(Toy(2), features, DecodingOptions("greedy", max_length=6))
    for cut in ({"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-4}):
        sample = decode(Toy(2), features, DecodingOptions("sample", max_length=6, **cut))
        assert [h.tokens for (h,) in sample] == [h.tokens for (h,) in greedy]


def test_a_seed_determines_the_sample_without_the_global_generator():
    features = toy_features(3)

    def sample(seed, images=3):
        options = DecodingOptions("sample", num_captions=4, max_length=6, seed=seed)
        captions = decode(Toy(1), features[:images], options)
        return [[hypothesis.tokens for hypothesis in group] for group in captions]

    state = torch.get_rng_state()
    assert sample(7) == sample(7) != sample(8)
    assert sample(7, images=2) == sample(7)[:2]
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    first = sample(None)
    assert first != sample(None)
    torch.manual_seed(5)
    assert first == sample(None)


# ---- every method, both models ------------------------------------------------------------------


@pytest.fixture(params=METHODS, ids=lambda o: f"{o.method}-{o.num_captions}-{o.no_repeat_ngram}")
def options(request):
    return request.param


def test_maps_and_log_probabilities_belong_to_the_words(attention, options, tiny_model, features):
    model, images = tiny_model(attention).eval(), features(5)
    assert model.has_attention is attention
    for image, hypotheses in zip(images, decode(model, images, options), strict=True):
        assert len(hypotheses) == options.num_captions
        for hypothesis in hypotheses:
            tokens = list(hypothesis.tokens)
            with torch.no_grad():
                rows, maps = replay(model, image, tokens[:-1], options)
            expected = [row[word] for row, word in zip(rows, tokens, strict=True)]
            assert hypothesis.log_probs == pytest.approx(expected, abs=1e-4)
            assert hypothesis.score == pytest.approx(sum(expected), abs=1e-4)
            if attention:
                assert hypothesis.attention.shape == (len(tokens), 4, 3)
                np.testing.assert_allclose(hypothesis.attention, torch.stack(maps), atol=1e-5)
                np.testing.assert_allclose(hypothesis.attention.sum((1, 2)), 1, atol=1e-5)
            else:
                assert hypothesis.attention is None


def test_captions_do_not_depend_on_the_batch(attention, options, tiny_model, features):
    model, images = tiny_model(attention).eval(), features(6)
    together = decode(model, images, options)
    assert len({hypotheses[0].score for hypotheses in together}) == 6
    for image, hypotheses in zip(images, together, strict=True):
        (alone,) = decode(model, image[None], options)
        assert [h.tokens for h in alone] == [h.tokens for h in hypotheses]
        for one, other in zip(alone, hypotheses, strict=True):
            assert one.log_probs == pytest.approx(other.log_probs, abs=1e-4)
            if attention:
                np.testing.assert_allclose(one.attention, other.attention, atol=1e-5)


def test_score_captions_gives_the_scores_of_decode(attention, options, tiny_model, features):
    model, images = tiny_model(attention).eval(), features(4)
    captions = decode(model, images, options)
    tokens = torch.zeros(4, options.num_captions, 2 + options.max_length, dtype=torch.long)
    for b, hypotheses in enumerate(captions):
        for k, hypothesis in enumerate(hypotheses):
            words = torch.tensor([START, *hypothesis.tokens])
            tokens[b, k, : len(words)] = words
    log_probs = score_captions(model, images, tokens, options)
    assert log_probs.shape == (4, options.num_captions, 1 + options.max_length)
    expected = torch.tensor([[h.score for h in hypotheses] for hypotheses in captions])
    torch.testing.assert_close(log_probs.sum(-1), expected, atol=1e-4, rtol=1e-5)


def test_alternatives_are_the_likeliest_other_words_at_each_step(
    attention, options, tiny_model, features
):
    model, images = tiny_model(attention).eval(), features(3)
    plain = decode(model, images, options)
    with_alternatives = decode(model, images, replace(options, word_alternatives=3))
    for image, hypotheses, others in zip(images, plain, with_alternatives, strict=True):
        assert all(each.alternatives == () for each in hypotheses)
        assert [replace(each, alternatives=()).tokens for each in others] == [
            each.tokens for each in hypotheses
        ]
        for hypothesis in others:
            with torch.no_grad():
                rows, _ = replay(model, image, list(hypothesis.tokens)[:-1], options)
            for row, word, pairs in zip(
                rows, hypothesis.tokens, hypothesis.alternatives, strict=True
            ):
                wanted = sorted((-row[w], w) for w in range(len(row)) if w != word)[:3]
                possible = [(w, -p) for p, w in wanted if p < math.inf]
                assert [w for w, _ in pairs] == [w for w, _ in possible]
                assert [p for _, p in pairs] == pytest.approx([p for _, p in possible], abs=1e-4)


def test_alternatives_exclude_forbidden_words():
    only = DecodingOptions("greedy", max_length=3, min_length=3, word_alternatives=9)
    ((hypothesis,),) = decode(Toy(0), toy_features(1), only)
    assert [len(others) for others in hypothesis.alternatives] == [2, 2, 2]  # of the three WORDS


def test_forbidden_words_score_minus_infinity_and_padding_0():
    tokens = torch.tensor([[[START, 4, 3, END, 0, 0]]])
    features = toy_features(1)
    (log_probs,) = score_captions(Toy(0), features, tokens, DecodingOptions())[0]
    assert log_probs[1] == -math.inf
    assert log_probs[3:].tolist() == [0, 0]
    (log_probs,) = score_captions(Toy(0), features, tokens, DecodingOptions(allow_unknown=True))[0]
    assert log_probs.isfinite().all()


def test_decoding_leaves_the_model_unchanged(attention, tiny_model, features):
    model, images = tiny_model(attention).eval(), features(2)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    decode(model, images, DecodingOptions())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not model.training
    assert all(p.grad is None for p in model.parameters())


def test_models_without_maps_give_hypotheses_without_attention():
    for options in (DecodingOptions("greedy"), DecodingOptions("beam"), DecodingOptions("sample")):
        (hypothesis,) = decode(Blind(0, end=1.0), toy_features(1), options)[0]
        assert hypothesis.attention is None
        assert hypothesis.tokens


@pytest.mark.parametrize(
    ("options", "described"),
    [
        ({}, "beam, beam_size 3, num_captions 1, max_length 30, min_length 1, length_penalty 0.5"),
        (
            {"length_penalty": 0.0, "beam_size": 5, "no_repeat_ngram": 2, "word_alternatives": 5},
            "beam, beam_size 5, num_captions 1, max_length 30, min_length 1, length_penalty 0.0, "
            "no_repeat_ngram 2",
        ),
        (
            {"consensus": 30},
            "beam, beam_size 3, num_captions 1, max_length 30, min_length 1, length_penalty 0.5, "
            "consensus 30",
        ),
        (
            {"method": "greedy", "allow_unknown": True},
            "greedy, num_captions 1, max_length 30, min_length 1, allow_unknown",
        ),
        (
            {"method": "sample", "seed": 0, "top_k": 4},
            "sample, num_captions 1, max_length 30, min_length 1, temperature 1.0, top_k 4, seed 0",
        ),
    ],
)
def test_describe_lists_the_options_in_effect(options, described):
    assert DecodingOptions(**options).describe() == f"method {described}"


def test_keywords_have_the_names_and_types_of_the_options():
    assert get_type_hints(DecodingKeywords) == get_type_hints(DecodingOptions)
