"""The result of a training run."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..captioner import Captioner
from ..evaluation.split import Evaluation


@dataclass(frozen=True)
class TrainingResult:
    """A finished training run.

    run: its directory, with the checkpoints "best" and "last". best_epoch: counted from 1.
    history: one row of values per epoch, as in log.jsonl. evaluation: the best checkpoint's results
    on the val split. device: the device on which the model was trained.
    """

    run: Path
    best_epoch: int
    history: list[dict[str, Any]]
    evaluation: Evaluation
    device: str

    @property
    def scores(self) -> dict[str, float]:
        """The best checkpoint's scores on the val split, by name, such as "BLEU-4"."""
        return self.evaluation.numbers

    @cached_property
    def captioner(self) -> Captioner:
        """The best checkpoint, loaded on first use, on the device used in training."""
        return Captioner.from_pretrained(self.run / "best", self.device)
