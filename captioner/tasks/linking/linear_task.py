"""The task of mapping frozen image and text vectors into one space."""

from ...errors import InputError
from ...models.linking.options import LinearOptions
from ...options import option_names
from ...vision.options import SMALL_CNN
from ..options import OptionGroups, TrainingOptions
from ..task import Job, JobInputs, Task
from .options import LinearTaskOptions
from .task import (
    EVALUATION_FLAGS,
    NO_SAMPLES,
    SCORES,
    evaluate_retrieval,
    idle_sizes,
    load_linker,
    stored_options,
)

# Kiros et al. 2015 train for 15 epochs with batches of 100.
DEFAULTS: dict[str, int | float] = {"batch_size": 100, "epochs": 15, "learning_rate": 1e-3}


def _idle(groups: OptionGroups) -> dict[str, str]:
    model, options = groups.of(LinearOptions, LinearTaskOptions)
    starts = groups.run.start_from is not None
    idle = dict.fromkeys(LINEAR.hidden, "has no effect with --system linear")
    if model.solver == "cca":
        trained = (*option_names(TrainingOptions), "margin", "logger", "tensorboard", "curves")
        trained += ("resume", "start_from")
        idle = dict.fromkeys(trained, "needs --solver ranking") | idle
    else:
        idle |= dict.fromkeys(("ridge", "correlation_power"), "needs --solver cca")
    idle |= idle_sizes(options.text_vectors)
    if starts:
        given = "cannot be combined with --start-from, which provides the sentence encoder"
        idle |= dict.fromkeys(("text_vectors", "text_min_count", "text_dimensions"), given)
    if options.image_vectors is not None:
        replaced = "cannot be combined with --image-vectors, which replaces the encoder"
        idle |= dict.fromkeys(("encoder", "encoder_weights", "image_size"), replaced)
    return idle


def _check(groups: OptionGroups) -> None:
    from ...text.given_rows import open_rows
    from .text_vectors import check_sentence_encoder

    _, options = groups.of(LinearOptions, LinearTaskOptions)
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


def _build(inputs: JobInputs) -> Job:
    from .linear import LinearJob

    return LinearJob(inputs)


LINEAR: Task = Task(
    name="linear",
    title="linking of images and texts by linear maps",
    model_options=LinearOptions,
    options=LinearTaskOptions,
    architecture=("solver", "dimensions"),
    scores=SCORES,
    unit="texts",
    model_name=lambda groups: f"linear-{groups.of(LinearOptions, LinearTaskOptions)[0].solver}",
    defaults=DEFAULTS,
    hidden=frozenset({*NO_SAMPLES, "fine_tune_encoder", "encoder_learning_rate"}),
    idle_options=_idle,
    check_inputs=_check,
    stored=lambda groups: {LINEAR.name: stored_options(groups)},
    build=_build,
    load=load_linker,
    evaluate=evaluate_retrieval,
    evaluation_flags=EVALUATION_FLAGS,
)
