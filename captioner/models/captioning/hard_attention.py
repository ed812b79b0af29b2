"""Hard attention: sampled positions and the loss that trains their probabilities.

Xu et al. 2015, section 4.1. Shapes: B images, C captions per image, K captions at a step, T words,
P positions, N real words of a batch.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ...data.batches import Batch

DRAWN_SHARE = 0.5  # share of the captions with sampled positions; the others attend softly
SCORE_WEIGHT = 0.1  # lambda_r of equation 11; with 1, attention soon collapses to one position
ENTROPY_WEIGHT = 0.01  # lambda_e of equation 11; counteracts that collapse
BASELINE_MOMENTUM = 0.9  # weight of the baseline's previous value in an update


def initial_baseline(vocabulary_size: int) -> Tensor:
    """Return the log-probability of a word before training, when all words are equally likely."""
    return torch.tensor(-math.log(vocabulary_size))


def draw_positions(attention: Tensor) -> Tensor:
    """Draw one position (B, K, 1) from each row of attention weights (B, K, P)."""
    return attention.flatten(0, 1).multinomial(1).view(*attention.shape[:2], 1)


class LocationSampler:
    """Step-by-step sampler of attention positions for one batch, with the loss that trains them.

    As in the paper, half of the captions attend softly instead, which trains the attention as
    soft attention does and reduces the variance of the gradient.

    draw: function (B, K, P) -> (B, K, 1) that chooses the positions.
    """

    def __init__(
        self,
        batch: Batch,
        *,
        drawn_share: float = DRAWN_SHARE,
        score_weight: float = SCORE_WEIGHT,
        entropy_weight: float = ENTROPY_WEIGHT,
        draw: Callable[[Tensor], Tensor] = draw_positions,
    ) -> None:
        self.score_weight, self.entropy_weight, self.draw = score_weight, entropy_weight, draw
        self.real = (batch.tokens[..., 1:] != 0).permute(2, 0, 1)  # (T, B, C)
        self.weights = 1.0 if batch.rollouts is None else batch.rollouts.weights
        uniform = torch.rand(self.real.shape[1:], device=batch.tokens.device)
        self.drawn = uniform < drawn_share  # (B, C)
        self.steps: list[tuple[Tensor, Tensor]] = []  # attention (B, K, P), positions (B, K, 1)

    def __call__(self, attention: Tensor) -> Tensor:
        """Return the weights (B, K, P) to attend with: one-hot if sampled, else the attention."""
        positions = self.draw(attention.detach())
        self.steps.append((attention, positions))
        drawn = self.drawn[:, : attention.shape[1], None]
        one_hot = torch.zeros_like(attention).scatter_(-1, positions, 1.0)
        return torch.where(drawn, one_hot, attention)

    def loss(self, log_probs: Tensor, baseline: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (loss to add to the cross-entropy, entropy of the attention, statistics).

        log_probs (B, C, T): detached log-probabilities of the words. baseline (): expected
        log-probability of a word. Loss and entropy are sums over the batch; the statistics (2,) are
        meant for `update_baseline`.

        This is equation 11 with lower variance: the reward of a position sums the log-probabilities
        of its own word and all later words, each minus the baseline, because the position cannot
        have influenced earlier words. The reward is multiplied by the caption's weight. The reward
        term has the value 0 and contributes only a gradient, because its value does not measure the
        model's quality.
        """
        captions = self.real.shape[2]
        real = self.real[: len(self.steps)]  # without steps of padding only
        attention, positions = (
            torch.stack([F.pad(step, (0, 0, 0, captions - step.shape[1])) for step in steps])
            for steps in zip(*self.steps, strict=True)
        )  # (T, B, C, P), (T, B, C, 1)
        # Padding has attention 0: the smallest normal number keeps the log and its gradient finite.
        logs = attention.clamp_min(torch.finfo(attention.dtype).tiny).log()
        entropy = -((attention * logs).sum(-1) * real).sum()
        words = log_probs.permute(2, 0, 1)[: len(real)]
        counted = real & self.drawn
        rewards = ((words - baseline) * counted).flip(0).cumsum(0).flip(0)
        score = (logs.gather(-1, positions)[..., 0] * rewards * self.weights).sum()
        statistics = torch.stack([(words * counted).sum(), counted.sum()])
        reward = self.score_weight * (score - score.detach())
        return -reward - self.entropy_weight * entropy, entropy.detach(), statistics


def update_baseline(baseline: Tensor, sums: Tensor) -> None:
    """Move the baseline towards the mean log-probability of the counted words, in place.

    sums (2,): the sum of these log-probabilities and the number of words, both over all processes,
    so that every process keeps the same baseline. If the mean is not finite (no words, or a
    diverged batch), the baseline is unchanged; torch.where avoids waiting for the GPU.
    """
    moved = baseline.lerp(sums[0] / sums[1], 1 - BASELINE_MOMENTUM)
    baseline.copy_(torch.where(moved.isfinite(), moved, baseline))
