"""Evaluate a spatial checkpoint: labels and retrieval on a split, and masks of objects."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...checkpoints.checkpoint import Checkpoint
from ...checkpoints.runs import evaluation_directory
from ...data.dataset import split_name
from ...data.masks import open_masks
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
from .label_scores import score_spatial
from .segments import score_demo, score_masks


def evaluate_checkpoints(checkpoints: Sequence[Checkpoint], request: EvaluationRequest) -> None:
    """Score one checkpoint on a split, or on masks with --masks; print and save the scores.

    On a split of the demo, the maps of shapes are also scored. Raises InputError for user errors,
    including more than one checkpoint.
    """
    if len(checkpoints) > 1:
        raise InputError("'spatial' models cannot form an ensemble; pass one checkpoint")
    (read,), options = checkpoints, request.evaluation
    split = split_name(options.split)
    pick_device(request.runtime.device)  # raises InputError before images are decoded
    masks = None if options.masks is None else open_masks(options.masks, split)
    linker = Linker.from_checkpoint(read, request.runtime.device)
    directory = options.output or evaluation_directory(read.path, split)
    make_directory(directory, "--output")
    content: dict[str, Any]
    if masks is not None:
        segments = score_masks(linker, masks, options.threshold, options.refine)
        print(f"{read.path} on {options.masks}, {len(masks.images)} images")
        print(segments.describe())
        content = segments.content
    else:
        data, _ = load_split(options, read.config, split)
        examples = data.split(split)
        encoder, tags = linker.model.encoder, read.config[read.task]["tags"]
        assert encoder is not None
        images = open_features(encoder, linker.transform, examples, options, "maps")
        result = score_spatial(linker, images, data, split, tags and Path(tags), options.batch_size)
        print(f"{read.path} on {data.name}, {split} split, {len(examples)} images")
        print(result.describe())
        content = result.content
        if shapes := score_demo(linker, data, split, options.threshold, options.refine):
            print(shapes.describe())
            content |= {"shapes": shapes.content}
    write_json(directory / SCORES_FILE, content)
    print(f"scores: {directory}")
