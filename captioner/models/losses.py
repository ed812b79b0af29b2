"""The result of a loss function, cross-entropy of captions, and attention coverage.

Shapes: N words, L tokens per target distribution, V vocabulary, E embedding size, M captions,
P grid positions.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..products import pad_rows

# Number of words whose scores are computed at once: enough for a fast matrix product.
ROWS_AT_ONCE = {"cpu": 512, "cuda": 8192}
LAST_BLOCK_STEP = 64  # between the row counts to which the last block is padded


@dataclass(frozen=True)
class Loss:
    """The loss of a batch, and the batch's weight in means over several batches.

    value: scalar to minimise, a mean over the batch; gradients flow through it.
    count: the weight: in captioning, the number of words of the reference captions, including end
        tokens; in other tasks, the number of texts or images.
    parts: detached scalars to log, by name.
    statistics: sums over the batch for a running mean that the model keeps; the training loop sums
        them over all processes and passes the result to the model's `update_statistics`.
    """

    value: Tensor
    count: int
    parts: dict[str, Tensor] = field(default_factory=dict)
    statistics: Tensor | None = None


@dataclass(frozen=True)
class Targets:
    """The target distributions of N words, each with most of its probability on L of V words.

    tokens (N, L): the L tokens, the caption's own word first. probs (N, L): probabilities of these
    tokens; if a token occurs twice, its probabilities are added. smoothing: probability spread
    evenly over the vocabulary; it sums to 1 with the probs of each word. weights (N,): factor of
    each word's loss, possibly negative; None if all are 1. references (N,): True for words of
    reference captions, False for words of sampled captions; None if all are references.
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
        """Create targets of one token each, from tokens (N,), with label smoothing."""
        tokens = tokens[:, None]
        probs = torch.full_like(tokens, 1 - smoothing, dtype=torch.float32)
        return cls(tokens, probs, smoothing, weights, references)

    def of_references(self, values: Tensor) -> Tensor:
        """Return the values of reference captions; values (N,) has one value per word."""
        return values if self.references is None else values[self.references]


def caption_cross_entropy(
    outputs: Tensor, weight: Tensor, bias: Tensor, targets: Targets
) -> tuple[Tensor, Tensor]:
    """Compute the summed cross-entropy, in nats, of the scores outputs @ weight.T + bias.

    outputs (N, E), weight (V, E), bias (V,). Returns the sum to minimise, smoothed and weighted as
    specified by the targets, and the negative log-probability (N,) of the caption's own word at
    each position, which has no gradient and is comparable across settings.

    The scores (N, V) are never materialised as a whole: they are computed in blocks of rows, and
    the gradient of a block is computed in the forward pass, while its log-probabilities are in
    memory.
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
            rows = pad_rows(outputs[block], LAST_BLOCK_STEP)
            logits = F.linear(rows, weight, bias)[: len(tokens)]
            log_probs = logits.float().log_softmax(-1)
            target_log_probs = log_probs.gather(1, tokens)
            negative_log_probs.append(-target_log_probs[:, 0])
            losses.append(-(probs * target_log_probs).sum(1) - smoothing * log_probs.mean(-1))
            if needs_grad:
                grad_logits = _subtract_targets_(log_probs.exp_(), tokens, probs, smoothing)
                if word_weights is not None:
                    grad_logits *= word_weights[block][:, None]
                factor = pad_rows(grad_logits.to(logits.dtype), LAST_BLOCK_STEP)
                grad_outputs[block] = (factor @ weight)[: len(tokens)]
                grad_weight += factor.mT @ rows
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
    """Subtract the targets from the softmax (n, V), which yields the gradient of the scores.

    Works in place, because a block's probabilities are the loss's largest tensor.
    """
    return probs.sub_(smoothing / probs.shape[1]).scatter_add_(1, tokens, -target_probs)


def attention_coverage(received: Tensor, weights: Tensor | None = None) -> Tensor:
    """Sum (1 - received)^2 over positions and captions: doubly stochastic regularisation.

    received (M, P): attention received by each position, summed over the words of each caption.
    weights (M,): factor of each caption; None if all are 1. See Xu et al. 2015, section 4.2.1,
    equation 14, which also sums over positions instead of averaging.
    """
    missing = (1 - received).square()
    return (missing if weights is None else missing * weights[:, None]).sum()
