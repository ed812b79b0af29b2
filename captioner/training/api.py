"""The function that trains a model from Python."""

from .config import TrainConfig
from .result import TrainingResult
from .run import run_training


def train(config: TrainConfig | None = None) -> TrainingResult:
    """Train a model as `captioner train` does and return the finished run.

    config: None trains Show and Tell on the demo data. The run's directory is created in
    `checkpoints` in the working directory; progress and scores are printed. Torch's seed is set.
    Raises InputError for user errors, `captioner.errors.Interrupted` after SIGINT or SIGTERM
    once the run is saved, and FloatingPointError if the gradient is not finite in several
    consecutive steps.
    """
    return run_training(TrainConfig.from_options() if config is None else config)
