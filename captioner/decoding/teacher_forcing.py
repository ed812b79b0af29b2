"""Log-probabilities of given captions, with the decoding filters applied.

Shapes: B images, K captions per image, R = B*K rows, P pairs, T steps, V vocabulary.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ..text.collate import pad_captions
from ..text.vocabulary import PAD
from .filters import apply_filters, build_filters
from .hypothesis import Generator
from .options import DecodingOptions

ROWS = 256  # maximum number of captions that `score_pairs` scores at once
PIECE = 32  # maximum number of captions in a piece; those of larger ones would vary more in length


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


def score_pairs(
    model: Generator,
    features: Tensor,
    captions: Sequence[list[int]],
    pairs: np.ndarray,
    options: DecodingOptions,
) -> np.ndarray:
    """Compute log p(caption | image), in nats, for pairs of images and captions.

    features (B, D, h, w). captions: tokens of each caption, from start to end token. pairs (P, 2):
    the indices of an image and a caption. Returns (P,), float64: the sums over the tokens of
    `score_captions`, including the end token. Captions of similar length are scored together,
    because all captions of a batch take as many steps as the longest.
    """
    scores = np.empty(len(pairs))
    for batch in _batches(pairs, np.array([len(caption) for caption in captions])):
        tokens = pad_captions([[captions[c] for c in pairs[piece, 1]] for piece in batch])
        images = torch.tensor([int(pairs[piece[0], 0]) for piece in batch], device=features.device)
        found = score_captions(model, features[images], tokens.to(features.device), options)
        for piece, values in zip(batch, found.double().sum(-1).cpu().numpy(), strict=True):
            scores[piece] = values[: len(piece)]
    return scores


def _batches(pairs: np.ndarray, lengths: np.ndarray) -> Iterator[list[np.ndarray]]:
    """Yield batches of pieces that, padded to the size of the largest, have at most ROWS pairs.

    A piece is an array of indices of at most PIECE pairs that share an image. lengths: number of
    tokens of each caption, by which the pairs of an image and the pieces of equal size are sorted.
    """
    order = np.lexsort((lengths[pairs[:, 1]], pairs[:, 0]))
    ends = np.flatnonzero(np.diff(pairs[order, 0])) + 1
    pieces = [
        group[first : first + PIECE]
        for group in np.split(order, ends)
        for first in range(0, len(group), PIECE)
    ]
    pieces.sort(key=lambda piece: (len(piece), int(lengths[pairs[piece[-1], 1]])))
    batch: list[np.ndarray] = []
    for piece in pieces:
        if batch and (len(batch) + 1) * len(piece) > ROWS:  # the last piece is the longest
            yield batch
            batch = []
        batch.append(piece)
    if batch:
        yield batch
