"""What the linking tasks share: scores, flags of evaluation, and how checkpoints are used."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...options import option_names, to_dict
from ...retrieval.reranking import RerankOptions
from ...text.options import FITTED, REDUCED
from ...text.word_vectors import is_vector_file, split_weighting
from ..options import OptionGroups
from .options import QUERY_FLAGS

if TYPE_CHECKING:
    from ...checkpoints.checkpoint import Checkpoint
    from ...evaluation.options import EvaluationRequest
    from ...linker import Linker

RECALLS = tuple(f"{way}_R@{k}" for way in ("i2t", "t2i") for k in (1, 5, 10))
SCORES = ("rsum_equal_texts", "rsum", *RECALLS)
EVALUATION_FLAGS = QUERY_FLAGS | frozenset(option_names(RerankOptions))
NO_SAMPLES = frozenset({"samples", "heatmaps"})


def stored_options(groups: OptionGroups) -> dict[str, Any]:
    """Return the options of the task as JSON has them."""
    options = to_dict(groups.task)
    lists = {key: list(value) for key, value in options.items() if isinstance(value, tuple)}
    return options | lists


def idle_sizes(sources: Sequence[str]) -> dict[str, str]:
    """Return the names of options that have no effect on these sources, each with the reason."""
    idle = {}
    if not any(source in REDUCED for source in sources):
        idle["text_dimensions"] = f"needs one of these --text-vectors: {', '.join(REDUCED)}"
    if not any(s in FITTED or is_vector_file(split_weighting(s)[0]) for s in sources):
        idle["text_min_count"] = "needs --text-vectors that depend on the words of the captions"
    return idle


def load_linker(checkpoint: "Checkpoint", device: str | None) -> "Linker":
    """Load the model of a checkpoint."""
    from ...linker import Linker

    return Linker.from_checkpoint(checkpoint, device)


def evaluate_retrieval(checkpoints: "Sequence[Checkpoint]", request: "EvaluationRequest") -> None:
    """Evaluate models that compare embeddings."""
    from .evaluation import evaluate_checkpoints

    evaluate_checkpoints(checkpoints, request)
