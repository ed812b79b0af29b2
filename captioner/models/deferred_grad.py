"""Matrix products in a loop, with one weight gradient after the loop.

Autograd accumulates the gradient of a matrix step by step: every step requires a product of narrow
matrices, which is slow, and an addition of the full size. Here, each step's backward pass only
stores the two factors of that product; the last backward node multiplies the concatenated factors.
"""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..products import in_blocks, layer_product, on_padded_rows, pad_rows

Factors = dict[int, tuple[Tensor, Tensor]]  # inputs and output gradients by call number
Product = Callable[[Tensor], Tensor]


def deferred_matmul(factor: nn.Linear | Tensor) -> Product:
    """Return a function x -> layer(x) or x -> x @ matrix for many calls in one forward pass.

    The gradient of the matrix is computed once, after the backward passes of all calls. factor:
    layer without bias, matrix (I, O), or matrices (B, I, O), one per image, which multiply x
    (B, n, I). Compared with the plain product, the values are equal, and the gradients differ
    only in the order of summation. Under autocast, the matrix is converted once instead of once per
    call.
    """
    matrix = factor.weight.t() if isinstance(factor, nn.Linear) else factor
    if not (torch.is_grad_enabled() and matrix.requires_grad):
        if isinstance(factor, nn.Linear):
            return partial(layer_product, layer=factor)
        if factor.ndim == 3:
            return lambda x: in_blocks(torch.matmul, x.to(factor.dtype), factor)
        return lambda x: x.to(factor.dtype) @ factor
    device = matrix.device.type
    if torch.is_autocast_enabled(device):
        matrix = matrix.to(torch.get_autocast_dtype(device))
    factors: Factors = {}
    shared, calls = _SharedMatrix.apply(matrix, factors), itertools.count()
    # Because of the call numbers, a second backward pass over the same graph overwrites the
    # factors of the first instead of adding to them.
    return lambda x: _Product.apply(x.to(matrix.dtype), shared, factors, next(calls))


class _SharedMatrix(torch.autograd.Function):
    """Identity on the matrix: the single node that computes the gradient of all products.

    Autograd runs a node's backward after the backward of all its consumers, so every product has
    stored its factors by the time this backward multiplies them.
    """

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, factors: Factors) -> Tensor:
        ctx.factors, ctx.batched = factors, matrix.ndim == 3
        # The products return no gradient for the matrix; autograd must not replace it with zeros.
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
        rows, grad_outputs = (
            pad_rows(torch.cat(parts, dim=-2)) for parts in zip(*factors, strict=True)
        )
        return rows.mT @ grad_outputs, None


class _Product(torch.autograd.Function):
    """rows (..., n, I) @ matrix (I, O) or (B, I, O), with a gradient only for the rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, matrix: Tensor, factors: Factors, call: int) -> Tensor:
        ctx.save_for_backward(rows, matrix)
        ctx.factors, ctx.call = factors, call
        return _multiply(rows, matrix)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None, None]:
        rows, matrix = ctx.saved_tensors
        ctx.factors[ctx.call] = rows, grad_output
        return _multiply(grad_output, matrix.mT), None, None, None


def _multiply(rows: Tensor, matrix: Tensor) -> Tensor:
    return rows @ matrix if matrix.ndim == 3 else on_padded_rows(lambda x: x @ matrix, rows)
