"""Evaluate m-CNN checkpoints on a split by the scores of all pairs; several form an ensemble."""

from collections.abc import Sequence

from ...checkpoints.checkpoint import Checkpoint
from ...checkpoints.runs import evaluation_directory
from ...data.dataset import split_name
from ...devices import pick_device
from ...evaluation.inputs import (
    SCORES_FILE,
    load_split,
    make_directory,
    open_features,
    write_json,
)
from ...evaluation.options import EvaluationRequest
from ...linker import Linker
from .pair_scores import evenly_spaced, score_all_pairs

RANKED_IMAGES = 200  # unless --ranked-images is given


def evaluate_checkpoints(checkpoints: Sequence[Checkpoint], request: EvaluationRequest) -> None:
    """Score the retrieval of one or more checkpoints on a split; print and save the scores.

    Up to --ranked-images images of the split are ranked. The score of a pair is the sum over the
    checkpoints. Raises InputError for user errors, including a checkpoint of another system beside
    an m-CNN.
    """
    options = request.evaluation
    split = split_name(options.split)
    pick_device(request.runtime.device)  # raises InputError before images are decoded
    for read in checkpoints:
        read.check_task("mcnn")
    linkers = [Linker.from_checkpoint(read, request.runtime.device) for read in checkpoints]
    directory = options.output or evaluation_directory(checkpoints[0].path, split)
    make_directory(directory, "--output")
    data, _ = load_split(options, checkpoints[0].config, split)
    all_examples = data.split(split)
    limit = RANKED_IMAGES if options.ranked_images is None else options.ranked_images
    positions = evenly_spaced(len(all_examples), limit or len(all_examples))
    examples = [all_examples[position] for position in positions]
    members = []
    for linker in linkers:
        model = linker.model
        assert model.encoder is not None
        images = open_features(model.encoder, linker.transform, examples, options, model.features)
        members.append((linker, images))
    result = score_all_pairs(
        members, examples, split, batch_size=options.batch_size, show_progress=True
    )
    names = " + ".join(str(read.path) for read in checkpoints)
    count = f"{len(examples)} of {len(all_examples)} images"
    print(f"{names} on {data.name}, {split} split, {count}")
    print(result.describe())
    write_json(directory / SCORES_FILE, result.content)
    print(f"scores: {directory}")
