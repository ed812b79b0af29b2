"""Deferred products in a loop against plain ones: equal values, equal gradients."""

import pytest
import torch
from torch import nn

from captioner.models.deferred_grad import deferred_matmul


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def loop(product, start, steps):
    """A small recurrence over fewer and fewer rows; returns the sum of its weighted states."""
    total = torch.zeros(())
    hidden = start
    for t in range(steps):
        hidden = torch.tanh(product(hidden[:, : 3 - t // 2]))
        total = total + (hidden * (t + 1)).sum()
    return total


@pytest.mark.parametrize("kind", ["layer", "matrix", "matrices"])
def test_values_and_gradients_equal_plain_products(kind):
    start = draw(2, 3, 4)
    if kind == "layer":
        factor = nn.Linear(4, 4, bias=False)
        plain, leaf = factor, factor.weight
    else:
        factor = draw(*([2] if kind == "matrices" else []), 4, 4, seed=1)
        plain, leaf = (lambda x: x @ factor), factor
    expected = loop(plain, start, 5)
    total = loop(deferred_matmul(factor), start, 5)
    assert total.item() == pytest.approx(expected.item())
    deferred = torch.autograd.grad(total * 2, (start, leaf))
    plain_grads = torch.autograd.grad(expected * 2, (start, leaf))
    torch.testing.assert_close(deferred, plain_grads)


def test_the_matrix_may_be_computed_from_other_tensors():
    source, rows = draw(4, 4), draw(2, 3, 4, seed=1)
    (deferred,) = torch.autograd.grad(loop(deferred_matmul(source.sin()), rows, 3), source)
    (plain_grads,) = torch.autograd.grad(loop(lambda x: x @ source.sin(), rows, 3), source)
    torch.testing.assert_close(deferred, plain_grads)


def test_the_gradient_is_added_once():
    layer, start = nn.Linear(4, 4, bias=False), draw(2, 3, 4)
    total = loop(deferred_matmul(layer), start, 5)
    additions = []
    layer.weight.register_hook(additions.append)
    total.backward()
    assert len(additions) == 1
    assert layer.weight.grad.shape == (4, 4)


def test_an_unused_matrix_gets_no_gradient():
    layer, start = nn.Linear(4, 4, bias=False), draw(2, 3, 4)
    deferred_matmul(layer)
    loop(deferred_matmul(nn.Linear(4, 4, bias=False)), start, 2).backward()
    assert layer.weight.grad is None


def test_without_gradients_nothing_is_deferred():
    layer, rows = nn.Linear(4, 4, bias=False), draw(2, 3, 4)
    with torch.no_grad():
        assert torch.equal(deferred_matmul(layer)(rows), layer(rows))
    product = deferred_matmul(layer.requires_grad_(False))(rows)
    assert torch.equal(product, layer(rows))
    assert "_Product" not in product.grad_fn.name()


def test_autocast_converts_the_matrix_once():
    layer, start = nn.Linear(4, 4, bias=False), draw(2, 3, 4)
    with torch.autocast("cpu", torch.bfloat16):
        product = deferred_matmul(layer)
        values = product(start)
        assert values.dtype == torch.bfloat16
        assert torch.equal(values, layer(start))
    values.float().sum().backward()
    assert layer.weight.grad.dtype == torch.float32


def test_backward_may_skip_the_matrix_and_run_again():
    layer, start = nn.Linear(4, 4, bias=False), draw(2, 3, 4)
    total, expected = loop(deferred_matmul(layer), start, 5), loop(layer, start, 5)
    (plain_grads,) = torch.autograd.grad(expected, layer.weight)
    torch.autograd.grad(total, start, retain_graph=True)  # does not reach the weight
    for _ in range(2):
        (deferred,) = torch.autograd.grad(total, layer.weight, retain_graph=True)
        torch.testing.assert_close(deferred, plain_grads)
