"""A matrix that multiplies inside a time loop, whose gradient is computed once, after the loop.

Autograd would add up that gradient step by step, each time through a product too thin to be fast
and an addition as large as the matrix. Here each step of the backward pass only notes its two
factors, and the last one multiplies them all at once. Nothing here knows models.
"""

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Factors = dict[int, tuple[Tensor, Tensor]]  # by number of the call
Product = Callable[[Tensor], Tensor]


def deferred_matmul(factor: nn.Linear | Tensor) -> Product:
    """A function for many calls in one forward pass: x -> the layer of x, or x -> x @ matrix.

    The layer has no bias. A matrix (B, I, O) multiplies x (B, n, I), each its own. Values are those
    of the plain product, and so are gradients but for the order of the sum. Under autocast the
    matrix is converted once.
    """
    matrix = factor.weight.t() if isinstance(factor, nn.Linear) else factor
    if not (torch.is_grad_enabled() and matrix.requires_grad):
        return factor if isinstance(factor, nn.Linear) else lambda x: x.to(factor.dtype) @ factor
    kind = matrix.device.type
    if torch.is_autocast_enabled(kind):
        matrix = matrix.to(torch.get_autocast_dtype(kind))
    factors: Factors = {}
    shared, calls = _Shared.apply(matrix, factors), itertools.count()
    return lambda x: _Product.apply(x.to(matrix.dtype), shared, factors, next(calls))


class _Shared(torch.autograd.Function):
    """The matrix itself; its backward runs after those of all products with it."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, factors: Factors) -> Tensor:
        ctx.factors, ctx.batched = factors, matrix.ndim == 3
        ctx.set_materialize_grads(False)
        return matrix.view_as(matrix)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: None) -> tuple[Tensor | None, None]:
        if not ctx.factors:
            return None, None
        factors = list(ctx.factors.values())
        ctx.factors.clear()
        if not ctx.batched:
            factors = [(rows.flatten(0, -2), given.flatten(0, -2)) for rows, given in factors]
        rows, given = (torch.cat(parts, dim=-2) for parts in zip(*factors, strict=True))
        return rows.mT @ given, None


class _Product(torch.autograd.Function):
    """Rows (..., n, I) times the matrix (I, O) or (B, I, O)."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, matrix: Tensor, factors: Factors, call: int) -> Tensor:
        ctx.save_for_backward(rows, matrix)
        ctx.factors, ctx.call = factors, call
        return rows @ matrix

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        rows, matrix = ctx.saved_tensors
        ctx.factors[ctx.call] = rows, gradient
        return gradient @ matrix.mT, None, None, None
