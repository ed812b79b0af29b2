"""Two of the linking tasks: linear maps of frozen vectors, and the joint embedding."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ...errors import InputError
from ...models.linking.options import RANDOM_NEGATIVE, JointOptions, LinearOptions
from ...options import option_names, to_dict
from ...retrieval.reranking import RerankOptions
from ...text.options import FITTED, REDUCED
from ...text.word_vectors import is_vector_file, split_weighting
from ...vision.options import SMALL_CNN
from ..options import OptionGroups, TrainingOptions
from ..task import Job, JobInputs, Task
from .options import RECIPES, WORD2VEC, JointTaskOptions, LinearTaskOptions

if TYPE_CHECKING:
    from ...checkpoints.checkpoint import Checkpoint
    from ...evaluation.options import EvaluationRequest
    from ...linker import Linker

RECALLS = tuple(f"{way}_R@{k}" for way in ("i2t", "t2i") for k in (1, 5, 10))
SCORES = ("rsum_equal_texts", "rsum", *RECALLS)
QUERY_FLAGS = frozenset({"queries", "concepts", "failures"})  # of evaluation
EVALUATION_FLAGS = QUERY_FLAGS | frozenset(option_names(RerankOptions))
NO_SAMPLES = frozenset({"samples", "heatmaps"})
# Kiros et al. 2015 train for 15 epochs with batches of 100.
DEFAULTS: dict[str, int | float] = {"batch_size": 100, "epochs": 15, "learning_rate": 1e-3}


def linear_options(groups: OptionGroups) -> tuple[LinearOptions, LinearTaskOptions]:
    """Return the options of the linear maps, with their types."""
    assert isinstance(groups.model, LinearOptions)
    assert isinstance(groups.task, LinearTaskOptions)
    return groups.model, groups.task


def _idle_linear(groups: OptionGroups) -> dict[str, str]:
    (model, options), starts = linear_options(groups), groups.run.start_from is not None
    idle = dict.fromkeys(LINEAR.hidden, "has no effect with --system linear")
    if model.solver == "cca":
        trained = (*option_names(TrainingOptions), "margin", "logger", "tensorboard", "curves")
        trained += ("resume", "start_from")
        idle = dict.fromkeys(trained, "needs --solver ranking") | idle
    else:
        idle |= dict.fromkeys(("ridge", "correlation_power"), "needs --solver cca")
    if not any(source in REDUCED for source in options.text_vectors):
        idle |= {"text_dimensions": f"needs one of these --text-vectors: {', '.join(REDUCED)}"}
    if not any(s in FITTED or is_vector_file(split_weighting(s)[0]) for s in options.text_vectors):
        idle |= {"text_min_count": "needs --text-vectors that depend on the words of the captions"}
    if starts:
        given = "cannot be combined with --start-from, which provides the sentence encoder"
        idle |= dict.fromkeys(("text_vectors", "text_min_count", "text_dimensions"), given)
    if options.image_vectors is not None:
        replaced = "cannot be combined with --image-vectors, which replaces the encoder"
        idle |= dict.fromkeys(("encoder", "encoder_weights", "image_size"), replaced)
    return idle


def _check_linear(groups: OptionGroups) -> None:
    from ...text.given_rows import open_rows
    from .text_vectors import check_sentence_encoder

    _, options = linear_options(groups)
    encoder, starts = groups.encoder, groups.run.start_from is not None
    if options.image_vectors is not None:
        open_rows(options.image_vectors, "image vectors")
    elif encoder.encoder == SMALL_CNN and encoder.encoder_weights is None and not starts:
        raise InputError(
            "--system linear needs a trained encoder; pass a captioner's run as --encoder-weights, "
            "e.g. checkpoints/demo-attention, or a torchvision CNN and its weights, e.g. --encoder "
            "mobilenet_v2 --encoder-weights DEFAULT"
        )
    if not starts:
        check_sentence_encoder(options)


def joint_options(groups: OptionGroups) -> tuple[JointOptions, JointTaskOptions]:
    """Return the options of the joint embedding, with their types."""
    assert isinstance(groups.model, JointOptions)
    assert isinstance(groups.task, JointTaskOptions)
    return groups.model, groups.task


def _idle_joint(groups: OptionGroups) -> dict[str, str]:
    (model, options), starts = joint_options(groups), groups.run.start_from is not None
    idle = dict.fromkeys(JOINT.hidden, "has no effect with --system joint")
    if model.loss == "infonce":
        idle["margin"] = "needs --loss hinges, hardest or random-negative"
    else:
        idle |= dict.fromkeys(("temperature", "subtraction_weight"), "needs --loss infonce")
    if not options.short_texts:
        idle["subtraction_weight"] = "needs --short-texts"
    if model.loss != "hardest":
        idle["warm_up_epochs"] = "needs --loss hardest"
    if model.loss == RANDOM_NEGATIVE:
        none = f"has no effect with --loss {RANDOM_NEGATIVE}"
        idle |= dict.fromkeys(("short_texts", "opposites"), none)
    elif options.text_vectors:
        made = ("short_texts", "opposites", "subtraction_weight")
        idle |= dict.fromkeys(made, "cannot be combined with --text-vectors")
    if starts:
        given = "cannot be combined with --start-from, which provides the words and their vectors"
        own = ("text_min_count", "max_words", "word_vectors", "text_vectors", "text_dimensions")
        idle |= dict.fromkeys(own, given)
    if options.image_vectors is not None:
        replaced = "cannot be combined with --image-vectors, which replaces the encoder"
        names = ("encoder", "encoder_weights", "image_size", "fine_tune_encoder")
        idle |= dict.fromkeys((*names, "image_grid", "image_scaling"), replaced)
    return idle


def _check_joint(groups: OptionGroups) -> None:
    from ...text.given_rows import open_rows
    from ...text.options import TextVectorOptions
    from .text_vectors import check_sentence_encoder, check_word_vectors

    _, options = joint_options(groups)
    if options.image_vectors is not None:
        open_rows(options.image_vectors, "image vectors")
    sources, words = options.text_vectors, options.word_vectors
    if words is not None:
        check_word_vectors(words, (WORD2VEC,))
    if groups.run.start_from is None and sources:
        check_sentence_encoder(TextVectorOptions(text_vectors=sources))


def _stored(name: str, groups: OptionGroups) -> dict[str, Any]:
    options = to_dict(groups.task)
    lists = {key: list(value) for key, value in options.items() if isinstance(value, tuple)}
    return {name: options | lists}  # as JSON has it


def _build_joint(inputs: JobInputs) -> Job:
    from .joint import JointJob

    return JointJob(inputs)


def _build_linear(inputs: JobInputs) -> Job:
    from .linear import LinearJob

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
    model_name=lambda groups: f"linear-{linear_options(groups)[0].solver}",
    defaults=DEFAULTS,
    hidden=frozenset({*NO_SAMPLES, "fine_tune_encoder", "encoder_learning_rate"}),
    idle_options=_idle_linear,
    check_inputs=_check_linear,
    stored=partial(_stored, "linear"),
    build=_build_linear,
    load=_load,
    evaluate=_evaluate,
    evaluation_flags=EVALUATION_FLAGS,
)

JOINT = Task(
    name="joint",
    title="joint embedding of images and sentences",
    model_options=JointOptions,
    options=JointTaskOptions,
    architecture=(
        "dimensions",
        "word_size",
        "hidden_size",
        "image_grid",
        "scale_inputs",
        "word_sum",
        "text_layer",
    ),
    scores=SCORES,
    unit="texts",
    model_name=lambda groups: f"joint-{joint_options(groups)[0].loss}",
    defaults={
        **{"batch_size": 512, "epochs": 8, "learning_rate": 3e-3},
        **{"average": 0.98, "weight_decay": 0.1},
    },
    hidden=NO_SAMPLES,
    small_cnn_defaults={
        **{"image_size": 96, "batch_size": 32, "epochs": 9},
        **{"encoder_learning_rate": 3e-3, "weight_decay": 0.01, "subtraction_weight": 0.5},
        **{"dimensions": 128, "word_size": 64, "hidden_size": 96, "dropout": 0.1},
        **{"image_grid": 4, "image_scaling": "none", "scale_inputs": True},
    },
    recipes=RECIPES,
    idle_options=_idle_joint,
    check_inputs=_check_joint,
    stored=partial(_stored, "joint"),
    build=_build_joint,
    load=_load,
    evaluate=_evaluate,
    evaluation_flags=EVALUATION_FLAGS,
)
