"""The typed configuration of a training run.

Command lines are parsed in the `cli` package.
"""

from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ..checkpoints.runs import CHECKPOINTS, run_directory
from ..data.readers import ON_ERROR, READERS
from ..errors import InputError
from ..models.captioning.options import ModelOptions
from ..option_files import read_option_file
from ..options import Options, check_at_least, option
from ..prefetch import WORKERS
from ..vision.options import SMALL_CNN, EncoderOptions
from .optimization import TrainingOptions
from .stored_options import read_stored_options

__all__ = [
    "DataOptions",
    "EncoderOptions",
    "ModelOptions",
    "RunOptions",
    "TrainConfig",
    "TrainingOptions",
]

# Defaults for small_cnn, which is trained from scratch on small images, and a smaller decoder.
SMALL_CNN_DEFAULTS: dict[str, int | float] = {
    "image_size": 128,
    "embedding_size": 128,
    "hidden_size": 256,
    "annotation_size": 0,
    "attention_size": 64,
    "dropout": 0.1,
    "label_smoothing": 0.0,
    "learning_rate": 3e-3,
    "encoder_learning_rate": 3e-3,
    "average": 0.98,
    "epochs": 8,
}


@dataclass(frozen=True)
class DataOptions(Options):
    """The training data and how to read it."""

    data: Path | None = option(None, "data directory or file [the generated demo data]")
    format: str | None = option(None, "layout of the data [detected]", choices=tuple(READERS))
    on_error: str = option(
        "stop", "unusable rows and images: stop, or skip and list them", choices=ON_ERROR
    )
    min_count: int = option(
        5, "minimum word count in the training captions; rarer words become <unk>"
    )
    workers: int = option(WORKERS, "number of threads that prefetch batches")
    cache: Path = option(CHECKPOINTS / ".cache", "cache directory for features and demo images")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "min_count")
        check_at_least(self, 0, "workers")


@dataclass(frozen=True)
class RunOptions(Options):
    """The run's name, starting point, device and progress reports."""

    run: str | None = option(None, "name of the run [derived from data and model]")
    resume: bool = option(False, "resume the run from its last checkpoint")
    start_from: Path | None = option(
        None, "run or checkpoint that provides initial weights and vocabulary"
    )
    teachers: tuple[Path, ...] = option(
        (), "runs or checkpoints to distil from, as an ensemble, in addition to the captions"
    )
    device: str | None = option(None, "device: cpu, cuda, cuda:N or mps [cuda if available]")
    tensorboard: bool = option(False, "also log scores and samples for TensorBoard")
    samples: int = option(
        4, "number of validation images to caption and draw after each epoch; 0: none"
    )
    heatmaps: int = option(
        12, "number of validation images to draw heatmaps for after training; 0: none"
    )
    curves: bool = option(True, "draw curves.png after each epoch")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 0, "samples", "heatmaps")
        if self.run is not None:
            run_directory(self.run)  # raises InputError for a name that is not a plain name


GROUPS: dict[str, type] = {
    "data": DataOptions,
    "encoder": EncoderOptions,
    "model": ModelOptions,
    "training": TrainingOptions,
    "run": RunOptions,
}


