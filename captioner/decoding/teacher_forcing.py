"""Log-probabilities of given captions, word by word, by the steps and filters that decode.

Shapes: B images, K captions per image, R = B*K rows, T steps, V vocabulary.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from ..text.vocabulary import PAD
from .filters import apply_filters, filters
from .hypothesis import Generator
from .options import DecodingOptions


def score_captions(
    model: Generator, features: Tensor, tokens: Tensor, options: DecodingOptions
) -> Tensor:
    """Log-probabilities of given words, by the very steps and filters that decode.

    features (B, D, h, w); tokens (B, K, 1 + T) from the start token on, padded with 0.
    Returns (B, K, T), 0 at padding and -inf for words that the options forbid.
    """
    with torch.inference_mode():
        log_probs = [
            vocabulary.gather(1, word[:, None])[:, 0].masked_fill(word == PAD, 0)
            for word, vocabulary in teacher_forced_log_probs(model, features, tokens, options)
        ]
        return torch.stack(log_probs, 1).unflatten(0, tokens.shape[:2])


def teacher_forced_log_probs(
    model: Generator, features: Tensor, tokens: Tensor, options: DecodingOptions
) -> Iterator[tuple[Tensor, Tensor]]:
    """What a model that is told what to write, tokens (B, K, 1 + T), makes of it: by step the word
    (R,) and the log-probabilities (R, V) that it was one of."""
    memory, state = model.start(features, tokens[0, :, 1:].numel())
    state = {k: v.repeat_interleave(tokens.shape[1], 0) for k, v in state.items()}
    rows = tokens.flatten(0, 1)
    chosen = filters(options)
    for t in range(rows.shape[1] - 1):
        scores, state, _ = model.step(rows[:, t], state, memory)
        scores = apply_filters(chosen, scores, rows[:, 1 : t + 1])
        yield rows[:, t + 1], scores.log_softmax(-1)
