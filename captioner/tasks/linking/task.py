"""The linear task: linear maps of frozen image and text vectors into one space."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import InputError
from ...models.linking.options import LinearOptions
from ...options import option_names, to_dict
from ...text.options import FITTED, REDUCED
from ...text.word_vectors import is_vector_file
from ...vision.options import SMALL_CNN
from ..options import OptionGroups, TrainingOptions
from ..task import Job, JobInputs, Task
from .options import LinearTaskOptions

if TYPE_CHECKING:
    from ...checkpoints.checkpoint import Checkpoint
    from ...evaluation.options import EvaluationRequest
    from ...linker import Linker

SCORES = ("rsum", *(f"{way}_R@{k}" for way in ("i2t", "t2i") for k in (1, 5, 10)))
# Kiros et al. 2015 train for 15 epochs with batches of 100.
DEFAULTS: dict[str, int | float] = {"batch_size": 100, "epochs": 15, "learning_rate": 1e-3}
NO_EFFECT = "has no effect with --system linear"


def options_of(groups: OptionGroups) -> tuple[LinearOptions, LinearTaskOptions]:
    """Return the options of the linear map, with their types."""
    assert isinstance(groups.model, LinearOptions)
    assert isinstance(groups.task, LinearTaskOptions)
    return groups.model, groups.task


def _idle_options(groups: OptionGroups) -> dict[str, str]:
    (model, options), starts = options_of(groups), groups.run.start_from is not None
    idle = dict.fromkeys(("samples", "heatmaps", "fine_tune_encoder"), NO_EFFECT)
    idle |= {"encoder_learning_rate": "has no effect: --system linear trains no encoder"}
    if model.solver == "cca":
        trained = (*option_names(TrainingOptions), "margin", "tensorboard", "curves")
        trained += ("resume", "start_from")
        idle = dict.fromkeys(trained, "needs --solver ranking") | idle
    else:
        idle |= dict.fromkeys(("ridge", "correlation_power"), "needs --solver cca")
    if not any(source in REDUCED for source in options.text_vectors):
        idle |= {"text_dimensions": f"needs --text-vectors {' or '.join(REDUCED)}"}
    if not any(source in FITTED or is_vector_file(Path(source)) for source in options.text_vectors):
        idle |= {"text_min_count": "needs --text-vectors that depend on the words of the captions"}
    if starts:
        given = "cannot be combined with --start-from, which provides the sentence encoder"
        idle |= dict.fromkeys(("text_vectors", "text_min_count", "text_dimensions"), given)
    if options.image_vectors is not None:
        replaced = "cannot be combined with --image-vectors, which replaces the encoder"
        idle |= dict.fromkeys(("encoder", "encoder_weights", "image_size"), replaced)
    return idle


def _check_inputs(groups: OptionGroups) -> None:
    from ...text.given_rows import open_rows
    from .text_vectors import check_sentence_encoder

    _, options = options_of(groups)
    encoder, starts = groups.encoder, groups.run.start_from is not None
    if options.image_vectors is not None:
        open_rows(options.image_vectors, "image vectors")
    elif encoder.encoder == SMALL_CNN and encoder.encoder_weights is None and not starts:
        raise InputError(
            "--system linear needs a trained encoder: pass --encoder-weights with the run of a "
            "captioner, such as checkpoints/demo-attention, or another --encoder with its weights"
        )
    if not starts:
        check_sentence_encoder(options)


def _stored(groups: OptionGroups) -> dict[str, Any]:
    _, options = options_of(groups)
    return {LINEAR.name: {**to_dict(options), "text_vectors": list(options.text_vectors)}}


def _build(inputs: JobInputs) -> Job:
    from .job import LinearJob

    return LinearJob(inputs)


def _load(checkpoint: "Checkpoint", device: str | None) -> "Linker":
    from ...linker import Linker

    return Linker.from_checkpoint(checkpoint, device)


def _evaluate(checkpoints: "Sequence[Checkpoint]", request: "EvaluationRequest") -> None:
    from .evaluation import evaluate_checkpoints

    evaluate_checkpoints(checkpoints, request)


LINEAR = Task(
    name="linear",
    title="linking of images and texts by linear maps",
    model_options=LinearOptions,
    options=LinearTaskOptions,
    architecture=("solver", "dimensions"),
    scores=SCORES,
    unit="texts",
    model_name=lambda groups: f"linear-{options_of(groups)[0].solver}",
    defaults=DEFAULTS,
    idle_options=_idle_options,
    check_inputs=_check_inputs,
    stored=_stored,
    build=_build,
    load=_load,
    evaluate=_evaluate,
)