@dataclass(frozen=True)
class TrainConfig:
    """The complete configuration of one training run, in groups of options.

    With the encoder `small_cnn`, options that are not passed to their group take their defaults
    from SMALL_CNN_DEFAULTS. Raises InputError for contradictory options.
    """

    data: DataOptions = DataOptions()
    encoder: EncoderOptions = EncoderOptions()
    model: ModelOptions = ModelOptions()
    training: TrainingOptions = TrainingOptions()
    run: RunOptions = RunOptions()

    def __post_init__(self) -> None:
        if self.encoder.encoder == SMALL_CNN:
            for name in ("encoder", "model", "training"):
                object.__setattr__(self, name, _with_small_cnn_defaults(getattr(self, name)))
        check_combination(self, _changed_options(self))

    @classmethod
    def from_options(cls, **options: Any) -> "TrainConfig":
        """Build a config from options of any group, such as `attention=True, epochs=3`.

        Raises InputError for an unknown option, a value of the wrong type, or an option that has
        no effect in combination with the others, even if its value is the default.
        """
        return cls._build(options, options)

    @classmethod
    def from_file(cls, path: Path | str, **options: Any) -> "TrainConfig":
        """Build a config from a TOML file or an earlier run; `options` override its values.

        path: a TOML file whose keys are names of flags; or a run, a checkpoint or its config.json,
        whose training is repeated as a new run. Paths in a file are relative to the working
        directory. Raises InputError in the same cases as `from_options`, and if the file cannot be
        read.
        """
        path = Path(path)
        if path.suffix == ".toml":
            options = read_option_file(path, GROUPS) | options
            return cls._build(options, options)
        if path.is_file() and path.name != "config.json":
            raise InputError(
                f"config must be a .toml file, a run, a checkpoint or its config.json, got {path}"
            )
        stored = read_stored_options(path, GROUPS)
        if "data" in options:  # the stored format belongs to the stored data
            stored.pop("format", None)
        return cls._build(stored | options, options)

    @classmethod
    def _build(cls, values: dict[str, Any], given: Collection[str]) -> "TrainConfig":
        """Build the config from these values; the options in `given` must have an effect."""
        known = {name for group in GROUPS.values() for name in _names(group)}
        if unknown := sorted(values.keys() - known):
            raise InputError(f"unknown training option {', '.join(map(repr, unknown))}")
        config = cls(
            **{
                name: group(**{key: values[key] for key in _names(group) if key in values})
                for name, group in GROUPS.items()
            }
        )
        check_combination(config, given)
        return config


def _with_small_cnn_defaults(group: Any) -> Any:
    """Return the group with SMALL_CNN_DEFAULTS for the options that were not passed to it."""
    absent = set(_names(type(group))) - group.given
    return replace(group, **{k: v for k, v in SMALL_CNN_DEFAULTS.items() if k in absent})


def _names(group: type) -> list[str]:
    return [field.name for field in fields(group)]


def _changed_options(config: TrainConfig) -> set[str]:
    """Return the names of the options whose values differ from all their defaults."""
    changed = set()
    for group in (config.data, config.encoder, config.model, config.training, config.run):
        for field in fields(group):
            defaults = (field.default, SMALL_CNN_DEFAULTS.get(field.name, field.default))
            if getattr(group, field.name) not in defaults:
                changed.add(field.name)
    return changed


def check_combination(config: TrainConfig, given: Collection[str]) -> None:
    """Raise InputError if an option in `given` has no effect in combination with the others."""
    starts = config.run.start_from is not None
    if starts and config.encoder.encoder_weights is not None:
        raise InputError(
            "--encoder-weights cannot be combined with --start-from, "
            "which provides the encoder's weights"
        )
    fine_tunes = config.encoder.fine_tune_encoder is not None
    trains_encoder = fine_tunes if starts else config.encoder.trains
    has_data, attends = config.data.data is not None, config.model.attention
    needs = {
        "annotation_size": (attends, "--attention"),
        "attention_size": (attends, "--attention"),
        "coverage_weight": (attends, "--attention"),
        "hard_attention": (attends, "--attention"),
        "format": (has_data, "--data"),
        "on_error": (has_data, "--data"),
        "encoder_learning_rate": (trains_encoder, "a trained encoder; pass --fine-tune-encoder"),
        "self_critical": (starts, "a trained model; pass --start-from"),
        "cross_entropy_share": (config.training.self_critical, "--self-critical"),
    }
    for name, (met, requirement) in needs.items():
        if name in given and not met:
            raise InputError(f"{_flag(name)} needs {requirement}")
    conflicts = {
        "min_count": (starts, "--start-from, which provides the vocabulary"),
        "teachers": (config.training.self_critical, "--self-critical"),
        "scheduled_sampling": (config.training.self_critical, "--self-critical"),
    }
    for name, (conflict, other) in conflicts.items():
        if name in given and conflict:
            raise InputError(f"{_flag(name)} cannot be combined with {other}")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
