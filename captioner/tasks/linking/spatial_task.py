"""The task of localising words in images: the spatial embedding."""

from typing import TYPE_CHECKING

from ...errors import InputError
from ...models.linking.options import SpatialOptions
from ...text.options import WEIGHTED
from ...text.word_vectors import is_vector_file, split_weighting
from ..options import OptionGroups
from ..task import Job, JobInputs, Task
from .options import HELD_OUT, PPMI_IMAGE, SEEN, SpatialTaskOptions
from .task import SCORES, load_linker, stored_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...checkpoints.checkpoint import Checkpoint
    from ...evaluation.options import EvaluationRequest

SOURCES = (PPMI_IMAGE, "ppmi-svd", "lsa", "word2vec", "fasttext")  # of word vectors
SEGMENTATION_FLAGS = frozenset({"masks", "threshold", "refine"})  # of evaluation


def _idle(groups: OptionGroups) -> dict[str, str]:
    _, options = groups.of(SpatialOptions, SpatialTaskOptions)
    idle = dict.fromkeys(SPATIAL.hidden, "has no effect with --system spatial")
    if not any(source.removesuffix(WEIGHTED) in SOURCES for source in options.text_vectors):
        idle["text_dimensions"] = f"needs one of these --text-vectors: {', '.join(SOURCES)}"
    if groups.run.start_from is not None:
        given = "cannot be combined with --start-from, which provides the labels and their vectors"
        own = ("text_vectors", "text_min_count", "text_dimensions", "min_images", "held_out")
        idle |= dict.fromkeys(own, given)
    return idle


def _check(groups: OptionGroups) -> None:
    from .text_vectors import check_sentence_encoder

    _, options = groups.of(SpatialOptions, SpatialTaskOptions)
    if options.tags is not None and not options.tags.exists():
        raise InputError(f"tags {options.tags} do not exist; check the path")
    if groups.run.start_from is not None:
        return
    for source in options.text_vectors:
        file, _ = split_weighting(source)
        if source.removesuffix(WEIGHTED) not in SOURCES and not is_vector_file(file):
            raise InputError(
                "the spatial embedding needs one vector per word, got --text-vectors "
                f"{source}; choose {', '.join(SOURCES)} or a file of word vectors"
            )
    if len(options.text_vectors) > 1:
        raise InputError(
            "the spatial embedding needs exactly one source of word vectors, got "
            f"{len(options.text_vectors)}; pass one --text-vectors"
        )
    if options.text_vectors[0].removesuffix(WEIGHTED) != PPMI_IMAGE:
        check_sentence_encoder(options)


def _build(inputs: JobInputs) -> Job:
    from .spatial import SpatialJob

    return SpatialJob(inputs)


def _evaluate(checkpoints: "Sequence[Checkpoint]", request: "EvaluationRequest") -> None:
    from .spatial_evaluation import evaluate_checkpoints

    evaluate_checkpoints(checkpoints, request)


SPATIAL: Task = Task(
    name="spatial",
    title="localisation of words in images: labels, maps and regions",
    model_options=SpatialOptions,
    options=SpatialTaskOptions,
    architecture=("blocks", "head_size"),
    scores=(SEEN, HELD_OUT, *SCORES),
    unit="images",
    model_name=lambda _: "spatial",
    defaults={"batch_size": 64, "epochs": 5, "learning_rate": 3e-3, "average": 0.98},
    small_cnn_defaults={
        "batch_size": 32,
        "epochs": 6,
        "encoder_learning_rate": 3e-3,
        "held_out": 0.0,  # the words of the demo have too little in common
        "blocks": 5,
        "text_vectors": ("lsa",),
        "text_dimensions": 40,
        "max_share": 0.88,
        "min_images": 20,
        "cell_dropout": 0.5,  # a small shape covers few cells
    },
    hidden=frozenset({"samples"}),
    idle_options=_idle,
    check_inputs=_check,
    stored=lambda groups: {SPATIAL.name: stored_options(groups)},
    build=_build,
    load=load_linker,
    evaluate=_evaluate,
    evaluation_flags=SEGMENTATION_FLAGS,
)
