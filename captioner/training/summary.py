"""The lines printed at the end of a training run."""

from collections.abc import Sequence

from .. import distributed
from ..evaluation.split import Evaluation
from .hints import longer_command, next_commands
from .progress import Progress
from .setup import TrainingSetup


def describe_best(setup: TrainingSetup, progress: Progress, evaluation: Evaluation) -> list[str]:
    """Return lines that report the best epoch and its checkpoint's scores on the val split."""
    beam_size = setup.config.training.beam_size
    return [
        f"best epoch: {progress.best_epoch}; val split, beam size {beam_size}",
        evaluation.describe([example.captions for example in setup.held_out.examples]),
    ]


def next_steps(setup: TrainingSetup, progress: Progress, argv: Sequence[str] | None) -> list[str]:
    """Return lines with suggested commands.

    A command for a longer run is included if argv is given and the last epoch was the best.
    """
    config = setup.config
    splits = {example.split for example in setup.data.examples}
    commands = next_commands(
        setup.run,
        "test" if "test" in splits else "val",
        setup.held_out.examples[0].path,
        config.training.beam_size,
        config.model.attention,
    )
    lines = ["next steps:", *(f"  {command}" for command in commands)]
    if argv is not None and may_improve(progress, config.training.epochs):
        longer = longer_command(
            argv, setup.run, 2 * config.training.epochs, distributed.world_size()
        )
        lines += ["the last epoch was the best; more epochs may improve the scores:", f"  {longer}"]
    return lines


def may_improve(progress: Progress, epochs: int) -> bool:
    """Return whether all `epochs` were completed and the last one was the best."""
    return progress.best_epoch == progress.epoch == epochs
