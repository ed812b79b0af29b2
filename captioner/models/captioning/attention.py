"""The energies of additive attention, a few images at a time; nothing here knows models.

Between queries and energies lie K*P*A numbers for every image, by far the most of a step. They
are never all there at once, and never kept for the backward pass, which works them out again.
Shapes: B images, K queries per image, P positions, A attention.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = {"cpu": 2**19, "cuda": 2**26}  # numbers at once: what a cache holds; what fills a GPU


def additive_energies(queries: Tensor, keys: Tensor, weight: Tensor) -> Tensor:
    """weight . tanh((key + query) / 2) up to a constant, which no softmax over positions sees.

    queries (B, K, A), keys (B, P, A), weight (A,), all float32 -> (B, K, P). Xu et al. 2015,
    section 3.1.2, after Bahdanau et al. 2015; halved because tanh(x / 2) = 2 sigmoid(x) - 1, and
    a sigmoid takes a fifth of the time of a tanh on a CPU.
    """
    if torch.compiler.is_compiling():  # a compiler fuses it all into one loop
        return torch.sigmoid(keys[:, None] + queries[:, :, None]).mul(2 * weight).sum(-1)
    return _Energies.apply(queries, keys, 2 * weight)


class _Energies(torch.autograd.Function):
    """weight . sigmoid(key + query)."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(queries, keys, weight)
        energies = queries.new_empty(*queries.shape[:2], 1, keys.shape[1])
        for part, similar in _similarities(queries, keys):
            torch.matmul(weight[None], similar.mT, out=energies[part])
        return energies[:, :, 0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        queries, keys, weight = ctx.saved_tensors
        of_queries, of_keys = torch.empty_like(queries), torch.empty_like(keys)
        of_weight = torch.zeros_like(weight)
        for part, similar in _similarities(queries, keys):
            given = gradient[part]  # (b, K, P)
            of_weight += given.flatten() @ similar.flatten(0, 2)
            slope = torch.addcmul(similar, similar, similar, value=-1, out=similar)
            of_queries[part] = (given[:, :, None] @ slope)[:, :, 0] * weight
            of_keys[part] = slope.mul_(given[..., None]).sum(1) * weight
        return of_queries, of_keys, of_weight


def _similarities(queries: Tensor, keys: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Images from where to where, and their sigmoid(key + query), (b, K, P, A)."""
    images, count, size = queries.shape
    each = count * keys.shape[1] * size
    most = max(1, min(images, CHUNK[queries.device.type] // max(1, each)))
    buffer = queries.new_empty(most, count, keys.shape[1], size)
    for first in range(0, images, most):
        part = slice(first, min(first + most, images))
        similar = buffer[: part.stop - first]
        torch.add(keys[part, None], queries[part, :, None], out=similar)
        yield part, similar.sigmoid_()
