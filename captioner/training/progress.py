"""The progress of a training run: steps, sums of the current epoch, best score, history."""

import math
from dataclasses import dataclass, field
from typing import Any

from ..models.losses import Loss
from ..tasks.options import TrainingOptions


@dataclass
class Progress:
    """The progress of a training run, as plain values that a checkpoint can store."""

    epoch: int = 0  # finished epochs
    batch: int = 0  # finished batches of the current epoch
    step: int = 0  # finished batches of all epochs
    bad: int = 0  # most recent consecutive steps with a non-finite gradient
    best_score: float | None = None
    best_epoch: int = 0
    sums: dict[str, float] = field(default_factory=dict)  # over the current epoch, see `add`
    history: list[dict[str, Any]] = field(default_factory=list)  # the rows of log.jsonl

    def finished(self, options: TrainingOptions) -> bool:
        """Return whether all epochs are finished or the patience is exhausted."""
        epochs_since_best = self.epoch - self.best_epoch
        return self.epoch >= options.epochs or epochs_since_best >= options.patience

    def add(self, loss: Loss, seconds: float, waited: float) -> None:
        """Add one step to the epoch's sums.

        The loss and its parts are weighted by `loss.count`. seconds: the duration of the step,
        including `waited` seconds spent waiting for data.
        """
        values = {"count": 1.0, "loss": float(loss.value)}
        values |= {name: float(value) for name, value in loss.parts.items()}
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value * loss.count
        for name, value in (("seconds", seconds), ("waiting", waited)):
            self.sums[name] = self.sums.get(name, 0.0) + value

    def means(self, unit: str) -> dict[str, float]:
        """Return the epoch's mean losses, speed, time and share of the time spent waiting for data.

        They are NaN before the first step. unit: plural noun for what `Loss.count` counts, such as
        "words".
        """
        sums = {**dict.fromkeys(("count", "seconds", "waiting", "loss"), math.nan), **self.sums}
        count, seconds, waited = (sums.pop(name) for name in ("count", "seconds", "waiting"))
        return {
            **{name: value / count for name, value in sums.items()},
            f"{unit}_per_second": count / seconds,
            "training_seconds": seconds,
            "waiting_share": waited / seconds,
        }
