"""The training targets of a batch: plain, weighted, or mixed with a teacher's.

Shapes: B images, C captions per image, T words, N real words (no padding) of a batch, L tokens
with teacher probabilities.
"""

import torch
from torch import Tensor

from ...data.batches import Batch
from ..losses import Targets


def build_targets(batch: Batch, order: Tensor, label_smoothing: float) -> Targets:
    """The targets of the real words of a batch.

    order (N,): index of each real word in the flattened tokens[..., 1:] (B * C * T), in the order
    in which the model predicts them.

    For a batch with soft targets, the captions' own words are smoothed and mixed with the teacher's
    probabilities, which are not smoothed. For a batch with weights, nothing is smoothed: with a
    negative weight, smoothing would lower the scores of the whole vocabulary without bound.
    """

    def pick(values: Tensor) -> Tensor:  # (B, C, T, ...) -> (N, ...)
        return values.flatten(0, 2)[order]

    words = batch.tokens[..., 1:]
    tokens = pick(words)
    if batch.teacher_tokens is not None and batch.teacher_probs is not None:
        own_share = 1 - batch.distill_weight
        soft_probs = batch.distill_weight * pick(batch.teacher_probs)
        own_probs = soft_probs.new_full((len(tokens), 1), own_share * (1 - label_smoothing))
        return Targets(
            torch.cat([tokens[:, None], pick(batch.teacher_tokens)], dim=1),
            torch.cat([own_probs, soft_probs], dim=1),
            own_share * label_smoothing,
        )
    if batch.weights is None or batch.sampled is None:
        return Targets.one_word(tokens, label_smoothing)
    return Targets.one_word(
        tokens,
        weights=pick(batch.weights[..., None].expand_as(words)),
        references=~pick(batch.sampled[..., None].expand_as(words)),
    )
