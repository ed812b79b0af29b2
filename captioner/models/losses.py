"""The training losses: cross-entropy of captions and attention coverage.

Shapes: N words, L tokens with probability in a target, V vocabulary, E embedding, M captions,
P positions of the grid.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# Number of words whose scores are computed at once: enough for a fast matrix product.
ROWS_AT_ONCE = {"cpu": 512, "cuda": 8192}


@dataclass(frozen=True)
class Loss:
    """A loss and the number of words it was averaged over, by which batches are weighted.

    value: scalar to minimise, the mean per word; gradients flow through it.
    count: number of words, end tokens included.
    parts: named scalars per word for the log, detached.
    statistics: sums over the batch, from which the model keeps a running mean; the training loop
        adds those of all processes and passes them to the model's `update_statistics`.
    """

    value: Tensor
    count: int
    parts: dict[str, Tensor] = field(default_factory=dict)
    statistics: Tensor | None = None


@dataclass(frozen=True)
class Targets:
    """The target distributions of N words, each with most of its probability on L of V words.

    tokens (N, L): the caption's own word first. probs (N, L): the probabilities of these tokens,
    which add up if a token occurs twice. smoothing: the probability spread evenly over the
    vocabulary; with probs it sums to 1. weights (N,): factor of each word's loss, which may be
    negative; None for all 1. references (N,): True for the words of reference captions, False for
    those of sampled ones; None for references only.
    """

    tokens: Tensor
    probs: Tensor
    smoothing: float = 0.0
    weights: Tensor | None = None
    references: Tensor | None = None

    @classmethod
    def one_word(
        cls,
        tokens: Tensor,
        smoothing: float = 0.0,
        weights: Tensor | None = None,
        references: Tensor | None = None,
    ) -> "Targets":
        """Targets of one word each, tokens (N,), with label smoothing."""
        tokens = tokens[:, None]
        probs = torch.full_like(tokens, 1 - smoothing, dtype=torch.float32)
        return cls(tokens, probs, smoothing, weights, references)

    def of_references(self, values: Tensor) -> Tensor:
        """The values (N,) of the words of reference captions."""
        return values if self.references is None else values[self.references]


def caption_cross_entropy(
    outputs: Tensor, weight: Tensor, bias: Tensor, targets: Targets
) -> tuple[Tensor, Tensor]:
    """Summed cross-entropy of the scores outputs @ weight.T + bias, in nats.

    outputs (N, E), weight (V, E), bias (V,). Returns the sum to minimise, smoothed and weighted as
    the targets say, and for every word (N,) the negative log-probability of the caption's own
    word, which has no gradient and is comparable across settings.

    The scores (N, V) never exist at once: they are computed in blocks of rows, and the gradient of
    a block is computed in the forward pass, while its log-probabilities exist.
    """
    result: tuple[Tensor, Tensor] = _CrossEntropy.apply(
        outputs,
        weight,
        bias,
        targets.tokens,
        targets.probs,
        targets.smoothing,
        targets.weights,
    )
    return result


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        outputs: Tensor,
        weight: Tensor,
        bias: Tensor,
        targets: Tensor,
        target_probs: Tensor,
        smoothing: float,
        word_weights: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        # The gradients are accumulated in float32 even under autocast.
        grads = [torch.zeros_like(x, dtype=torch.float32) for x in (outputs, weight, bias)]
        grad_outputs, grad_weight, grad_bias = grads
        needs_grad = any(ctx.needs_input_grad)
        negative_log_probs, losses = [], []
        for first in range(0, max(1, len(outputs)), ROWS_AT_ONCE[outputs.device.type]):
            block = slice(first, first + ROWS_AT_ONCE[outputs.device.type])
            tokens, probs = targets[block], target_probs[block]
            log_probs = F.linear(outputs[block], weight, bias).float().log_softmax(-1)
            target_log_probs = log_probs.gather(1, tokens)
            negative_log_probs.append(-target_log_probs[:, 0])
            losses.append(-(probs * target_log_probs).sum(1) - smoothing * log_probs.mean(-1))
            if needs_grad:
                grad_logits = _subtract_targets_(log_probs.exp_(), tokens, probs, smoothing)
                if word_weights is not None:
                    grad_logits *= word_weights[block][:, None]
                grad_outputs[block] = grad_logits @ weight
                grad_weight += grad_logits.mT @ outputs[block]
                grad_bias += grad_logits.sum(0)
        ctx.save_for_backward(*grads)
        word_losses, own_losses = torch.cat(losses), torch.cat(negative_log_probs)
        ctx.mark_non_differentiable(own_losses)
        if word_weights is not None:
            word_losses = word_losses * word_weights
        return word_losses.sum(), own_losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        return *(grad_output * grad for grad in ctx.saved_tensors), None, None, None, None


def _subtract_targets_(
    probs: Tensor, tokens: Tensor, target_probs: Tensor, smoothing: float
) -> Tensor:
    """Softmax minus target distribution, (n, V): the gradient of the loss by the scores.

    Works in place: a block's probabilities are the largest tensor of the loss.
    """
    return probs.sub_(smoothing / probs.shape[1]).scatter_add_(1, tokens, -target_probs)


def attention_coverage(received: Tensor, weights: Tensor | None = None) -> Tensor:
    """Doubly stochastic regularisation: the sum over positions and captions of (1 - received)^2.

    received (M, P): attention that each position received, summed over the words of each caption.
    weights (M,): factor of each caption; None for all 1. Xu et al. 2015, section 4.2.1, equation
    14: summed over positions, not averaged.
    """
    missing = (1 - received).square()
    return (missing if weights is None else missing * weights[:, None]).sum()
