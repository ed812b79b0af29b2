"""The task of matching images and texts with a multimodal CNN."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...models.linking.options import McnnOptions
from ..options import OptionGroups
from ..task import Job, JobInputs, Task
from .options import RANDOM, WORD2VEC, McnnTaskOptions
from .task import NO_SAMPLES, SCORES, load_linker, stored_options

if TYPE_CHECKING:
    from ...checkpoints.checkpoint import Checkpoint
    from ...evaluation.options import EvaluationRequest


def _idle(groups: OptionGroups) -> dict[str, str]:
    idle = dict.fromkeys(MCNN.hidden, "has no effect with --system mcnn")
    if groups.of(McnnOptions, McnnTaskOptions)[0].loss == "infonce":
        idle["margin"] = "needs --loss hinges"
    else:
        idle["temperature"] = "needs --loss infonce"
    if groups.run.start_from is not None:
        given = "cannot be combined with --start-from, which provides the words and their vectors"
        idle |= dict.fromkeys(("text_min_count", "max_words", "word_vectors"), given)
    return idle


def _check(groups: OptionGroups) -> None:
    from .text_vectors import check_word_vectors

    _, options = groups.of(McnnOptions, McnnTaskOptions)
    if groups.run.start_from is None:
        check_word_vectors(options.word_vectors, (WORD2VEC, RANDOM))


def _build(inputs: JobInputs) -> Job:
    from .mcnn import McnnJob

    return McnnJob(inputs)


def _evaluate(checkpoints: "Sequence[Checkpoint]", request: "EvaluationRequest") -> None:
    from .mcnn_evaluation import evaluate_checkpoints

    evaluate_checkpoints(checkpoints, request)


MCNN: Task = Task(
    name="mcnn",
    title="matching of images and texts by a multimodal CNN",
    model_options=McnnOptions,
    options=McnnTaskOptions,
    architecture=(
        *("level", "word_size", "scale_inputs", "image_dimensions", "maps", "pair_maps"),
        *("hidden_size", "image_grid"),
    ),
    scores=SCORES,
    unit="texts",
    model_name=lambda groups: f"mcnn-{groups.of(McnnOptions, McnnTaskOptions)[0].level}",
    defaults={
        **{"batch_size": 128, "epochs": 8, "average": 0.98, "weight_decay": 0.1},
        **{"word_size": 300, "scale_inputs": True, "image_dimensions": 512},
        **{"maps": 600},
    },
    small_cnn_defaults={
        **{"batch_size": 64, "encoder_learning_rate": 3e-3, "image_grid": 4},
        **{"word_vectors": RANDOM, "word_size": 32, "image_dimensions": 128},
        **{"maps": 64, "hidden_size": 128, "dropout": 0.1, "scale_inputs": False},
        **{"loss": "hinges", "negatives": 20, "epochs": 10, "learning_rate": 1e-3},
        **{"average": 0.99, "weight_decay": 0.01},
    },
    hidden=NO_SAMPLES,
    idle_options=_idle,
    check_inputs=_check,
    stored=lambda groups: {MCNN.name: stored_options(groups)},
    build=_build,
    load=load_linker,
    evaluate=_evaluate,
    evaluation_flags=frozenset({"ranked_images"}),
)
