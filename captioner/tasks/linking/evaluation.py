"""Evaluate a linking checkpoint on a split, and print and save its scores."""

from collections.abc import Sequence
from pathlib import Path

from ...checkpoints.checkpoint import Checkpoint
from ...checkpoints.runs import evaluation_directory
from ...data.dataset import split_name
from ...data.sources import Source
from ...devices import pick_device
from ...errors import InputError
from ...evaluation.inputs import (
    SCORES_FILE,
    load_split,
    make_directory,
    open_features,
    write_json,
)
from ...evaluation.options import EvaluationRequest
from ...linker import Linker
from .job import read_image_rows
from .vectors import given_image_vectors, score_split


def evaluate_checkpoints(checkpoints: Sequence[Checkpoint], request: EvaluationRequest) -> None:
    """Score one checkpoint's retrieval on a split; print the scores and write scores.json.

    Raises InputError for user errors, including more than one checkpoint.
    """
    if len(checkpoints) > 1:
        raise InputError("linking models cannot form an ensemble; pass one checkpoint")
    (read,), options = checkpoints, request.evaluation
    split = split_name(options.split)
    pick_device(request.runtime.device)  # raises InputError before images are decoded
    data, _ = load_split(options, read.config, split)
    linker = Linker.from_checkpoint(read, request.runtime.device)
    directory = options.output or evaluation_directory(read.path, split)
    make_directory(directory, "--output")
    encoder, examples = linker.model.encoder, data.split(split)
    if encoder is None:
        rows = read_image_rows(Path(read.config[read.task]["image_vectors"]), data)
        assert rows is not None
        images: Source = given_image_vectors(rows, data, split)
    else:
        images = open_features(encoder, linker.transform, examples, options, "pooled")
    result = score_split(linker, images, data, split, options.batch_size)
    print(f"{read.path} on {data.name}, {split} split, {len(examples)} images")
    print(result.describe())
    write_json(directory / SCORES_FILE, result.content)
    print(f"scores: {directory}")
