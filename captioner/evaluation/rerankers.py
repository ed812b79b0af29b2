"""Loading the models that re-rank results, for the commands that use them."""

from pathlib import Path

from ..captioner import Captioner
from ..reranker import Reranker, load_scoring_model
from ..retrieval.reranking import SAMPLE, RerankOptions
from .inputs import sample_training_images


def load_reranker(
    options: RerankOptions,
    cache: Path,
    device: str | None,
    precision: str = "float32",
    *,
    ranks_texts: bool = True,
) -> Reranker | None:
    """Load the models of the options; return None if there are none.

    ranks_texts: whether texts are ranked, for which a captioner's p(text) is estimated over a
    sample of the images that the first captioner was trained on.
    """
    if not options.rerank:
        return None
    models = [load_scoring_model(path, device, precision) for path in options.rerank]
    first = next((model for model in models if isinstance(model, Captioner)), None)
    has_sample = ranks_texts and first is not None
    sample = sample_training_images(first.config, cache, SAMPLE) if first and has_sample else ()
    return Reranker(models, weight=options.rerank_weight, sample=sample, cache=cache)
