"""The task of regressing text vectors from images."""

from pathlib import Path

from ...models.linking.options import RegressionOptions
from ..options import OptionGroups
from ..task import Job, JobInputs, Task
from .options import RegressionTaskOptions
from .task import (
    EVALUATION_FLAGS,
    NO_SAMPLES,
    SCORES,
    evaluate_retrieval,
    idle_sizes,
    load_linker,
    stored_options,
)


def _idle(groups: OptionGroups) -> dict[str, str]:
    model, options = groups.of(RegressionOptions, RegressionTaskOptions)
    starts = groups.run.start_from is not None
    idle = dict.fromkeys(REGRESSION.hidden, "has no effect with --system regression")
    if model.loss != "ranking":
        idle["margin"] = "needs --loss ranking"
    if model.loss != "contrastive":
        idle["temperature"] = "needs --loss contrastive"
    idle |= idle_sizes(options.text_vectors)
    if starts:
        given = "cannot be combined with --start-from, which provides the text vectors"
        idle |= dict.fromkeys(("text_vectors", "text_min_count", "text_dimensions"), given)
    if options.image_vectors is not None:
        replaced = "cannot be combined with --image-vectors, which replaces the encoder"
        encoder = ("encoder", "encoder_weights", "image_size", "fine_tune_encoder")
        idle |= dict.fromkeys(encoder, replaced)
    return idle


def _check(groups: OptionGroups) -> None:
    from ...text.given_rows import open_rows
    from .text_vectors import check_sentence_encoder

    _, options = groups.of(RegressionOptions, RegressionTaskOptions)
    if options.image_vectors is not None:
        open_rows(options.image_vectors, "image vectors")
    if groups.run.start_from is None:
        check_sentence_encoder(options)


def _name(groups: OptionGroups) -> str:
    """Return the name of the model: its loss, and its text vectors unless they are the default."""
    model, options = groups.of(RegressionOptions, RegressionTaskOptions)
    sources = options.text_vectors
    names = () if sources == RegressionTaskOptions().text_vectors else map(plain_name, sources)
    return "-".join(("regression", model.loss, *names))


def plain_name(source: str) -> str:
    """Return the name of a source of text vectors as it appears in the names of runs."""
    return Path(source).name.replace(".", "-")


def _build(inputs: JobInputs) -> Job:
    from .regression import RegressionJob

    return RegressionJob(inputs)


REGRESSION: Task = Task(
    name="regression",
    title="regression from images to text vectors",
    model_options=RegressionOptions,
    options=RegressionTaskOptions,
    architecture=("loss", "hidden_size"),
    scores=SCORES,
    unit="texts",
    model_name=_name,
    defaults={"batch_size": 128, "epochs": 12, "learning_rate": 1e-2, "average": 0.98},
    small_cnn_defaults={
        **{"batch_size": 64, "epochs": 8, "learning_rate": 3e-3, "encoder_learning_rate": 3e-3}
    },
    hidden=NO_SAMPLES,
    idle_options=_idle,
    check_inputs=_check,
    stored=lambda groups: {REGRESSION.name: stored_options(groups)},
    build=_build,
    load=load_linker,
    evaluate=evaluate_retrieval,
    evaluation_flags=EVALUATION_FLAGS,
)
