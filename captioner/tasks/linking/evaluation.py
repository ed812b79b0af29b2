"""Evaluate a linking checkpoint on a split, and print and save its scores."""

from collections.abc import Sequence
from pathlib import Path

from ...checkpoints.checkpoint import Checkpoint
from ...checkpoints.runs import evaluation_directory
from ...data.dataset import CaptionData, split_name
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
from ...evaluation.options import EvaluationOptions, EvaluationRequest
from ...evaluation.rerankers import load_reranker
from ...linker import Linker
from ...options import to_dict
from .job import read_image_rows
from .reranking import rerank_split
from .search import SearchInputs
from .vectors import given_image_vectors, rank_split, split_scores


def evaluate_checkpoints(checkpoints: Sequence[Checkpoint], request: EvaluationRequest) -> None:
    """Score one checkpoint's retrieval and search on a split; print and write the scores.

    If other models re-rank the results, scores are printed before and after re-ranking. Raises
    InputError for user errors, including more than one checkpoint.
    """
    if len(checkpoints) > 1:
        raise InputError(
            f"{checkpoints[0].task!r} models cannot form an ensemble; pass one checkpoint"
        )
    (read,), options = checkpoints, request.evaluation
    split = split_name(options.split)
    pick_device(request.runtime.device)  # raises InputError before images are decoded
    linker = Linker.from_checkpoint(read, request.runtime.device)
    search = SearchInputs.read(linker, read.path, options)
    data, _ = load_split(options, read.config, split)
    runtime = request.runtime
    reranker = load_reranker(request.reranking, options.cache, runtime.device, runtime.precision)
    directory = options.output or evaluation_directory(read.path, split)
    make_directory(directory, "--output")
    examples = data.split(split)
    images = _open_images(linker, read, data, split, options)
    rows = linker.encode_source(images, len(examples), batch_size=options.batch_size)
    scores = split_scores(linker, rows, data, split)
    result = rank_split(scores, scores, data, split)
    content = result.content
    print(f"{read.path} on {data.name}, {split} split, {len(examples)} images")
    print(result.describe())
    content |= search.score(linker, rows, examples, data)
    if reranker:
        top = request.reranking.rerank_top
        reranked = rerank_split(reranker, scores, data, split, top)
        models = [str(path) for path in request.reranking.rerank]
        print(f"\nthe best {top} of each query, re-ranked by {' + '.join(models)}:")
        print(reranked.describe())
        content["reranked"] = {**reranked.content, **to_dict(request.reranking), "rerank": models}
    write_json(directory / SCORES_FILE, content)
    print(f"scores: {directory}")


def _open_images(
    linker: Linker, read: Checkpoint, data: CaptionData, split: str, options: EvaluationOptions
) -> Source:
    """Return a split's images or their features, or the image vectors that the user computed."""
    encoder = linker.model.encoder
    if encoder is not None:
        examples = data.split(split)
        return open_features(encoder, linker.transform, examples, options, linker.model.features)
    rows = read_image_rows(Path(read.config[read.task]["image_vectors"]), data)
    assert rows is not None
    return given_image_vectors(rows, data, split)
