"""How training steps: its options, learning rates, weight decay, weight average; no loop."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..devices import PRECISIONS
from ..errors import InputError
from ..metrics.captions import SCORES
from ..options import check_at_least, check_share, option


@dataclass(frozen=True)
class TrainingOptions:
    """How to train; the batch is counted in images, each with all its captions."""

    epochs: int = option(6, "times through the training images, at most")
    batch_size: int = option(16, "images per step, over all processes")
    learning_rate: float = option(1.5e-3, "highest learning rate")
    encoder_learning_rate: float = option(1e-4, "the same for the encoder, where it is trained")
    weight_decay: float = option(0.01, "AdamW's decay of weight matrices")
    warmup: float = option(0.1, "share of all steps in which the rate rises, before the cosine")
    average: float = option(0.998, "decay per step of the weights' running average; 0: none")
    scheduled_sampling: float = option(0.0, "share of own words to learn after, in the last step")
    clip: float = option(5.0, "largest norm of the gradient")
    watch: str = option(
        "bleu-4",
        "validation score that decides on the best epoch and on patience",
        choices=tuple(name.lower() for name in SCORES),
    )
    patience: int = option(4, "epochs without a better watched score before stopping")
    beam_size: int = option(3, "beam size of the validation captions")
    precision: str = option(
        "auto", "auto: bfloat16 where the device multiplies it fast", choices=PRECISIONS
    )
    seed: int = option(0, "seed of weights, dropout and order")
    self_critical: bool = option(False, "train on sampled captions by their CIDEr-D, too")
    cross_entropy_share: float = option(0.1, "share of the references' cross-entropy in that")

    def __post_init__(self) -> None:
        check_at_least(self, 1, "epochs", "batch_size", "patience", "beam_size")
        check_at_least(self, 0, "weight_decay", "seed")
        check_share(self, "warmup", "average", "cross_entropy_share", "scheduled_sampling")
        for name in ("learning_rate", "encoder_learning_rate", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.seed >= 2**63:
            raise InputError(f"seed must be below 2**63, got {self.seed}")


def parameter_groups(model: nn.Module, options: TrainingOptions) -> list[dict[str, Any]]:
    """The trained parameters by learning rate (the encoder has its own) and decay (matrices)."""
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


def rate_share(warmup: float, steps: int) -> Callable[[int], float]:
    """Share of the highest learning rate at a step: a linear rise, then half a cosine to 0."""
    rising = max(1, round(warmup * steps))

    def share(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rising) / max(1, steps - rising))))

    return share


class WeightAverage:
    """The exponential moving average of what a model learns: better than the last step, while the
    learning rate is high.

    Averaged are the trained parameters and all floating-point buffers, as batch norms have. The
    decay rises from 0.1 to `decay`, so that the first steps are soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        parameters = {k: p for k, p in model.named_parameters() if p.requires_grad}
        buffers = {k: b for k, b in model.named_buffers() if b.is_floating_point()}
        self.values = {name: value.detach() for name, value in (parameters | buffers).items()}
        self.average = {name: value.clone() for name, value in self.values.items()}

    def update(self) -> None:
        """Take in the values after a step."""
        self.steps += 1
        share = 1 - min(self.decay, self.steps / (self.steps + 9))
        for name, value in self.values.items():
            self.average[name].lerp_(value, share)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """While this lasts the model has the average's values."""
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

    def state(self) -> dict[str, Any]:
        """What resuming needs beyond the average: the values that are being trained."""
        values = {name: value.clone() for name, value in self.values.items()}
        return {"steps": self.steps, "values": values}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue in a model that has been given the average's values."""
        self.steps = state["steps"]
        for name, value in self.values.items():
            self.average[name].copy_(value)
            value.copy_(state["values"][name])
