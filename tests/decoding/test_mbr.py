"""Reranking by similarity to samples, against n-grams counted in plain Python."""

import math
from collections import Counter

import pytest
import torch

from captioner.decoding.decode import decode
from captioner.decoding.hypothesis import Hypothesis
from captioner.decoding.mbr import LOG_PROB_WEIGHT, TEMPERATURE, rerank, similarity
from captioner.decoding.options import DecodingOptions
from captioner.errors import InputError
from tests.support.toys import Toy, toy_features


def cosine(one, other, n):
    """Cosine of the n-gram counts of two captions, which are tuples of tokens."""
    first, second = (Counter(x[i : i + n] for i in range(len(x) - n + 1)) for x in (one, other))
    norms = math.hypot(*first.values()) * math.hypot(*second.values())
    return sum(first[gram] * second[gram] for gram in first) / norms if norms else 0.0


def mean_cosine(one, other):
    return sum(cosine(one, other, n) for n in (1, 2, 3, 4)) / 4


def words_of(row):
    return tuple(token for token in row.tolist() if token)


def random_captions(*shape, words, fewest=1, seed=0):
    """Captions of at least `fewest` out of `words` different words, padded."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(4, 4 + words, shape, generator=generator)
    lengths = torch.randint(fewest, shape[-1] + 1, shape[:-1], generator=generator)
    return tokens.masked_fill(torch.arange(shape[-1]) >= lengths[..., None], 0)


@pytest.mark.parametrize("words", [2, 30, 60_000])
@pytest.mark.parametrize("fewest", [1, 9])  # 9: without padding
def test_similarity_is_the_mean_cosine_of_ngram_counts(words, fewest):
    captions = random_captions(3, 4, 9, words=words, fewest=fewest)
    samples = random_captions(3, 5, 9, words=words, fewest=fewest, seed=1)
    samples[0] = captions[0, 2]  # equal to all five samples
    wanted = [
        [
            sum(mean_cosine(words_of(caption), words_of(sample)) for sample in samples[b]) / 5
            for caption in group
        ]
        for b, group in enumerate(captions)
    ]
    found = similarity(captions, samples)
    torch.testing.assert_close(found, torch.tensor(wanted), atol=1e-6, rtol=1e-5)
    if fewest == 9:
        assert found[0, 2] == pytest.approx(1)


def test_an_empty_caption_has_similarity_0():
    captions = torch.tensor([[[0, 0], [4, 5]]])
    assert similarity(captions, captions[:, :1]).tolist() == [[0.0, 0.0]]
    assert similarity(captions, captions[:, 1:]).tolist() == [[0.0, 0.5]]  # no trigrams


def hypothesis(*tokens, score):
    return Hypothesis(tokens, (score,), None)


def test_similarity_outweighs_a_small_difference_in_likelihood():
    unlike, alike = hypothesis(9, 8, 7, 2, score=-3.0), hypothesis(4, 5, 6, 2, score=-3.1)
    samples = torch.tensor([[[4, 5, 6, 2], [4, 5, 2, 0], [7, 5, 6, 2]]])
    assert rerank([[unlike, alike]], samples) == [[alike, unlike]]
    # at equal similarity the likelier caption comes first
    assert rerank([[hypothesis(8, 2, score=-9.0), unlike]], samples[:, :1])[0][0] == unlike


def test_images_may_have_different_numbers_of_captions():
    one, two = hypothesis(4, 2, score=-1.0), hypothesis(5, 2, score=-2.0)
    samples = torch.tensor([[[5, 2]], [[5, 2]]])
    assert rerank([[one], [one, two]], samples) == [[one], [two, one]]


def test_cut_captions_rank_after_all_that_ended():
    cut, ended = hypothesis(4, 5, 6, score=-1.0), hypothesis(9, 2, score=-9.0)
    assert rerank([[cut, ended]], torch.tensor([[[4, 5, 6]]])) == [[ended, cut]]
    options = {"beam_size": 5, "max_length": 4}
    for seed in range(12):
        model, features = Toy(seed), toy_features(4)
        plain = decode(model, features, DecodingOptions(**options))
        reranked = decode(model, features, DecodingOptions(consensus=30, **options))
        for (first,), (chosen,) in zip(plain, reranked, strict=True):
            assert (first.tokens[-1] == 2) == (chosen.tokens[-1] == 2)


@pytest.mark.parametrize("captions", [1, 4])
@pytest.mark.parametrize("samples", [12, 200])  # of 200, two images' are drawn at once
def test_consensus_reranks_the_beam_by_samples(captions, samples):
    model, features = Toy(3, end=0.5), toy_features(5)
    shared = {"max_length": 8, "min_length": 2, "no_repeat_ngram": 3}
    beam = decode(model, features, DecodingOptions(beam_size=6, num_captions=6, **shared))
    drawn = DecodingOptions(
        method="sample", num_captions=samples, temperature=TEMPERATURE, seed=0, **shared
    )
    drawn = decode(model, features, drawn)

    def value(caption, image):
        cosines = [mean_cosine(caption.tokens, sample.tokens) for sample in drawn[image]]
        return sum(cosines) / len(cosines) + LOG_PROB_WEIGHT * caption.score

    wanted = [
        sorted(group, key=lambda each: (each.tokens[-1] != 2, -value(each, image)))[:captions]
        for image, group in enumerate(beam)
    ]
    options = DecodingOptions(beam_size=6, num_captions=captions, consensus=samples, **shared)

    def tokens(groups):
        return [[each.tokens for each in group] for group in groups]

    assert tokens(decode(model, features, options)) == tokens(wanted)
    assert tokens(wanted) != tokens([group[:captions] for group in beam])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "greedy"}, "consensus requires method 'beam', got method 'greedy'"),
        ({"method": "sample"}, "consensus requires method 'beam', got method 'sample'"),
        ({"beam_size": 1}, "consensus requires a beam_size of at least 2, got 1; raise beam_size"),
    ],
)
def test_consensus_needs_a_beam_of_several_captions(options, message):
    with pytest.raises(InputError, match=message):
        DecodingOptions(consensus=5, **options)
    with pytest.raises(InputError, match="consensus must be at least 1, got 0"):
        DecodingOptions(consensus=0)
