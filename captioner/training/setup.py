"""Everything one training run needs, built from its configuration."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import distributed
from ..checkpoints import checkpoint, hub
from ..checkpoints.checkpoint import Checkpoint
from ..checkpoints.runs import open_run, open_source, run_directory
from ..data.dataset import CaptionData, Example, fingerprint
from ..data.images import Transform
from ..data.inspection import drop_corrupt_images
from ..data.readers import load_data
from ..data.sources import ImageSource, Source
from ..data.storage import files as storage
from ..devices import device_of
from ..distributed import say
from ..errors import InputError
from ..metrics.captions import WITHOUT_JAVA, select_metrics
from ..models.base import CaptionModel
from ..models.captioning.build import CaptioningModel, build_model
from ..options import to_dict
from ..text.tokenizer import split_words
from ..text.vocabulary import Vocabulary
from ..vision.encoders import build_encoder, check_encoder
from ..vision.feature_store import FeatureStore, Runtime
from .config import DataOptions, TrainConfig
from .teachers import open_teachers

CALIBRATION = 1000  # images
USED_SPLITS = ("train", "val")


@dataclass(frozen=True)
class SplitData:
    """The examples of a split and the source of their images or feature maps, in the same order."""

    examples: list[Example]
    images: Source


@dataclass(frozen=True)
class TrainingSetup:
    """Everything one training run needs.

    checkpoint_config: the config stored in checkpoints. resumed: the checkpoint from which the
    run continues, if any. teacher: the model to distil from, if any.
    """

    config: TrainConfig
    device: torch.device
    run: Path
    data: CaptionData
    checkpoint_config: dict[str, Any]
    vocabulary: Vocabulary
    model: CaptioningModel
    training: SplitData
    held_out: SplitData
    resumed: Checkpoint | None
    teacher: CaptionModel | None


def build_setup(config: TrainConfig, device: torch.device) -> TrainingSetup:
    """Read the data, build the vocabulary and model, and compute features of a frozen encoder.

    User errors are detected before the slow steps.
    """
    epoch_metrics(config.training.watch)  # raises InputError if METEOR is watched without Java
    check_encoder(config.encoder, pretrained=config.run.start_from is not None)
    options = config.data
    original = load_data(options.data, options.format, options.cache, options.on_error)
    transform = Transform(config.encoder.image_size)
    teachers = [hub.local(path) for path in config.run.teachers]
    described = checkpoint_config(config, original, transform, teachers)
    run = run_directory(config.run.run or f"{original.name}-{config.model.name}")
    resumed = open_run(run, config.run.resume, described)
    start = resumed or _open_start(config, described)
    for split in USED_SPLITS:  # raises InputError for an empty split before images are decoded
        original.split(split)
    data, corrupt = drop_corrupt_images(
        original, USED_SPLITS, options.on_error, options.cache, options.workers
    )
    described = with_corrupt_images(described, corrupt, resumed)
    training, held_out = (data.split(split) for split in USED_SPLITS)
    say(data.summary())
    vocabulary = start.vocabulary if start else build_vocabulary(training, options)
    model = make_model(config, len(vocabulary), start).to(device)
    teacher = None
    if teachers:  # raises InputError for unsuitable teachers before features are computed
        teacher = open_teachers(teachers, model, vocabulary, transform).to(device)
    training_data = open_split(model, training, transform, options, device)
    if start is None:
        model.calibrate(sample_maps(model, training_data.images, len(training)))
    return TrainingSetup(
        config=config,
        device=device,
        run=run,
        data=data,
        checkpoint_config=described,
        vocabulary=vocabulary,
        model=model,
        training=training_data,
        held_out=open_split(model, held_out, transform, options, device),
        resumed=resumed,
        teacher=teacher,
    )


def _open_start(config: TrainConfig, described: dict[str, Any]) -> Checkpoint | None:
    """Open the checkpoint of --start-from, if any."""
    path = config.run.start_from
    return None if path is None else open_source(hub.local(path), described)


def checkpoint_config(
    config: TrainConfig, data: CaptionData, transform: Transform, teachers: Sequence[Path]
) -> dict[str, Any]:
    """Return the config stored in checkpoints: plain values, with options by group."""
    start_from = config.run.start_from
    return {
        "task": "captioning",
        "start_from": None if start_from is None else str(start_from),
        "encoder": to_dict(config.encoder),
        "model": to_dict(config.model),
        "transform": json.loads(json.dumps(asdict(transform))),
        "training": to_dict(config.training),
        "data": {
            "name": data.name,
            "format": data.format,
            "path": None if config.data.data is None else str(storage.absolute(data.root)),
            "on_error": config.data.on_error,
            "min_count": config.data.min_count,
            "fingerprint": fingerprint(data),
        },
        "teachers": [{"path": str(path), "weights": checkpoint.identity(path)} for path in teachers]
        or None,
    }


def with_corrupt_images(
    described: dict[str, Any], ids: list[int | str], resumed: Checkpoint | None
) -> dict[str, Any]:
    """Return the checkpoint config with the ids of images that cannot be decoded, as "left_out".

    Raises InputError if the resumed run omitted different images.
    """
    before = ids if resumed is None else resumed.config["data"].get("left_out", [])
    if ids != before:
        raise InputError(
            f"{resumed and resumed.path} cannot be resumed: {len(before)} images could not be "
            f"decoded when the run began ({before[:10]}), but {len(ids)} cannot be decoded now "
            f"({ids[:10]}); restore the images or start a new run"
        )
    return {**described, "data": {**described["data"], "left_out": ids}}


def build_vocabulary(training: Sequence[Example], options: DataOptions) -> Vocabulary:
    """Build the vocabulary of the training captions."""
    captions = (split_words(text) for example in training for text in example.captions)
    return Vocabulary.build(captions, options.min_count)


def make_model(
    config: TrainConfig, vocabulary_size: int, start: Checkpoint | None
) -> CaptioningModel:
    """Build the configured model, with the weights of the checkpoint `start` if it is given."""
    options = config.encoder
    torch.manual_seed(config.training.seed)
    encoder = build_encoder(
        options.encoder,
        options.encoder_weights,
        fine_tune_from=options.fine_tune_encoder,
        pretrained=config.run.start_from is not None,
    )
    model = build_model(encoder, vocabulary_size, config.model)
    if start:
        load_checkpoint_weights(model, start)
    if encoder.frozen and not encoder.pretrained:
        say(f"note: {options.encoder} is frozen with random weights; pass --encoder-weights")
    say(
        f"{config.model.name} with {'frozen' if encoder.frozen else 'trained'} "
        f"{options.encoder}, {vocabulary_size} words, "
        f"{sum(p.numel() for p in model.parameters() if p.requires_grad):,} trained parameters"
    )
    return model


def load_checkpoint_weights(model: nn.Module, source: Checkpoint) -> None:
    """Load a checkpoint's weights into the model; buffers missing from the checkpoint are kept.

    Raises InputError if parameters are missing or unexpected.
    """
    try:
        missing, unexpected = model.load_state_dict(source.weights, strict=False)
    except RuntimeError as error:
        reason = " ".join(str(error).split())  # torch's message spans many lines
        raise InputError(f"the weights of {source.path} do not fit the model: {reason}") from error
    parameters = dict(model.named_parameters())
    problems = [f"{name} is missing" for name in missing if name in parameters]
    problems += [f"{name} is unexpected" for name in unexpected]
    if problems:
        raise InputError(
            f"the weights of {source.path} do not fit the model: {'; '.join(problems[:5])}"
        )


def sample_maps(model: CaptioningModel, images: Source, count: int) -> Iterator[Tensor]:
    """Yield feature maps (B, D, h, w) of at most CALIBRATION evenly spaced images of `count`."""
    device, chosen = device_of(model), range(0, count, -(-count // CALIBRATION))
    for first in range(0, len(chosen), 64):
        values = images.load(chosen[first : first + 64]).to(device)
        yield values if images.are_features else model.encoder(values)


def open_split(
    model: CaptioningModel,
    examples: list[Example],
    transform: Transform,
    options: DataOptions,
    device: torch.device,
) -> SplitData:
    """Return the examples with feature maps if the encoder is frozen, and with images otherwise."""
    files = ImageSource([example.path for example in examples], transform)
    if not model.encoder.frozen:
        return SplitData(examples, files)

    store = FeatureStore(options.cache, model.encoder, transform)
    runtime = Runtime(device, options.workers)
    if distributed.is_first():  # computes the features before the other processes read them
        store.open_files(files, runtime)
    distributed.barrier()
    return SplitData(examples, store.open_files(files, runtime))


def epoch_metrics(watch: str) -> tuple[str, ...]:
    """Return the metrics to compute after each epoch; METEOR, which is slow, only if watched."""
    return select_metrics((*WITHOUT_JAVA, watch))
