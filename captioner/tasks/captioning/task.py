"""The captioning task: Show and Tell, and Show, Attend and Tell."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...decoding.options import DecodingOptions
from ...evaluation.options import ScoringOptions
from ...metrics.captions import SCORES
from ...models.captioning.options import ModelOptions
from ...options import option_names, to_dict
from ...text.tokenizer import WORDS, get_tokenizer
from ..options import OptionGroups
from ..task import Job, JobInputs, Task
from .options import DEFAULT_SCORE, CaptioningOptions, epoch_metrics

if TYPE_CHECKING:
    from ...captioner import Captioner
    from ...checkpoints.checkpoint import Checkpoint
    from ...evaluation.options import EvaluationRequest

# Defaults for small_cnn, which is trained from scratch on small images, and a smaller decoder.
SMALL_CNN_DEFAULTS: dict[str, int | float] = {
    "embedding_size": 128,
    "hidden_size": 256,
    "annotation_size": 0,
    "attention_size": 64,
    "dropout": 0.1,
    "label_smoothing": 0.0,
    "learning_rate": 3e-3,
    "encoder_learning_rate": 3e-3,
    "average": 0.98,
    "epochs": 8,
}
EVALUATION_FLAGS = frozenset(
    {
        *("report", "precision", "compile"),
        *option_names(ScoringOptions),
        *option_names(DecodingOptions),
    }
)
NEGLIGIBLE_BLEU = 0.02  # on a scale of 0 to 100; BLEU is not exactly 0 if no n-gram matches


def _idle_options(groups: OptionGroups) -> dict[str, str]:
    model, options = groups.of(ModelOptions, CaptioningOptions)
    starts = groups.run.start_from is not None
    attends = (model.attention, "needs --attention")
    supervised = (not options.self_critical, "cannot be combined with --self-critical")
    conditions = {
        "annotation_size": attends,
        "attention_size": attends,
        "coverage_weight": attends,
        "hard_attention": attends,
        "self_critical": (starts, "needs a trained model; pass --start-from"),
        "cross_entropy_share": (options.self_critical, "needs --self-critical"),
        "min_count": (
            not starts,
            "cannot be combined with --start-from, which provides the vocabulary",
        ),
        "tokenizer": (
            not starts or options.tokenizer not in ("words", "characters"),
            "cannot be combined with --start-from, which provides the tokenizer",
        ),
        "teachers": supervised,
        "scheduled_sampling": supervised,
    }
    return {name: reason for name, (met, reason) in conditions.items() if not met}


def _check_inputs(groups: OptionGroups) -> None:
    from ...vision.encoders import encoder_transform
    from .teachers import read_teachers

    epoch_metrics(groups.training.watch)  # raises InputError if METEOR is watched without Java
    read_teachers(groups.of(ModelOptions, CaptioningOptions)[1], encoder_transform(groups.encoder))


def _stored(groups: OptionGroups) -> dict[str, Any]:
    from ...checkpoints import checkpoint
    from .teachers import teacher_paths

    _, given = groups.of(ModelOptions, CaptioningOptions)
    options, teachers = to_dict(given), teacher_paths(given)
    min_count = options.pop("min_count")
    name = get_tokenizer(options.pop("tokenizer")).name
    return {
        "training": {name: value for name, value in options.items() if name != "teachers"},
        "data": {"min_count": min_count, **({} if name == WORDS.name else {"tokenizer": name})},
        "teachers": [{"path": str(path), "weights": checkpoint.identity(path)} for path in teachers]
        or None,
    }


def _build(inputs: JobInputs) -> Job:
    from .job import CaptioningJob

    return CaptioningJob(inputs)


def _load(checkpoint: "Checkpoint", device: str | None) -> "Captioner":
    from ...captioner import Captioner

    return Captioner.from_checkpoints([checkpoint], device)


def _evaluate(checkpoints: "Sequence[Checkpoint]", request: "EvaluationRequest") -> None:
    from ...evaluation.evaluate import evaluate_checkpoints

    evaluate_checkpoints(checkpoints, request)


CAPTIONING = Task(
    name="captioning",
    title="image captioning",
    model_options=ModelOptions,
    options=CaptioningOptions,
    architecture=(
        "attention",
        "embedding_size",
        "hidden_size",
        "annotation_size",
        "attention_size",
    ),
    scores=(DEFAULT_SCORE, *(name for name in SCORES if name != DEFAULT_SCORE)),
    unit="words",
    model_name=lambda groups: groups.of(ModelOptions, CaptioningOptions)[0].name,
    negligible=NEGLIGIBLE_BLEU,
    small_cnn_defaults=SMALL_CNN_DEFAULTS,
    idle_options=_idle_options,
    check_inputs=_check_inputs,
    stored=_stored,
    build=_build,
    load=_load,
    evaluate=_evaluate,
    evaluation_flags=EVALUATION_FLAGS,
)
