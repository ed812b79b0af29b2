"""The options that all tasks share: data, training, and the run."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ..checkpoints.runs import CHECKPOINTS, RESUME, run_directory
from ..data.readers import ON_ERROR, READERS
from ..devices import TRAINING_PRECISIONS
from ..errors import InputError
from ..options import Options, check_at_least, check_share, option
from ..prefetch import WORKERS
from ..vision.options import EncoderOptions

M = TypeVar("M", bound=Options)
T = TypeVar("T", bound=Options)


@dataclass(frozen=True)
class DataOptions(Options):
    """Options of the training data: where it is and how it is read."""

    data: Path | None = option(None, "data directory or file [the generated demo data]")
    format: str | None = option(None, "layout of the data [detected]", choices=tuple(READERS))
    on_error: str = option(
        "stop", "unusable rows and images: stop, or skip and list them", choices=ON_ERROR
    )
    max_skipped: float = option(0.05, "maximum fraction of rows and images that may be skipped")
    workers: int = option(WORKERS, "number of threads that prefetch batches")
    cache: Path = option(CHECKPOINTS / ".cache", "cache directory for features and demo images")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 0, "workers")
        if not 0 <= self.max_skipped <= 1:
            raise InputError(f"max_skipped must be from 0 to 1, got {self.max_skipped}")


@dataclass(frozen=True)
class TrainingOptions(Options):
    """Options of training: optimisation, validation and stopping.

    Each image in a batch comes with all its captions, unless the task or its options limit them.
    """

    epochs: int = option(6, "maximum number of epochs")
    batch_size: int = option(16, "number of images per step, across all processes")
    learning_rate: float = option(1.5e-3, "learning rate at the end of warm-up")
    encoder_learning_rate: float = option(1e-4, "learning rate of the encoder, if it is trained")
    weight_decay: float = option(0.01, "AdamW weight decay of matrices and convolution kernels")
    warmup: float = option(0.1, "fraction of steps for linear warm-up, before cosine decay")
    average: float = option(0.998, "decay of the exponential moving average of weights; 0: none")
    clip: float = option(5.0, "maximum gradient norm")
    watch: str | None = option(
        None,
        "validation score that determines the best epoch and early stopping [the first score of "
        "the system]",
    )
    patience: int = option(4, "number of epochs without improvement before early stopping")
    precision: str = option(
        "auto", "numeric precision; auto: bfloat16 if it is faster", choices=TRAINING_PRECISIONS
    )
    seed: int = option(0, "seed for weights, dropout and data order")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "epochs", "batch_size", "patience")
        check_at_least(self, 0, "weight_decay", "seed")
        check_share(self, "warmup", "average")
        for name in ("learning_rate", "encoder_learning_rate", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} must be finite and above 0, got {getattr(self, name)}")
        if self.seed >= 2**63:
            raise InputError(f"seed must be below 2**63, got {self.seed}")


@dataclass(frozen=True)
class RunOptions(Options):
    """Options of a run: its name, starting point, device and progress reports."""

    run: str | None = option(None, "name of the run [derived from data and model]")
    resume: str = option(
        "no",
        "resume the run; auto: start it if it has saved nothing, otherwise resume it",
        choices=RESUME,
        bare="last",
    )
    start_from: Path | None = option(
        None, "run or checkpoint that provides initial weights and vocabulary"
    )
    device: str | None = option(None, "device: cpu, cuda, cuda:N or mps [cuda if available]")
    logger: tuple[str, ...] = option(
        (),
        "also log scores and samples to this tracker",
        choices=("tensorboard", "wandb", "mlflow"),
    )
    tensorboard: bool = option(False, "the same as --logger tensorboard")
    samples: int = option(4, "number of val images to draw with captions after each epoch; 0: none")
    heatmaps: int = option(
        12,
        "number of val images drawn with heatmaps at the end (autoencoder: reconstructions); "
        "0: none",
    )
    curves: bool = option(True, "draw curves.png after each epoch")

    @property
    def trackers(self) -> tuple[str, ...]:
        """The trackers that `logger` and `tensorboard` select, each once."""
        return tuple(dict.fromkeys((*self.logger, *["tensorboard"] * self.tensorboard)))

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 0, "samples", "heatmaps")
        if self.run is not None:
            run_directory(self.run)  # raises InputError for a name that is not a plain name


@dataclass(frozen=True)
class OptionGroups:
    """All options of one training run, in groups.

    model: what a checkpoint needs to rebuild the model; its class determines the task. task: the
    other options of the task, such as `CaptioningOptions`.
    """

    data: DataOptions
    encoder: EncoderOptions
    model: Options
    task: Options
    training: TrainingOptions
    run: RunOptions

    def of(self, model: type[M], task: type[T]) -> tuple[M, T]:
        """Return the options of the model and of the task as these classes, which they must be."""
        assert isinstance(self.model, model)
        assert isinstance(self.task, task)
        return self.model, self.task
