"""Hard attention: where a word looks is drawn from the attention, and how drawing well is learned.

Xu et al. 2015, section 4.1. Nothing here knows models. Shapes: B images, C captions per image,
K captions at work, T words, P positions, N real words of a batch.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ... import distributed
from ...data.batches import Batch

DRAWN = 0.5  # share of captions whose locations are drawn; the others see the expected context
SCORE_WEIGHT = 0.1  # lambda_r of equation 11; with 1 the attention soon settles on any one place
ENTROPY_WEIGHT = 0.01  # lambda_e, which keeps it from that
KEPT = 0.9  # share of the baseline that a batch leaves as it was


def first_baseline(vocabulary_size: int) -> Tensor:
    """What a model that knows nothing gives a word: its log-probability where all are alike."""
    return torch.tensor(-math.log(vocabulary_size))


class LocationSampler:
    """The locations of one batch: drawn step by step, learned from in the end.

    As in the paper, half of the captions see the expected context instead, through which the
    attention learns as soft attention does; that makes the gradient less noisy.
    """

    def __init__(self, batch: Batch) -> None:
        self.real = (batch.tokens[..., 1:] != 0).permute(2, 0, 1)  # (T, B, C)
        self.weights = 1.0 if batch.weights is None else batch.weights
        self.drawn = torch.rand(self.real.shape[1:], device=batch.tokens.device) < DRAWN  # (B, C)
        self.steps: list[tuple[Tensor, Tensor]] = []  # attention (B, K, P), places (B, K, 1)

    def __call__(self, attention: Tensor) -> Tensor:
        """Attention (B, K, P) -> 1 at a place drawn from it, or as it is where none is drawn."""
        places = _draw(attention.detach())
        self.steps.append((attention, places))
        drawn = self.drawn[:, : attention.shape[1], None]
        return torch.where(drawn, _only(attention, places), attention)

    def loss(self, log_probs: Tensor, baseline: Tensor) -> tuple[Tensor, Tensor]:
        """What to minimise beside the cross-entropy, and the entropy of the attention; both sums.

        log_probs (N,): of the first words of all captions, then of the second ones, and so on.
        baseline (): the log-probability that a word is expected to have; moves on with this batch.
        Equation 11, with less variance: a location is rewarded by its own word and those to come,
        since it cannot have changed those before, and each word has the baseline taken off; and its
        caption's weight counts. The reward has a gradient but no value, which would say nothing.
        """
        captions = self.real.shape[2]
        attention, places = (
            torch.stack([F.pad(step, (0, 0, 0, captions - step.shape[1])) for step in steps])
            for steps in zip(*self.steps, strict=True)
        )  # (T, B, C, P), (T, B, C, 1)
        logs = attention.clamp_min(torch.finfo(attention.dtype).tiny).log()
        entropy = -((attention * logs).sum(-1) * self.real).sum()
        words = log_probs.new_zeros(self.real.shape)
        words[self.real] = log_probs
        looked = self.real & self.drawn
        to_come = ((words - baseline) * looked).flip(0).cumsum(0).flip(0)
        score = (logs.gather(-1, places)[..., 0] * to_come * self.weights).sum()
        _move(baseline, words * looked, looked)
        reward = SCORE_WEIGHT * (score - score.detach())
        return -reward - ENTROPY_WEIGHT * entropy, entropy.detach()


def _draw(attention: Tensor) -> Tensor:
    """Weights (B, K, P) -> the number of one place each, (B, K, 1)."""
    return attention.flatten(0, 1).multinomial(1).view(*attention.shape[:2], 1)


def _only(attention: Tensor, places: Tensor) -> Tensor:
    return torch.zeros_like(attention).scatter_(-1, places, 1.0)


def _move(baseline: Tensor, log_probs: Tensor, counted: Tensor) -> None:
    """A moving average over batches, the same in all processes; a broken batch is left out."""
    sums = distributed.total(torch.stack([log_probs.sum(), counted.sum()]))
    moved = baseline.lerp(sums[0] / sums[1], 1 - KEPT)
    baseline.copy_(torch.where(moved.isfinite(), moved, baseline))
