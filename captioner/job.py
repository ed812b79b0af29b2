"""What a training works with, made from its options: data, vocabulary, model, pictures, the run it
goes on with; nothing here trains.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from . import checkpoint, distributed, metrics
from .batches import Pictures
from .captioning import CaptioningModel, build_model, standardize_maps
from .data import CaptionData, Example
from .decodable import leave_undecodable
from .distillation import open_teachers
from .distributed import say
from .encoders import EncoderOptions, build_encoder
from .ensemble import Ensemble
from .features import PictureFiles, cached_features
from .images import Transform
from .runs.recipe import DataOptions
from .runs.run import (
    describe,
    leave_out,
    load_data,
    open_run,
    open_source,
    run_folder,
    take_weights,
)
from .sharing import hub
from .text import Vocabulary, split_words


@dataclass(frozen=True)
class Job:
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
    training_pictures: Pictures
    held_out_pictures: Pictures
    resumed: checkpoint.Checkpoint | None
    teacher: CaptioningModel | Ensemble | None


def prepare(options: dict[str, Any], device: torch.device) -> Job:
    """Read the data, build vocabulary, encoder and model, and compute features if it is frozen."""
    name = options["run"].run
    named = None if name is None else run_folder(name)
    watched_metrics(options["training"].watch)  # METEOR without Java fails here, before any work
    chosen: DataOptions = options["data"]
    data = load_data(chosen.data, chosen.format, chosen.cache, chosen.on_error)
    transform = Transform(options["encoder"].image_size)
    config = describe(options, data, transform)
    teachers = [hub.local(path) for path in options["run"].teachers]
    config["teachers"] = [
        {"path": str(path), "weights": checkpoint.identity(path)} for path in teachers
    ] or None
    run = named or run_folder(f"{data.name}-{options['model'].name}")
    start_from = options["run"].start_from
    resumed = open_run(run, options["run"].resume, config)
    source = resumed
    if start_from and not resumed:
        source = open_source(hub.local(start_from), config)
    used = ("train", "val")
    for split in used:  # both are there, before any picture is opened
        data.split(split)
    data, ids = leave_undecodable(data, used, chosen.on_error, chosen.cache, chosen.workers)
    leave_out(config, ids, resumed)
    training, held_out = (data.split(name) for name in used)
    say(data.summary())
    vocabulary = source.vocabulary if source else build_vocabulary(training, options["data"])
    model = make_model(options, len(vocabulary), source).to(device)
    teacher = None
    if teachers:  # told here, before any features are computed, if they cannot teach
        teacher = open_teachers(teachers, model, vocabulary, transform).to(device)

    def pictures(examples: list[Example]) -> Pictures:
        files = PictureFiles([example.path for example in examples], transform)
        return open_pictures(model, files, options["data"], device)

    training_pictures = pictures(training)
    if source is None:
        standardize_maps(model, training_pictures, len(training))
    return Job(
        options,
        device,
        run,
        data,
        config,
        vocabulary,
        model,
        training,
        held_out,
        training_pictures,
        pictures(held_out),
        resumed,
        teacher,
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
        take_weights(model, source)
    if encoder.frozen and not encoder.pretrained:
        say(f"note: {chosen.encoder} is frozen with random weights; see --encoder-weights")
    say(
        f"{options['model'].name} with {'frozen' if encoder.frozen else 'trained'} "
        f"{chosen.encoder}, {vocabulary_size} words, "
        f"{sum(p.numel() for p in model.parameters() if p.requires_grad):,} trained parameters"
    )
    return model


def open_pictures(
    model: CaptioningModel,
    files: PictureFiles,
    options: DataOptions,
    device: torch.device,
) -> Pictures:
    """Feature maps from the cache for a frozen encoder, else the pictures themselves."""
    if not model.encoder.frozen:
        tars, window = files.tars(), files.window()
        return Pictures(files.load, are_features=False, tars=tars, window=window)

    def cache() -> Pictures:
        features = cached_features(
            options.cache, model.encoder, files, device=device, workers=options.workers
        )
        return Pictures(features.load, are_features=True)

    if distributed.is_first():
        cache()
    distributed.barrier()
    return cache()


def watched_metrics(watch: str) -> tuple[str, ...]:
    """What every epoch is scored by: METEOR, whose Java takes its time, only if it is watched."""
    return metrics.chosen((*metrics.WITHOUT_JAVA, watch))
