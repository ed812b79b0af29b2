"""What a training works with, made from its options: data, vocabulary, model, images, the run it
goes on with; nothing here trains.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import distributed
from ..checkpoints import checkpoint, hub
from ..checkpoints.checkpoint import restore
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
from ..models.captioning.ensemble import Candidate, build_ensemble
from ..options import to_dict
from ..text.tokenizer import split_words
from ..text.vocabulary import Vocabulary
from ..vision.encoders import EncoderOptions, build_encoder
from ..vision.feature_cache import cached_features
from .config import DataOptions

CALIBRATION = 1000  # images


@dataclass(frozen=True)
class TrainingSetup:
    """All that training works with, once the options have been turned into things."""

    options: dict[str, Any]
    device: torch.device
    run: Path
    data: CaptionData
    config: dict[str, Any]
    vocabulary: Vocabulary
    model: CaptioningModel
    training: list[Example]
    held_out: list[Example]
    training_images: Source
    held_out_images: Source
    resumed: checkpoint.Checkpoint | None
    teacher: CaptionModel | None


def build_setup(options: dict[str, Any], device: torch.device) -> TrainingSetup:
    """Read the data, build vocabulary, encoder and model, and compute features if it is frozen."""
    name = options["run"].run
    named = None if name is None else run_directory(name)
    watched_metrics(options["training"].watch)  # METEOR without Java fails here, before any work
    chosen: DataOptions = options["data"]
    data = load_data(chosen.data, chosen.format, chosen.cache, chosen.on_error)
    transform = Transform(options["encoder"].image_size)
    config = describe(options, data, transform)
    teachers = [hub.local(path) for path in options["run"].teachers]
    config["teachers"] = [
        {"path": str(path), "weights": checkpoint.identity(path)} for path in teachers
    ] or None
    run = named or run_directory(f"{data.name}-{options['model'].name}")
    start_from = options["run"].start_from
    resumed = open_run(run, options["run"].resume, config)
    source = resumed
    if start_from and not resumed:
        source = open_source(hub.local(start_from), config)
    used = ("train", "val")
    for split in used:  # both are there, before any image is opened
        data.split(split)
    data, ids = drop_corrupt_images(data, used, chosen.on_error, chosen.cache, chosen.workers)
    leave_out(config, ids, resumed)
    training, held_out = (data.split(name) for name in used)
    say(data.summary())
    vocabulary = source.vocabulary if source else build_vocabulary(training, options["data"])
    model = make_model(options, len(vocabulary), source).to(device)
    teacher = None
    if teachers:  # told here, before any features are computed, if they cannot teach
        teacher = open_teachers(teachers, model, vocabulary, transform).to(device)

    def images(examples: list[Example]) -> Source:
        files = ImageSource([example.path for example in examples], transform)
        return open_images(model, files, options["data"], device)

    training_images = images(training)
    if source is None:
        model.calibrate(sample_maps(model, training_images, len(training)))
    return TrainingSetup(
        options,
        device,
        run,
        data,
        config,
        vocabulary,
        model,
        training,
        held_out,
        training_images,
        images(held_out),
        resumed,
        teacher,
    )


def describe(options: dict[str, Any], data: CaptionData, transform: Transform) -> dict[str, Any]:
    """The config that goes into checkpoints, in plain values; the options by group of flags."""
    source = options["run"].start_from
    return {
        "task": "captioning",
        "start_from": None if source is None else str(source),
        "encoder": to_dict(options["encoder"]),
        "model": to_dict(options["model"]),
        "transform": json.loads(json.dumps(asdict(transform))),
        "training": to_dict(options["training"]),
        "data": {
            "name": data.name,
            "format": data.format,
            "path": None if options["data"].data is None else str(storage.absolute(data.root)),
            "on_error": options["data"].on_error,
            "min_count": options["data"].min_count,
            "fingerprint": fingerprint(data),
        },
    }


def leave_out(
    config: dict[str, Any], ids: list[int | str], resumed: checkpoint.Checkpoint | None
) -> None:
    """Note in the config which images are not trained on, since they cannot be decoded.

    Raises InputError where the run that goes on was trained without others.
    """
    config["data"]["left_out"] = ids
    before = ids if resumed is None else resumed.config["data"].get("left_out", [])
    if ids != before:
        raise InputError(
            f"{resumed and resumed.path} cannot be continued: {len(before)} images could not be "
            f"decoded when it began, {before[:10]}, and {len(ids)} cannot now, {ids[:10]}"
        )


def build_vocabulary(training: Sequence[Example], options: DataOptions) -> Vocabulary:
    """The words of the training captions."""
    captions = (split_words(text) for example in training for text in example.captions)
    return Vocabulary.build(captions, options.min_count)


def make_model(
    options: dict[str, Any], vocabulary_size: int, source: checkpoint.Checkpoint | None
) -> CaptioningModel:
    """The model that the options describe, with the weights of `source` where there is one."""
    chosen: EncoderOptions = options["encoder"]
    torch.manual_seed(options["training"].seed)
    encoder = build_encoder(
        chosen.encoder,
        chosen.encoder_weights,
        fine_tune_from=chosen.fine_tune_encoder,
        pretrained=options["run"].start_from is not None,
    )
    model = build_model(encoder, vocabulary_size, options["model"])
    if source:
        load_checkpoint_weights(model, source)
    if encoder.frozen and not encoder.pretrained:
        say(f"note: {chosen.encoder} is frozen with random weights; see --encoder-weights")
    say(
        f"{options['model'].name} with {'frozen' if encoder.frozen else 'trained'} "
        f"{chosen.encoder}, {vocabulary_size} words, "
        f"{sum(p.numel() for p in model.parameters() if p.requires_grad):,} trained parameters"
    )
    return model


def load_checkpoint_weights(model: nn.Module, source: checkpoint.Checkpoint) -> None:
    """Give the model a checkpoint's weights; buffers that the checkpoint lacks stay as they are.

    Raises InputError where parameters are missing, or have no place.
    """
    try:
        missing, unknown = model.load_state_dict(source.weights, strict=False)
    except RuntimeError as error:
        reason = " ".join(str(error).split())  # torch's goes over many lines
        raise InputError(f"the weights of {source.path} do not fit: {reason}") from error
    parameters = dict(model.named_parameters())
    problems = [f"{name} is missing" for name in missing if name in parameters]
    problems += [f"{name} has no place" for name in unknown]
    if problems:
        raise InputError(f"the weights of {source.path} do not fit: {'; '.join(problems[:5])}")


def sample_maps(model: CaptioningModel, images: Source, count: int) -> Iterator[Tensor]:
    """Feature maps of up to CALIBRATION of the `count` training images, by batches."""
    device, chosen = device_of(model), range(0, count, -(-count // CALIBRATION))
    for first in range(0, len(chosen), 64):
        values = images.load(chosen[first : first + 64]).to(device)
        yield values if images.are_features else model.encoder(values)


def open_images(
    model: CaptioningModel,
    files: ImageSource,
    options: DataOptions,
    device: torch.device,
) -> Source:
    """Feature maps from the cache for a frozen encoder, else the images themselves."""
    if not model.encoder.frozen:
        return files

    def cache() -> Source:
        return cached_features(
            options.cache, model.encoder, files, device=device, workers=options.workers
        )

    if distributed.is_first():
        cache()
    distributed.barrier()
    return cache()


def watched_metrics(watch: str) -> tuple[str, ...]:
    """What every epoch is scored by: METEOR, whose Java takes its time, only if it is watched."""
    return select_metrics((*WITHOUT_JAVA, watch))


def open_teachers(
    paths: Sequence[Path], student: CaptioningModel, vocabulary: Vocabulary, transform: Transform
) -> CaptionModel:
    """The models of the checkpoints, several as an ensemble, in eval mode, to teach the student.

    transform: the student's. Raises InputError for one that knows other words, sees images
    otherwise, or cannot read the maps of the student's frozen encoder.
    """
    read = [checkpoint.load(path) for path in paths]
    for each in read:
        if each.vocabulary.words != vocabulary.words:
            raise InputError(f"{each.path} cannot teach: it was trained on other words")
    candidates = [Candidate(str(each.path), *restore(each), each.vocabulary) for each in read]
    for candidate in candidates:
        if candidate.transform != transform:
            raise InputError(
                f"{candidate.name} cannot teach: it takes images as {candidate.transform}, the new model "
                f"as {transform}"
            )
    if student.encoder.frozen:
        known = student.encoder.fingerprint()
        for candidate in candidates:
            if candidate.model.encoder.fingerprint() != known:
                raise InputError(
                    f"{candidate.name} cannot teach: its encoder is another than the frozen one whose "
                    "maps are learned from"
                )
    return build_ensemble(candidates).eval().requires_grad_(False)
