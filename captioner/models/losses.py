"""What training minimises, as plain functions; no model, no loop.

Shapes: N real words, L likely ones for each, V vocabulary, E size of a word, M captions,
P positions of the grid.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

ROWS = {"cpu": 512, "cuda": 8192}  # words scored at once: enough for a product to be fast


@dataclass(frozen=True)
class Loss:
    """A loss and what it was averaged over, so that batches can be weighed by their words.

    value: scalar to minimise, the mean per word (gradients flow).
    count: number of words, the end token counted.
    parts: named scalars that make up `value`, each per word, detached.
    """

    value: Tensor
    count: int
    parts: dict[str, Tensor] = field(default_factory=dict)


def caption_cross_entropy(
    outputs: Tensor,
    weight: Tensor,
    bias: Tensor,
    targets: Tensor,
    label_smoothing: float = 0.0,
    word_weights: Tensor | None = None,
    shares: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Summed cross-entropy of outputs @ weight.T + bias against word indices, in nats.

    outputs (N, E), weight (V, E), bias (V,), targets (N,). Returns the smoothed sum, which trains,
    and each word's plain one (N,), without a gradient, which compares across settings. The scores
    (N, V) are never all there at once: each part's gradient is worked out beside its loss.
    word_weights (N,): how much each word counts in the sum, below 0 too; None for all 1.
    shares (N, L): the target where it is more than one word, of which targets (N, L) then has the
    true one first; with label_smoothing each row sums to 1.
    """
    if shares is None:
        targets = targets[:, None]
        shares = torch.full_like(targets, 1 - label_smoothing, dtype=torch.float32)
    return _CrossEntropy.apply(
        outputs, weight, bias, targets, shares, label_smoothing, word_weights
    )


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        outputs: Tensor,
        weight: Tensor,
        bias: Tensor,
        targets: Tensor,
        shares: Tensor,
        label_smoothing: float,
        word_weights: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        plain, summed = [], []
        gradients = [torch.zeros_like(x, dtype=torch.float32) for x in (outputs, weight, bias)]
        learns, rows = any(ctx.needs_input_grad), ROWS[outputs.device.type]
        parts = (x.split(rows) for x in (outputs, targets, shares, gradients[0]))
        for number, (part, words, share, of_outputs) in enumerate(zip(*parts, strict=True)):
            log_probs = F.linear(part, weight, bias).float().log_softmax(-1)
            hit = log_probs.gather(1, words)
            plain.append(-hit[:, 0])
            summed.append(-(share * hit).sum(1) - label_smoothing * log_probs.mean(-1))
            if learns:
                slope = log_probs.exp_().sub_(label_smoothing / len(weight))
                slope.scatter_add_(1, words, -share)
                if word_weights is not None:
                    slope *= word_weights.split(rows)[number][:, None]
                of_outputs.copy_(slope @ weight)
                gradients[1] += slope.mT @ part
                gradients[2] += slope.sum(0)
        ctx.save_for_backward(*gradients)
        each = torch.cat(plain)
        ctx.mark_non_differentiable(each)
        smoothed = torch.cat(summed)
        return (smoothed if word_weights is None else smoothed * word_weights).sum(), each

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        return *(given * gradient for gradient in ctx.saved_tensors), None, None, None, None


def attention_coverage(received: Tensor, weights: Tensor | None = None) -> Tensor:
    """Doubly stochastic regularisation: the sum over positions and captions of (1 - received)^2.

    received (M, P): how much attention each position got over each of M whole captions.
    weights (M,): how much each caption counts; None for all 1.
    Xu et al. 2015, section 4.2.1, equation 14: summed over positions, not averaged.
    """
    missed = (1 - received).square()
    return (missed if weights is None else missed * weights[:, None]).sum()
