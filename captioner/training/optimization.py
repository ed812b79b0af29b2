"""Optimisation: learning rates, weight decay and weight averaging."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..tasks.options import TrainingOptions

if TYPE_CHECKING:
    from torch import nn


def parameter_groups(model: "nn.Module", options: TrainingOptions) -> list[dict[str, Any]]:
    """Group the trained parameters by learning rate and weight decay.

    The encoder has its own learning rate; weight decay applies only to parameters with two or more
    axes.
    """
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
        """Return the step count and the unaveraged values.

        The averaged values are the weights in the checkpoint.
        """
        values = {name: value.clone() for name, value in self.values.items()}
        return {"steps": self.steps, "values": values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state; the model must contain the averaged values."""
        self.steps = state["steps"]
        for name, value in self.values.items():
            self.average[name].copy_(value)
            value.copy_(state["values"][name])
