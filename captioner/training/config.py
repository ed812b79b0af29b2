"""The flags of train.py: groups of options, which defaults hold, what does not go together."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoints.runs import CHECKPOINTS
from ..data.readers import ON_ERROR, READERS
from ..errors import InputError
from ..models.captioning.options import ModelOptions
from ..options import add_options, check_at_least, from_arguments, given_flags, option
from ..prefetch import WORKERS
from ..vision.encoders import SMALL_CNN, EncoderOptions
from .optimization import TrainingOptions

# What suits an encoder that is learned from scratch on small images: a smaller decoder, too.
SMALL_RECIPE = {
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
class DataOptions:
    """What to train on."""

    data: Path | None = option(None, "data directory or file [the generated demo data]")
    format: str | None = option(None, "force the layout of the data", choices=tuple(READERS))
    on_error: str = option(
        "stop", "rows that cannot be used: stop at them, or skip and list them", choices=ON_ERROR
    )
    min_count: int = option(5, "words that occur less often in training captions are <unk>")
    workers: int = option(WORKERS, "threads that load ahead")
    cache: Path = option(CHECKPOINTS / ".cache", "directory of feature maps and demo images")

    def __post_init__(self) -> None:
        check_at_least(self, 1, "min_count")
        check_at_least(self, 0, "workers")


@dataclass(frozen=True)
class RunOptions:
    """Where the run lives, and who may watch it."""

    run: str | None = option(None, "name of the run [from data and model]")
    resume: bool = option(False, "continue the run exactly where it was saved last")
    start_from: Path | None = option(
        None, "run or checkpoint whose weights and words to begin with"
    )
    teachers: tuple[Path, ...] = option(
        (), "runs or checkpoints to learn from beside the captions, together"
    )
    device: str | None = option(None, "cpu, cuda or cuda:N [cuda where there is one]")
    tensorboard: bool = option(False, "write the run's numbers and samples for TensorBoard, too")


GROUPS = {
    "data": DataOptions,
    "encoder": EncoderOptions,
    "model": ModelOptions,
    "training": TrainingOptions,
    "run": RunOptions,
}


def parse(argv: Sequence[str] | None) -> dict[str, Any]:
    """The options of each group. The encoder named decides some of the defaults."""
    parser = argparse.ArgumentParser(
        description="Train a captioning model on the generated demo data or on --data.",
        epilog="With small_cnn, the encoder unless one is named, other defaults hold: "
        + ", ".join(f"{name} {value}" for name, value in SMALL_RECIPE.items())
        + ".",
    )
    for title, cls in GROUPS.items():
        add_options(parser, cls, title)
    arguments = parser.parse_args(argv)
    given = given_flags(parser, argv)
    if arguments.encoder == SMALL_CNN:
        vars(arguments).update({k: v for k, v in SMALL_RECIPE.items() if k not in given})
    options: dict[str, Any] = {
        title: from_arguments(cls, arguments) for title, cls in GROUPS.items()
    }
    refuse_idle_flags(given, options)
    return options


def refuse_idle_flags(given: set[str], options: dict[str, Any]) -> None:
    """A flag that would do nothing beside the others is a mistake; raises InputError."""
    encoder: EncoderOptions = options["encoder"]
    started = options["run"].start_from is not None
    if started and encoder.encoder_weights is not None:
        raise InputError("--start-from brings the encoder's weights, too; drop --encoder-weights")
    trains = encoder.fine_tune_encoder is not None if started else encoder.trains
    needs = {
        "annotation_size": (options["model"].attention, "--attention"),
        "attention_size": (options["model"].attention, "--attention"),
        "coverage_weight": (options["model"].attention, "--attention"),
        "hard_attention": (options["model"].attention, "--attention"),
        "format": (options["data"].data is not None, "--data"),
        "on_error": (options["data"].data is not None, "--data"),
        "encoder_learning_rate": (trains, "a trained encoder: --fine-tune-encoder"),
        "min_count": (not started, "a new vocabulary: --start-from has its own"),
        "self_critical": (started, "a model that can caption: --start-from"),
        "cross_entropy_share": (options["training"].self_critical, "--self-critical"),
        "teachers": (
            not options["training"].self_critical,
            "captions of people: --self-critical trains on sampled ones",
        ),
        "scheduled_sampling": (
            not options["training"].self_critical,
            "true words alone: --self-critical trains on sampled ones",
        ),
    }
    for name, (holds, what) in needs.items():
        if name in given and not holds:
            raise InputError(f"--{name.replace('_', '-')} needs {what}")
