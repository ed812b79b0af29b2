"""Hypotheses and the protocol of the models that generate them.

Shapes: B images, K hypotheses per image, R = B*K rows, T steps, (h, w) grid.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..text.vocabulary import PAD
from .options import DecodingOptions

Memory = dict[str, Tensor]
State = dict[str, Tensor]


class Generator(Protocol):
    """The model interface used by search and sampling; models/base.py specifies both methods."""

    def start(self, features: Tensor, expected_steps: int) -> tuple[Memory, State]: ...

    def step(
        self, tokens: Tensor, state: State, memory: Memory
    ) -> tuple[Tensor, State, Tensor | None]: ...


class ImageGenerator(Generator, Protocol):
    """A Generator that is a torch module and includes the encoder that computes feature maps."""

    encoder: Any  # pixels (B, 3, S, S) -> features (B, D, h, w)
    training: bool

    def parameters(self, recurse: bool = True) -> Iterator[Any]: ...

    def train(self, mode: bool = True) -> Any: ...


@dataclass(frozen=True)
class Hypothesis:
    """One caption of one image.

    tokens: the words and, unless max_length truncated the caption, the end token. log_probs: one
    log-probability per token, in nats. attention (len(tokens), h, w): one map per token, each
    summing to 1; None for a model without attention. alternatives: for each token, the most likely
    other tokens at its position with their log-probabilities, most likely first; empty unless
    requested.
    """

    tokens: tuple[int, ...]
    log_probs: tuple[float, ...]
    attention: np.ndarray[Any, Any] | None
    alternatives: tuple[tuple[tuple[int, float], ...], ...] = ()

    @property
    def score(self) -> float:
        """Log-probability of the whole caption, in nats."""
        return sum(self.log_probs)


def collect_hypotheses(
    tokens: Tensor, log_probs: Tensor, maps: Sequence[Tensor | None]
) -> list[Hypothesis]:
    """Build one Hypothesis for each row of `tokens` (R, T), which are padded at the end.

    log_probs (R, T): log-probability of each token. maps: attention (R, h, w) of each step, or
    None. All maps are copied to the CPU at once, because each copy waits for the GPU.
    """
    lengths = (tokens != PAD).sum(1).tolist()
    token_rows, log_prob_rows = tokens.tolist(), log_probs.tolist()
    attention = None
    if maps and maps[0] is not None:
        attention = torch.stack([m for m in maps if m is not None], 1).float().cpu().numpy()
    return [
        Hypothesis(
            tuple(token_rows[row][:length]),
            tuple(log_prob_rows[row][:length]),
            None if attention is None else attention[row, :length],
        )
        for row, length in enumerate(lengths)
    ]


def expected_steps(options: DecodingOptions, hypotheses: int) -> int:
    """Estimate the number of tokens that a number of hypotheses for one image will have together.

    Captions are assumed to have half the maximum length, or the minimum length if that is larger.
    """
    return hypotheses * max(options.min_length, options.max_length // 2)


def should_sync(features: Tensor, t: int) -> bool:
    """Return whether step t is followed by a check of whether all captions have ended.

    On a GPU, the check waits for the device, so it is made only after every fourth step.
    """
    return features.device.type == "cpu" or t % 4 == 3
