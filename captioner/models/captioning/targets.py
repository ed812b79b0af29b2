"""The training targets of a batch: plain, weighted, or mixed with soft targets.

Shapes: B images, C captions per image, T words, N real words (no padding) of a batch, L tokens
with teacher probabilities.
"""

import torch
from torch import Tensor

from ...data.batches import Batch
from ..losses import Targets


def build_targets(batch: Batch, order: Tensor, label_smoothing: float) -> Targets:
    """Build the targets of the real words of a batch.

    order (N,): index of each real word in the flattened tokens[..., 1:] (B * C * T), in the order
    in which the model predicts them.

    For a batch with distillation, the captions' own words are smoothed and mixed with the teacher's
    probabilities, which are not smoothed. For a batch with rollouts, nothing is smoothed: with a
    negative weight, smoothing would lower the scores of the whole vocabulary without bound.
    """

    def pick(values: Tensor) -> Tensor:  # (B, C, T, ...) -> (N, ...)
        return values.flatten(0, 2)[order]

    words = batch.tokens[..., 1:]
    tokens = pick(words)
    if teacher := batch.distillation:
        own_share = 1 - teacher.weight
        soft_probs = teacher.weight * pick(teacher.probs)
        own_probs = soft_probs.new_full((len(tokens), 1), own_share * (1 - label_smoothing))
        return Targets(
            torch.cat([tokens[:, None], pick(teacher.tokens)], dim=1),
            torch.cat([own_probs, soft_probs], dim=1),
            own_share * label_smoothing,
        )
    if batch.rollouts is None:
        return Targets.one_word(tokens, label_smoothing)
    return Targets.one_word(
        tokens,
        weights=pick(batch.rollouts.weights[..., None].expand_as(words)),
        references=~pick(batch.rollouts.sampled[..., None].expand_as(words)),
    )
