"""Self-critical sequence training: sampled captions, weighted by their reward.

Shapes: B images, C references per image, S sampled captions per image, T words.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from ...data.batches import Batch, Rollouts
from ...decoding.options import DecodingOptions
from ...decoding.sampling import choose_words
from ...devices import products_in, training_format
from ...products import decoding_in
from ...text.vocabulary import PAD, START
from .build import CaptioningModel

# Captions (B, S, T) and references (B, C, T') without start token, padded with 0 -> scores (B, S).
Reward: TypeAlias = Callable[[Tensor, Tensor], Tensor]

SAMPLES = 5
MAX_LENGTH = 20  # of a sampled caption in words, including the end token


def add_rollouts(
    batch: Batch,
    model: CaptioningModel,
    reward: Reward,
    share: float,
    *,
    precision: str = "float32",
    samples: int = SAMPLES,
    max_length: int = MAX_LENGTH,
) -> tuple[Batch, Tensor]:
    """Add S captions per image sampled from the model; return the batch and the mean reward.

    The returned batch is on the model's device.

    Rennie et al. 2017: the reward of a sample is its score, e.g. CIDEr-D, against the image's
    references, and a baseline is subtracted from it. The paper's baseline, the score of the greedy
    caption, is far above the scores of samples; here the baseline is the mean score of the image's
    other samples (Luo 2020). Each sample has the weight (1 - share) * C / S * (reward - baseline)
    and each reference the weight `share`, so that an image with C references has the weight C, as
    in training with cross-entropy. The loss of an image is

        C * (share * mean over references of -log p
             - (1 - share) * mean over samples of (reward - baseline) * log p).

    The samples follow the distribution that the loss trains: all words including <unk>, but without
    dropout. A caption truncated at max_length is neither rewarded for an end token nor trained to
    predict one. The samples are drawn with torch's global random number generator.

    share: weight of the references' cross-entropy, in [0, 1]. samples: number of sampled captions
    per image, at least 2.
    """
    batch = batch.to(model.words.bias.device)
    assert samples > 1
    sampled = sample_captions(batch, model, precision, samples, max_length)
    references = batch.tokens[..., 1:]
    rewards = reward(sampled, references)  # (B, S)
    baseline = (rewards.sum(1, keepdim=True) - rewards) / (samples - 1)
    counts = (references[..., 0] != PAD).sum(1, keepdim=True)
    gain = (1 - share) * counts / samples * (rewards - baseline)
    tokens = _concatenate(batch.tokens, F.pad(sampled, (1, 0), value=START))
    shares = torch.full_like(gain[:, :1], share).expand(references.shape[:2])
    weights = torch.cat([shares, gain], 1)
    lengths = (tokens != PAD).sum(-1)
    order = lengths.argsort(dim=1, descending=True, stable=True)
    tokens = tokens.take_along_dim(order[..., None], 1)[..., : int(lengths.max())]
    rollouts = Rollouts(weights.take_along_dim(order, 1), order >= references.shape[1])
    return replace(batch, tokens=tokens, rollouts=rollouts), rewards.mean()


def sample_captions(
    batch: Batch, model: CaptioningModel, precision: str, samples: int, max_length: int
) -> Tensor:
    """Sample the words (B, S, T) of S captions per image from the model in eval mode."""
    options = DecodingOptions(
        "sample",
        num_captions=samples,
        max_length=max_length,
        min_length=0,
        allow_unknown=True,
    )
    was_training = model.training
    model.eval()
    device = batch.tokens.device
    with torch.inference_mode():
        with products_in(precision, device):
            features = batch.features_by(model.encoder)
        with decoding_in(training_format(precision, device), device):
            sampled = choose_words(model, features.float(), options)
    model.train(was_training)
    return sampled


def _concatenate(left: Tensor, right: Tensor) -> Tensor:
    """Concatenate tokens (B, n, T) and (B, m, T') to (B, n + m, max(T, T')), padded with 0."""
    length = max(left.shape[-1], right.shape[-1])
    return torch.cat([F.pad(words, (0, length - words.shape[-1])) for words in (left, right)], 1)
