"""Sampling inverts the cumulative distribution of the next word."""

import pytest
import torch

from captioner.decoding import sampling


@pytest.mark.parametrize("size", [1, 5, sampling.BLOCK, sampling.BLOCK + 1, 1000])
def test_words_invert_the_cumulative_distribution(size):
    generator = torch.Generator().manual_seed(size)
    scores = torch.randn(200, size, generator=generator).mul(3)
    scores[torch.rand(200, size, generator=generator) < 0.5] = -torch.inf
    scores[:, size // 2] = 0
    probabilities = scores.softmax(1)
    uniform = torch.rand(200, generator=generator, dtype=torch.double)
    uniform[:2], uniform[2:4] = 0, 1 - 2**-53
    words = sampling._invert(probabilities, uniform)
    cumulative = probabilities.double().cumsum(1)
    above = cumulative > uniform[:, None] * cumulative[:, -1:]
    first = above.int().argmax(1)
    likely = (uniform > 0) & (uniform < 1 - 2**-53)  # at the ends, rounding may decide
    assert torch.equal(words[likely], first[likely])
    assert (probabilities.gather(1, words[:, None]) > 0).all()


@pytest.mark.parametrize("size", [5, sampling.BLOCK + 1])
def test_words_of_scores_that_are_not_numbers_are_in_the_vocabulary(size):
    probabilities = torch.full((3, size), torch.nan)
    words = sampling._invert(probabilities, torch.tensor([0, 0.5, 1 - 2**-53]).double())
    assert ((words >= 0) & (words < size)).all()
