"""Scheduled sampling: in training, some input words are sampled from the model.

Bengio et al. 2015. Shapes: B images, C captions per image, T words, D channels, (h, w) grid,
V vocabulary, R = B*C rows.
"""

import torch
from torch import Tensor

from ...data.batches import Batch
from ...decoding.hypothesis import Generator
from ...text.vocabulary import END, PAD, START


def previous_words(model: Generator, features: Tensor, batch: Batch) -> Tensor:
    """Return the input words (B, C, T): the caption's own words or words sampled from the model.

    features (B, D, h, w). Each input except the start token is replaced, with probability
    `batch.sampling_prob`, by a word drawn from the model's distribution given the preceding inputs,
    which may themselves be sampled. No gradient flows through the sampling.
    """
    inputs = batch.tokens[..., :-1]
    if not batch.sampling_prob:
        return inputs
    return _replace_words(model, features, inputs, batch.sampling_prob)


@torch.no_grad()
def _replace_words(
    model: Generator, features: Tensor, inputs: Tensor, sampling_prob: float
) -> Tensor:
    rows = inputs.flatten(0, 1)
    replaced = torch.rand(rows.shape, device=rows.device) < sampling_prob
    previous = [rows[:, 0]]
    memory, state = model.start(features, inputs[0].numel())
    state = {name: value.repeat_interleave(inputs.shape[1], 0) for name, value in state.items()}
    for t in range(1, rows.shape[1]):
        scores, state, _ = model.step(previous[-1], state, memory)
        # The caption continues after this input, so the input must be a word.
        scores[:, [PAD, START, END]] = -torch.inf
        sampled = scores.float().softmax(-1).multinomial(1)[:, 0]
        previous.append(torch.where(replaced[:, t], sampled, rows[:, t]))
    return torch.stack(previous, dim=1).view_as(inputs)
