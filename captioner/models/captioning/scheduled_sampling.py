"""Scheduled sampling: training captions in which some words are the model's own.

Bengio et al. 2015. Nothing here knows models or trains. Shapes: B images, C captions per image,
T words, D channels, h, w grid, V vocabulary, R = B*C rows.
"""

import torch
from torch import Tensor

from ...data.batches import Batch
from ...decoding.hypothesis import Generator
from ...text.vocabulary import END, PAD, START


def previous_words(model: Generator, features: Tensor, batch: Batch) -> Tensor:
    """What each step is told that came before its word, (B, C, T): the truth, or the model's own.

    features (B, D, h, w). Each word but the start is the model's own with probability
    `batch.own_words`: drawn from its distribution over words after those before it, which may be
    its own, too. Nothing is learned from the choice.
    """
    true = batch.tokens[..., :-1]
    return _mixed(model, features, true, batch.sampling_prob) if batch.sampling_prob else true


@torch.no_grad()
def _mixed(model: Generator, features: Tensor, true: Tensor, share: float) -> Tensor:
    rows = true.flatten(0, 1)
    own = torch.rand(rows.shape, device=rows.device) < share
    told = [rows[:, 0]]
    memory, state = model.start(features, true[0].numel())
    state = {key: value.repeat_interleave(true.shape[1], 0) for key, value in state.items()}
    for t in range(1, rows.shape[1]):
        scores, state, _ = model.step(told[-1], state, memory)
        scores[:, [PAD, START, END]] = -torch.inf  # what the text goes on after is a word
        drawn = scores.float().softmax(-1).multinomial(1)[:, 0]
        told.append(torch.where(own[:, t], drawn, rows[:, t]))
    return torch.stack(told, dim=1).view_as(true)
