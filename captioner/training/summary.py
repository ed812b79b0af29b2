"""The lines printed at the end of a training run."""

from collections.abc import Sequence

from .. import distributed
from ..tasks.commands import longer_command
from ..tasks.task import Result
from .progress import Progress
from .setup import TrainingSetup


def describe_best(setup: TrainingSetup, progress: Progress, result: Result) -> list[str]:
    """Return lines that report the best epoch and its checkpoint's scores on the val split."""
    epoch = "" if setup.job.fit is not None else f"best epoch: {progress.best_epoch}; "
    return [f"{epoch}{setup.job.setting}", result.describe()]


def next_steps(setup: TrainingSetup, progress: Progress, argv: Sequence[str] | None) -> list[str]:
    """Return lines with suggested commands.

    A command for a longer run is included if argv is given, the model is trained in epochs, all of
    them were completed, and the last was the best.
    """
    lines = ["next steps:", *(f"  {command}" for command in setup.job.next_commands())]
    epochs = setup.config.training.epochs
    if argv is not None and setup.job.fit is None and may_improve(progress, epochs):
        longer = longer_command(argv, setup.run, 2 * epochs, distributed.world_size())
        lines += ["the last epoch was the best; more epochs may improve the scores:", f"  {longer}"]
    return lines


def may_improve(progress: Progress, epochs: int) -> bool:
    """Return whether all `epochs` were completed and the last one was the best."""
    return progress.best_epoch == progress.epoch == epochs
