"""The function that trains a model from Python."""

from ..errors import InputError
from .config import TrainConfig
from .result import TrainingResult
from .run import run_training


def train(config: TrainConfig | None = None) -> TrainingResult:
    """Train a model as `captioner train` does and return the finished run.

    config: None trains Show and Tell on the demo data. The run's directory is created in
    `checkpoints` in the working directory; progress and scores are printed, and the seed of torch
    is set. Raises InputError for user errors, `captioner.errors.Interrupted` after SIGINT or
    SIGTERM once the run is saved, and FloatingPointError if the gradient is not finite in several
    consecutive steps.
    """
    config = TrainConfig.from_options() if config is None else config
    if not isinstance(config, TrainConfig):
        raise InputError(
            f"config must be a TrainConfig, got {config!r}; use TrainConfig.from_options"
        )
    return run_training(config)
