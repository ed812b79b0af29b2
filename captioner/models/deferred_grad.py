"""Matrix products in a loop, with one weight gradient after the loop.

Autograd accumulates the gradient of a matrix step by step: every step costs a product too thin to
be fast, and an addition as large as the matrix. Here the backward pass of each step only stores its
two factors, and the last backward node multiplies the concatenated factors once.
"""

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Factors = dict[int, tuple[Tensor, Tensor]]  # inputs and output gradients by number of the call
Product = Callable[[Tensor], Tensor]


def deferred_matmul(factor: nn.Linear | Tensor) -> Product:
    """A function for many calls in one forward pass: x -> layer(x), or x -> x @ matrix.

    factor: a layer without bias, or a matrix (I, O), or matrices (B, I, O), which multiply
    x (B, n, I) each for its own image. Values equal those of the plain product; gradients differ
    from its gradients in the order of summation only. Under autocast the matrix is converted once
    instead of once per call.
    """
    matrix = factor.weight.t() if isinstance(factor, nn.Linear) else factor
    if not (torch.is_grad_enabled() and matrix.requires_grad):
        return factor if isinstance(factor, nn.Linear) else lambda x: x.to(factor.dtype) @ factor
    device = matrix.device.type
    if torch.is_autocast_enabled(device):
        matrix = matrix.to(torch.get_autocast_dtype(device))
    factors: Factors = {}
    shared, calls = _SharedMatrix.apply(matrix, factors), itertools.count()
    # The number of the call makes a second backward pass over the same graph overwrite the
    # factors of the first instead of adding to them.
    return lambda x: _Product.apply(x.to(matrix.dtype), shared, factors, next(calls))


class _SharedMatrix(torch.autograd.Function):
    """The identity on the matrix, as one node through which the gradient of all products passes.

    Autograd runs the backward of a node after those of all its consumers, so that every product
    has stored its factors when this backward multiplies them.
    """

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, factors: Factors) -> Tensor:
        ctx.factors, ctx.batched = factors, matrix.ndim == 3
        # The products return no gradient for the matrix; autograd must not make zeros of it.
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
            factors = [(rows.flatten(0, -2), grad.flatten(0, -2)) for rows, grad in factors]
        rows, grad_outputs = (torch.cat(parts, dim=-2) for parts in zip(*factors, strict=True))
        return rows.mT @ grad_outputs, None


class _Product(torch.autograd.Function):
    """rows (..., n, I) @ matrix (I, O) or (B, I, O), with a gradient for the rows only."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, matrix: Tensor, factors: Factors, call: int) -> Tensor:
        ctx.save_for_backward(rows, matrix)
        ctx.factors, ctx.call = factors, call
        return rows @ matrix

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None, None]:
        rows, matrix = ctx.saved_tensors
        ctx.factors[ctx.call] = rows, grad_output
        return grad_output @ matrix.mT, None, None, None
