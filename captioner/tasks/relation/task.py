"""The task of relating images and texts."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...models.relation.options import RelationOptions
from ...options import to_dict
from ..options import OptionGroups
from ..task import Job, JobInputs, Task
from .options import (
    ACCURACY,
    AUTOENCODER,
    MACRO_F1,
    RECIPES,
    RECONSTRUCTION,
    RelationTaskOptions,
)

if TYPE_CHECKING:
    from ...checkpoints.checkpoint import Checkpoint
    from ...evaluation.options import EvaluationRequest
    from ...relation import RelationClassifier


def _idle(groups: OptionGroups) -> dict[str, str]:
    _, options = groups.of(RelationOptions, RelationTaskOptions)
    idle = dict.fromkeys(RELATION.hidden, "has no effect with --system relation")
    if options.recipe == AUTOENCODER:
        classifying = ("loss", "texts_per_image")
        idle |= dict.fromkeys(classifying, "has no effect with --recipe autoencoder")
    else:
        idle |= {"alignment": "needs --recipe autoencoder"}
        idle |= {"heatmaps": "needs --recipe autoencoder"}
    if groups.run.start_from is not None:
        given = "cannot be combined with --start-from, which provides the vocabulary"
        idle |= {"text_min_count": given}
    return idle


def _check(_: OptionGroups) -> None:
    """Do nothing: the task has no input files other than the data."""


def _stored(groups: OptionGroups) -> dict[str, Any]:
    return {RELATION.name: to_dict(groups.task)}


def _name(groups: OptionGroups) -> str:
    return "-".join(
        filter(None, ("relation", groups.of(RelationOptions, RelationTaskOptions)[1].recipe))
    )


def _build(inputs: JobInputs) -> Job:
    from .job import RelationJob

    return RelationJob(inputs)


def _load(checkpoint: "Checkpoint", device: str | None) -> "RelationClassifier":
    from ...relation import RelationClassifier

    return RelationClassifier.from_checkpoint(checkpoint, device)


def _evaluate(checkpoints: "Sequence[Checkpoint]", request: "EvaluationRequest") -> None:
    from .evaluation import evaluate_checkpoints

    evaluate_checkpoints(checkpoints, request)


RELATION = Task(
    name="relation",
    title="how an image and a text relate",
    model_options=RelationOptions,
    options=RelationTaskOptions,
    architecture=(
        *("word_size", "sentence_size", "article_size", "head_size"),
        *("support_groups", "image_hidden", "thumbnail_size"),
    ),
    scores=(ACCURACY, MACRO_F1, RECONSTRUCTION),
    unit="texts",
    model_name=_name,
    defaults={
        **{"batch_size": 32, "epochs": 5, "learning_rate": 3e-3},
        **{"average": 0.99, "weight_decay": 0.1, "texts_per_image": 6},
    },
    small_cnn_defaults={
        **{"epochs": 3, "encoder_learning_rate": 3e-3, "weight_decay": 0.01},
        **{"texts_per_image": 11},
        **{"image_grid": 8, "image_scaling": "none", "image_hidden": 128},
        **{"dropout": 0.1, "image_dropout": 0.0},
        **{"word_size": 32, "sentence_size": 64, "article_size": 128, "support_groups": 8},
    },
    recipes=RECIPES,
    hidden=frozenset({"samples"}),
    idle_options=_idle,
    check_inputs=_check,
    stored=_stored,
    build=_build,
    load=_load,
    evaluate=_evaluate,
)
