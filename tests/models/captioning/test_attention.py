"""Attention energies against the formula of the paper, and their memory."""

import pytest
import torch

from captioner.models.captioning import attention
from captioner.models.captioning.attention import decay


def draw(*shape, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=generator) * scale).requires_grad_()


def paper_energies(queries, keys, weight):
    return torch.tanh((keys[:, None] + queries[:, :, None]) / 2) @ weight


def additive_energies(queries, keys, weight):
    return attention.additive_energies(queries, decay(keys.detach()), weight, keys)


@pytest.fixture(params=[1, 2**7, 2**30])
def chunk(request, monkeypatch):
    """One image at a time, two, or all at once."""
    monkeypatch.setitem(attention.NUMBERS_AT_ONCE, "cpu", request.param)


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_attention_and_gradients_equal_the_paper(scale):
    parts = draw(5, 2, 6), draw(5, 4, 6, seed=1, scale=scale), draw(6, seed=2)
    weights, expected = additive_energies(*parts).softmax(-1), paper_energies(*parts).softmax(-1)
    torch.testing.assert_close(weights, expected)
    factors = torch.randn(5, 2, 4, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(
        torch.autograd.grad(weights, parts, factors),
        torch.autograd.grad(expected, parts, factors),
        rtol=1e-4,
        atol=1e-6,
    )


@pytest.mark.usefixtures("chunk")
def test_energies_differ_from_the_paper_by_a_constant():
    parts = draw(3, 2, 6), draw(3, 4, 6, seed=1), draw(6, seed=2)
    difference = additive_energies(*parts) - paper_energies(*parts)
    torch.testing.assert_close(difference, parts[2].sum().expand_as(difference))


def test_backward_keeps_only_queries_and_keys():
    kept = []

    def keep(tensor):
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        additive_energies(draw(3, 5, 6), draw(3, 4, 6), draw(6))
    assert max(kept) == 3 * 5 * 6  # not 3 * 5 * 4 * 6


def test_energies_of_no_queries_and_of_no_images():
    assert additive_energies(draw(3, 0, 6), draw(3, 4, 6), draw(6)).shape == (3, 0, 4)
    assert additive_energies(draw(0, 2, 6), draw(0, 4, 6), draw(6)).shape == (0, 2, 4)
