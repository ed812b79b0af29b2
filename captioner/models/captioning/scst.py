"""Self-critical training: to a batch come captions that the model samples, weighted by reward.

No loop and no optimizer: training.py takes such batches as any others. Shapes: B images,
C references of each, S sampled captions of each, T words.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from ...data.batches import Batch, count_active_captions
from ...decoding.options import DecodingOptions
from ...decoding.sampling import choose_words
from ...devices import products_in
from ...text.vocabulary import PAD, START
from .build import CaptioningModel

# Words of captions (B, S, T) and of references (B, C, T') without the start, padded with 0 -> (B, S).
Reward: TypeAlias = Callable[[Tensor, Tensor], Tensor]

SAMPLES = 5
LONGEST = 20  # words of a sampled caption, its end counted


def add_rollouts(
    batch: Batch,
    model: CaptioningModel,
    reward: Reward,
    share: float,
    *,
    precision: str = "float32",
    samples: int = SAMPLES,
    max_length: int = LONGEST,
) -> Batch:
    """The batch, on the model's device, with S captions more an image that the model samples now.

    Rennie et al. 2017: a sample's reward is its score, CIDEr-D say, against the image's references. Taken
    off is what could be expected: not that of the greedy caption, as there, which is far above that
    of samples, but the mean of the image's other samples (Luo 2020). A sample weighs
    (1 - share) * C / S times the difference, a reference `share`, so that an image counts as its C
    references do in any batch, and of each the loss sums up

        C * (share * mean over references of -log p
             - (1 - share) * mean over samples of (reward - expected reward) * log p).

    The samples come from what the loss is about: all words, <unk> too, with their probabilities,
    if without dropout. Of a caption that max_length cuts no end is rewarded or learned. The mean
    reward is told as "reward". Draws from torch's global generator. samples: at least 2.
    """
    batch = batch.to(model.words.bias.device)
    assert samples > 1
    sampled = draw(batch, model, precision, samples, max_length)
    given = batch.tokens[..., 1:]
    rewards = reward(sampled, given)  # (B, S)
    expected = (rewards.sum(1, keepdim=True) - rewards) / (samples - 1)
    references = (given[..., 0] != PAD).sum(1, keepdim=True)
    gain = (1 - share) * references / samples * (rewards - expected)
    tokens = _beside(batch.tokens, F.pad(sampled, (1, 0), value=START))
    weights = torch.cat([torch.full_like(gain[:, :1], share).expand(given.shape[:2]), gain], 1)
    lengths = (tokens != PAD).sum(-1)
    order = lengths.argsort(dim=1, descending=True, stable=True)
    tokens = tokens.take_along_dim(order[..., None], 1)[..., : int(lengths.max())]
    return replace(
        batch,
        tokens=tokens,
        active_captions=count_active_captions(tokens),
        weights=weights.take_along_dim(order, 1),
        sampled=order >= given.shape[1],
        parts={**batch.parts, "reward": rewards.mean()},
    )


def draw(
    batch: Batch, model: CaptioningModel, precision: str, samples: int, max_length: int
) -> Tensor:
    """Words of S captions of each image that the model samples: (B, S, T)."""
    freely = DecodingOptions(
        "sample",
        num_captions=samples,
        max_length=max_length,
        min_length=0,
        allow_unknown=True,
    )
    was_training = model.training
    model.eval()
    with torch.inference_mode(), products_in(precision, batch.tokens.device):
        sampled = choose_words(model, batch.features_by(model.encoder), freely)
    model.train(was_training)
    return sampled


def _beside(left: Tensor, right: Tensor) -> Tensor:
    """Tokens (B, n, T) and (B, m, T') of the same images as one (B, n + m, longer of both)."""
    longest = max(left.shape[-1], right.shape[-1])
    return torch.cat([F.pad(words, (0, longest - words.shape[-1])) for words in (left, right)], 1)
