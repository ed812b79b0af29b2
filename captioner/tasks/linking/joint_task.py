"""The task of embedding images and sentences in one space."""

from ...models.linking.options import RANDOM_NEGATIVE, JointOptions
from ..options import OptionGroups
from ..task import Job, JobInputs, Task
from .options import RECIPES, WORD2VEC, JointTaskOptions
from .task import (
    EVALUATION_FLAGS,
    NO_SAMPLES,
    SCORES,
    evaluate_retrieval,
    load_linker,
    stored_options,
)


def _idle(groups: OptionGroups) -> dict[str, str]:
    model, options = groups.of(JointOptions, JointTaskOptions)
    starts = groups.run.start_from is not None
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


def _check(groups: OptionGroups) -> None:
    from ...text.given_rows import open_rows
    from ...text.options import TextVectorOptions
    from .text_vectors import check_sentence_encoder, check_word_vectors

    _, options = groups.of(JointOptions, JointTaskOptions)
    if options.image_vectors is not None:
        open_rows(options.image_vectors, "image vectors")
    sources, words = options.text_vectors, options.word_vectors
    if words is not None:
        check_word_vectors(words, (WORD2VEC,))
    if groups.run.start_from is None and sources:
        check_sentence_encoder(TextVectorOptions(text_vectors=sources))


def _build(inputs: JobInputs) -> Job:
    from .joint import JointJob

    return JointJob(inputs)


JOINT: Task = Task(
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
    model_name=lambda groups: f"joint-{groups.of(JointOptions, JointTaskOptions)[0].loss}",
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
    idle_options=_idle,
    check_inputs=_check,
    stored=lambda groups: {JOINT.name: stored_options(groups)},
    build=_build,
    load=load_linker,
    evaluate=evaluate_retrieval,
    evaluation_flags=EVALUATION_FLAGS,
)
