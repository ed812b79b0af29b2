"""What search needs of a model, and what it finds: Hypotheses.

Shapes: B images, K hypotheses per image, R = B*K rows, T steps, h, w grid.
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
    """What search needs of a model; see captioning.py for the contract."""

    def start(self, features: Tensor, expected_steps: int) -> tuple[Memory, State]: ...

    def step(
        self, tokens: Tensor, state: State, memory: Memory
    ) -> tuple[Tensor, State, Tensor | None]: ...


class ImageGenerator(Generator, Protocol):
    """A Generator that is a torch module with the encoder of its feature maps."""

    encoder: Any  # pixels (B, 3, S, S) -> features (B, D, h, w)
    training: bool

    def parameters(self, recurse: bool = True) -> Iterator[Any]: ...

    def train(self, mode: bool = True) -> Any: ...


@dataclass(frozen=True)
class Hypothesis:
    """One caption of one image.

    tokens: the words and, unless max_length cut it, the end token. log_probs: one per token.
    attention (len(tokens), h, w): each map sums to 1; None for a model without attention.
    alternatives: for each token the likeliest others in its place, with their log-probabilities,
    likeliest first; empty unless asked for.
    """

    tokens: tuple[int, ...]
    log_probs: tuple[float, ...]
    attention: np.ndarray | None
    alternatives: tuple[tuple[tuple[int, float], ...], ...] = ()

    @property
    def score(self) -> float:
        """Log-probability of the whole caption, in nats."""
        return sum(self.log_probs)


def collect(tokens: Tensor, log_probs: Tensor, maps: Sequence[Tensor | None]) -> list[Hypothesis]:
    """Rows of tokens (R, T), end and padding at the right, to Hypotheses; one copy to the host."""
    lengths = (tokens != PAD).sum(1).tolist()
    words, numbers = tokens.tolist(), log_probs.tolist()
    stacked = None
    if maps and maps[0] is not None:
        stacked = torch.stack([m for m in maps if m is not None], 1).float().cpu().numpy()
    return [
        Hypothesis(
            tuple(words[row][:length]),
            tuple(numbers[row][:length]),
            None if stacked is None else stacked[row, :length],
        )
        for row, length in enumerate(lengths)
    ]


def expected_steps(options: DecodingOptions, hypotheses: int) -> int:
    """About how many words are drawn from each image: most end half-way to max_length."""
    return hypotheses * max(options.min_length, options.max_length // 2)


def should_sync(features: Tensor, t: int) -> bool:
    """Whether to look if all is done: on a GPU a look waits for the device, so every 4th step."""
    return features.device.type == "cpu" or t % 4 == 3
