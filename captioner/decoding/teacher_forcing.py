"""Log-probabilities of given captions, with the decoding filters applied.

Shapes: B images, K captions per image, R = B*K rows, T steps, V vocabulary.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from ..text.vocabulary import PAD
from .filters import apply_filters, build_filters
from .hypothesis import Generator
from .options import DecodingOptions


def score_captions(
    model: Generator, features: Tensor, tokens: Tensor, options: DecodingOptions
) -> Tensor:
    """Compute the log-probability of every token of given captions, in nats.

    features (B, D, h, w). tokens (B, K, 1 + T): captions that begin with the start token, padded
    with 0. Returns (B, K, T): 0 for padding, -inf for words that the options forbid.
    """
    with torch.inference_mode():
        steps = [
            log_probs.gather(1, targets[:, None])[:, 0].masked_fill(targets == PAD, 0)
            for targets, log_probs in teacher_forced_log_probs(model, features, tokens, options)
        ]
        return torch.unflatten(torch.stack(steps, 1), 0, tokens.shape[:2])


def teacher_forced_log_probs(
    model: Generator, features: Tensor, tokens: Tensor, options: DecodingOptions
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield, at each step, the given next tokens (R,) and the log-probabilities (R, V).

    features (B, D, h, w) and tokens (B, K, 1 + T) are as in `score_captions`. The model's inputs
    are the given tokens, regardless of its predictions.
    """
    memory, state = model.start(features, tokens[0, :, 1:].numel())
    state = {name: rows.repeat_interleave(tokens.shape[1], 0) for name, rows in state.items()}
    captions = tokens.flatten(0, 1)
    filters = build_filters(options)
    for t in range(captions.shape[1] - 1):
        scores, state, _ = model.step(captions[:, t], state, memory)
        scores = apply_filters(filters, scores, captions[:, 1 : t + 1])
        yield captions[:, t + 1], scores.log_softmax(-1)
