"""The result of a training run."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..captioner import Captioner
from ..checkpoints import checkpoint
from ..errors import InputError
from ..linker import Linker
from ..relation import RelationClassifier
from ..tasks.systems import task_named
from ..tasks.task import Result


@dataclass(frozen=True)
class TrainingResult:
    """A finished training run.

    run: its directory, which contains the checkpoint "best" and, unless the model was fitted in
    closed form, "last". system: the name of the task. best_epoch: counted from 1. history: one row
    of values per epoch, as in log.jsonl. evaluation: the best checkpoint's results on the val
    split. device: the device on which the model was trained.
    """

    run: Path
    system: str
    best_epoch: int
    history: list[dict[str, Any]]
    evaluation: Result
    device: str

    @property
    def scores(self) -> dict[str, float]:
        """The best checkpoint's scores on the val split, by name, such as "BLEU-4"."""
        return self.evaluation.numbers

    @property
    def captioner(self) -> Captioner:
        """The best checkpoint of a captioning run, loaded on first use, on the training device."""
        if not isinstance(self._model, Captioner):
            raise InputError(f"a {self.system!r} run has no captioner; use {self._attribute}")
        return self._model

    @property
    def linker(self) -> Linker:
        """The best checkpoint of a linking run, loaded on first use, on the training device."""
        if not isinstance(self._model, Linker):
            raise InputError(f"a {self.system!r} run has no linker; use {self._attribute}")
        return self._model

    @property
    def relation_classifier(self) -> RelationClassifier:
        """The best checkpoint of a relation run, loaded on first use, on the training device."""
        if not isinstance(self._model, RelationClassifier):
            advice = f"use {self._attribute}"
            raise InputError(f"a {self.system!r} run has no relation classifier; {advice}")
        return self._model

    @property
    def _attribute(self) -> str:
        """The name of the attribute that holds the model."""
        return {"captioning": "captioner", "relation": "relation_classifier"}.get(
            self.system, "linker"
        )

    @cached_property
    def _model(self) -> Any:
        best = checkpoint.load(self.run / "best")
        return task_named(self.system).load(best, self.device)
