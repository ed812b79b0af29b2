"""What training minimises, as plain functions; no model, no loop.

Shapes: N real words, V vocabulary, M captions, P positions of the grid.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor


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
    scores: Tensor, targets: Tensor, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Summed cross-entropy of raw scores (N, V) against word indices (N,), in nats.

    Returns the smoothed sum, which trains, and the plain one, which compares across settings.
    """
    log_probs = torch.log_softmax(scores.float(), dim=-1)
    plain = F.nll_loss(log_probs, targets, reduction="sum")
    if label_smoothing == 0.0:
        return plain, plain
    uniform = -log_probs.mean(-1).sum()
    return (1 - label_smoothing) * plain + label_smoothing * uniform, plain


def attention_coverage(received: Tensor) -> Tensor:
    """Doubly stochastic regularisation: the sum over positions and captions of (1 - received)^2.

    received (M, P): how much attention each position got over each of M whole captions.
    Xu et al. 2015, section 4.2.1, equation 14: summed over positions, not averaged.
    """
    return (1 - received).square().sum()
