"""Optimisation: options, learning rates, weight decay and weight averaging."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..devices import PRECISIONS
from ..errors import InputError
from ..metrics.captions import SCORES
from ..options import Options, check_at_least, check_share, option

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class TrainingOptions(Options):
    """Optimisation, validation and stopping; each image in a batch comes with all its captions."""

    epochs: int = option(6, "maximum number of epochs")
    batch_size: int = option(16, "number of images per step, across all processes")
    learning_rate: float = option(1.5e-3, "learning rate at the end of warm-up")
    encoder_learning_rate: float = option(1e-4, "learning rate of the encoder, if it is trained")
    weight_decay: float = option(0.01, "AdamW weight decay, applied to matrices only")
    warmup: float = option(0.1, "fraction of steps for linear warm-up, before cosine decay")
    average: float = option(0.998, "decay of the exponential moving average of weights; 0: none")
    scheduled_sampling: float = option(0.0, "final scheduled-sampling probability")
    clip: float = option(5.0, "maximum gradient norm")
    watch: str = option(
        "bleu-4",
        "validation score that determines the best epoch and early stopping",
        choices=tuple(name.lower() for name in SCORES),
    )
    patience: int = option(4, "number of epochs without improvement before early stopping")
    beam_size: int = option(3, "beam size for validation captions")
    precision: str = option(
        "auto", "numeric precision; auto: bfloat16 if it is faster", choices=PRECISIONS
    )
    seed: int = option(0, "seed for weights, dropout and data order")
    self_critical: bool = option(False, "also train on sampled captions, rewarded by CIDEr-D")
    cross_entropy_share: float = option(
        0.1, "weight of the references' cross-entropy in self-critical training"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "epochs", "batch_size", "patience", "beam_size")
        check_at_least(self, 0, "weight_decay", "seed")
        check_share(self, "warmup", "average", "cross_entropy_share", "scheduled_sampling")
        for name in ("learning_rate", "encoder_learning_rate", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.seed >= 2**63:
            raise InputError(f"seed must be below 2**63, got {self.seed}")

    @property
    def watched_score(self) -> str:
        """The watched score's name, spelled as in `metrics.captions.SCORES`."""
        return next(name for name in SCORES if name.lower() == self.watch)


def parameter_groups(model: "nn.Module", options: TrainingOptions) -> list[dict[str, Any]]:
    """Group trained parameters by learning rate (encoder or not) and decay (matrix or not)."""
    groups = []
    for in_encoder, rate in (
        (False, options.learning_rate),
        (True, options.encoder_learning_rate),
    ):
        chosen = [
            parameter
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and name.startswith("encoder.") == in_encoder
        ]
        for decayed in (True, False):
            parameters = [p for p in chosen if (p.ndim > 1) == decayed]
            decay = options.weight_decay if decayed else 0.0
            if parameters:
                groups.append({"params": parameters, "lr": rate, "weight_decay": decay})
    return groups


def learning_rate_factor(warmup: float, steps: int) -> Callable[[int], float]:
    """Return a function that maps a step, counted from 0, to a multiple of the peak learning rate.

    warmup: fraction of all `steps` with a linear increase; cosine decay to 0 follows.
    """
    warmup_steps = max(1, round(warmup * steps))
    decay_steps = max(1, steps - warmup_steps)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup_steps) / decay_steps)))

    return factor


class WeightAverage:
    """Exponential moving average of a model's trained parameters and floating-point buffers.

    The average generalises better than the latest weights while the learning rate is high. The
    decay increases from 0.1 to `decay`, so that the first steps soon have little weight.
    """

    def __init__(self, model: "nn.Module", decay: float) -> None:
        self.decay, self.steps = decay, 0
        parameters = {k: p for k, p in model.named_parameters() if p.requires_grad}
        buffers = {k: b for k, b in model.named_buffers() if b.is_floating_point()}
        self.values = {name: value.detach() for name, value in (parameters | buffers).items()}
        self.average = {name: value.clone() for name, value in self.values.items()}

    def update(self) -> None:
        """Update the average with the current values; call after each optimizer step."""
        self.steps += 1
        weight = 1 - min(self.decay, self.steps / (self.steps + 9))
        for name, value in self.values.items():
            self.average[name].lerp_(value, weight)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Swap the averaged values into the model within the context."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for name, value in self.values.items():
            kept = value.clone()
            value.copy_(self.average[name])
            self.average[name].copy_(kept)

    def state_dict(self) -> dict[str, Any]:
        """Return the step count and the unaveraged values; a checkpoint's weights are averaged."""
        values = {name: value.clone() for name, value in self.values.items()}
        return {"steps": self.steps, "values": values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state; the model must contain the averaged values."""
        self.steps = state["steps"]
        for name, value in self.values.items():
            self.average[name].copy_(value)
            value.copy_(state["values"][name])
