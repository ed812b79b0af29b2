"""Energies of additive attention, computed for a few images at a time.

The sums of queries and keys, K*P*A values per image, are by far the largest tensor of a step. They
are never materialised for the whole batch or kept for the backward pass, which recomputes them.
Shapes: B images, K queries per image, P positions, A attention size.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Number of sums computed at once: few enough for a CPU's cache, enough to keep a GPU busy.
NUMBERS_AT_ONCE = {"cpu": 2**18, "cuda": 2**26}


def decay(values: Tensor) -> Tensor:
    """Return exp(-values), with values clamped so that products of two results are finite."""
    return values.clamp(-40, 40).neg_().exp_()


def additive_energies(
    queries: Tensor, decayed_keys: Tensor, weight: Tensor, keys: Tensor | None = None
) -> Tensor:
    """Compute weight . tanh((key + query) / 2) plus a constant, which the softmax cancels.

    queries (B, K, A), decayed_keys (B, P, A): `decay(keys)`, weight (A,), keys (B, P, A): None
    unless their gradient is needed; all float32 -> (B, K, P). See Xu et al. 2015, section 3.1.2,
    after Bahdanau et al. 2015. The argument is halved because tanh(x / 2) = 2 sigmoid(x) - 1, and
    sigmoid(key + query) = 1 / (1 + exp(-key) exp(-query)) needs no exponential per sum.
    """
    if torch.compiler.is_compiling():
        # torch.compile fuses these operations into one loop that never stores the K*P*A sums.
        sigmoids = (1 + decayed_keys[:, None] * decay(queries)[:, :, None]).reciprocal()
        energies: Tensor = sigmoids.mul(2 * weight).sum(-1)
        return energies
    keys = decayed_keys if keys is None else keys
    result: Tensor = _Energies.apply(queries, keys, 2 * weight, decayed_keys)
    return result


class _Energies(torch.autograd.Function):
    """weight . sigmoid(key + query), in blocks of images."""

    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, _keys: Tensor, weight: Tensor, decayed_keys: Tensor
    ) -> Tensor:
        decayed_queries = decay(queries)
        ctx.save_for_backward(decayed_queries, decayed_keys, weight)
        energies = queries.new_empty(*queries.shape[:2], decayed_keys.shape[1])
        for block, sigmoids in _sigmoid_blocks(decayed_queries, decayed_keys):
            torch.mv(sigmoids.flatten(0, 2), weight, out=energies[block].view(-1))
        return energies

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        queries, keys, weight = ctx.saved_tensors
        grad_queries, grad_keys = torch.empty_like(queries)[:, :, None], torch.empty_like(keys)
        grad_weight = torch.zeros_like(weight)
        for block, sigmoids in _sigmoid_blocks(queries, keys):
            grad = grad_output[block]  # (b, K, P)
            grad_weight += grad.flatten() @ sigmoids.flatten(0, 2)
            # Overwrite the sigmoid s, which is no longer needed, with its derivative s - s^2.
            derivative = torch.addcmul(sigmoids, sigmoids, sigmoids, value=-1, out=sigmoids)
            torch.matmul(grad[:, :, None], derivative, out=grad_queries[block])
            torch.sum(derivative.mul_(grad[..., None]), 1, out=grad_keys[block])
        return grad_queries[:, :, 0].mul_(weight), grad_keys.mul_(weight), grad_weight, None


def _sigmoid_blocks(queries: Tensor, keys: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield blocks of images and their sigmoid(key + query), (b, K, P, A).

    queries, keys: decayed. All blocks share one buffer: the caller must finish with a block before
    requesting the next.
    """
    images, count, size = queries.shape
    per_image = count * keys.shape[1] * size
    most = max(1, min(images, NUMBERS_AT_ONCE[queries.device.type] // max(1, per_image)))
    buffer, one = queries.new_empty(most, count, keys.shape[1], size), queries.new_ones(())
    for first in range(0, images, most):
        block = slice(first, min(first + most, images))
        sigmoids = buffer[: block.stop - first]
        torch.addcmul(one, keys[block, None], queries[block, :, None], out=sigmoids)
        yield block, sigmoids.reciprocal_()
