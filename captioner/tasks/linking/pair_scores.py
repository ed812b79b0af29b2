"""Retrieval scores of models that score pairs, such as the m-CNN.

Shapes: I images, N captions.
"""

from collections.abc import Sequence

import numpy as np

from ...data.dataset import Example
from ...data.sources import FunctionSource, Source
from ...linker import Linker
from .vectors import RetrievalResult, rank_examples


def evenly_spaced(count: int, limit: int) -> list[int]:
    """Return up to `limit` evenly spaced positions out of `count`."""
    kept = min(count, limit)
    return [position * count // kept for position in range(kept)]


def select_images(images: Source, positions: Sequence[int]) -> Source:
    """Return a source whose i-th item is the item of `images` at `positions[i]`."""
    return FunctionSource(
        lambda indices: images.load([positions[i] for i in indices]), images.are_features
    )


def score_all_pairs(
    members: Sequence[tuple[Linker, Source]],
    examples: list[Example],
    split: str,
    *,
    batch_size: int = 256,
    show_progress: bool = False,
) -> RetrievalResult:
    """Rank the captions and images of some examples of a split by the scores of all their pairs.

    members: m-CNNs, each with a source whose i-th item, an image or its features, belongs to the
    i-th example. The score of a pair is the sum of the scores by the m-CNNs. batch_size: number of
    images to encode at once.
    """
    captions = [caption for example in examples for caption in example.captions]
    scores = np.zeros((len(examples), len(captions)), np.float32)
    for linker, images in members:
        scores += linker.score_source(
            images,
            len(examples),
            linker.texts.read(captions),
            batch_size=batch_size,
            show_progress=show_progress,
        )
    return rank_examples(scores, scores, examples, split)
