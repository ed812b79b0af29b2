"""Image vectors and caption vectors of a split, and the retrieval scores computed from them.

Shapes: I images, N captions, E embedding dimensions.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ...data.dataset import CaptionData, Example, fingerprint
from ...data.sources import FunctionSource, Source
from ...linker import Linker
from ...metrics.retrieval import RetrievalScores, pair_accuracy, retrieval_scores
from ...text.given_rows import GivenRows
from ...text.tokenizer import split_words
from .text_vectors import caption_texts

# Scores of equal pairs may differ by this share of the largest score: matrix products round by the
# position of a row.
ROUNDING = 1e-6


@dataclass(frozen=True)
class RetrievalResult:
    """The retrieval scores of a split; implements `tasks.task.Result`.

    own: scores that count only an image's own captions as correct. equal: scores that also count
    captions with the same words as one of the image's own captions; None if no two images share a
    caption. pair_accuracy: as in `metrics.retrieval`; None if only one image has captions. scores
    (I, N): the scores that rank the captions for each image.
    """

    own: RetrievalScores
    equal: RetrievalScores | None
    pair_accuracy: float | None
    scores: np.ndarray = field(repr=False, compare=False)

    @property
    def numbers(self) -> dict[str, float]:
        """The scores by name; only an image's own captions count as correct.

        For "rsum_equal_texts", equal captions of other images are correct, too.
        """
        numbers = dict(self.own.numbers)
        numbers["rsum_equal_texts"] = (self.equal or self.own).numbers["rsum"]
        if self.pair_accuracy is not None:
            numbers["pair_accuracy"] = self.pair_accuracy
        return numbers

    @property
    def content(self) -> dict[str, Any]:
        """The content of scores.json."""
        content: dict[str, Any] = {**self.numbers, "protocol": self.own.protocol}
        content["chance"] = self.own.chance
        if self.equal:
            content["equal_texts"] = {
                **self.equal.numbers,
                "protocol": self.equal.protocol,
                "chance": self.equal.chance,
            }
        return content

    def describe(self) -> str:
        """Return the scores and their protocol as lines of text."""
        parts = [self.own, *([self.equal] if self.equal else [])]
        lines = [part.describe() for part in parts]
        if self.pair_accuracy is not None:
            lines.append(
                f"pair accuracy {self.pair_accuracy:.3f} (against one random negative text; high "
                "even for weak models)"
            )
        return "\n".join(lines)


def image_of_caption(examples: list[Example]) -> np.ndarray:
    """Return the row of each caption's image (N,), with captions in the order of the examples."""
    return np.repeat(np.arange(len(examples)), [len(example.captions) for example in examples])


def group_equal(texts: Iterable[str]) -> np.ndarray:
    """Return a group number for each text (N,); texts with the same words have the same number."""
    numbers: dict[tuple[str, ...], int] = {}
    return np.array([numbers.setdefault(tuple(split_words(t)), len(numbers)) for t in texts])


def given_image_vectors(rows: GivenRows, data: CaptionData, split: str) -> Source:
    """Return a source of a split's image vectors, taken from rows that the user computed.

    rows: one row per caption of all splits, in reading order. An image's vector is the row of its
    first caption, or zeros if it has no captions. Raises InputError if the rows belong to another
    data set.
    """
    rows.check_data(fingerprint(data), data.root)
    first, chosen = 0, []
    for example in data.examples:
        if example.split == split:
            chosen.append(first if example.captions else -1)
        first += len(example.captions)

    def load(indices: Any) -> Any:
        import torch

        positions = [chosen[i] for i in indices]
        values = rows.take([max(0, position) for position in positions])
        values[[position < 0 for position in positions]] = 0
        return torch.from_numpy(values)

    return FunctionSource(load, are_features=True)


def score_split(
    linker: Linker, images: Source, data: CaptionData, split: str, batch_size: int = 256
) -> RetrievalResult:
    """Rank all captions of a split for each of its images, and all images for each caption.

    images: a source whose i-th item, an image or its features, belongs to the split's i-th example.
    """
    rows = linker.encode_source(images, len(data.split(split)), batch_size=batch_size)
    scores = split_scores(linker, rows, data, split)
    return rank_split(scores, scores, data, split)


def split_scores(linker: Linker, rows: np.ndarray, data: CaptionData, split: str) -> np.ndarray:
    """Return the score (I, N), the dot product of embeddings, of each image with each caption.

    rows (I, E): the embeddings of the split's images.
    """
    texts = [linker.embed(block) for block in caption_texts(linker.texts, data, split)]
    scores: np.ndarray = rows @ np.concatenate(texts).T
    return scores


def rank_split(
    image_scores: np.ndarray, text_scores: np.ndarray, data: CaptionData, split: str
) -> RetrievalResult:
    """Rank the captions of a split for each image, and its images for each caption.

    image_scores (I, N): scores that rank the captions for each image. text_scores (I, N): scores
    that rank the images for each caption.
    """
    return rank_examples(image_scores, text_scores, data.split(split), split)


def rank_examples(
    image_scores: np.ndarray, text_scores: np.ndarray, examples: list[Example], split: str
) -> RetrievalResult:
    """Rank the captions and images of some examples of a split, as `rank_split` ranks all."""
    image_of_text = image_of_caption(examples)

    def rank_all(scores: np.ndarray, groups: np.ndarray | None) -> RetrievalScores:
        tolerance = ROUNDING * max(1.0, float(np.abs(scores).max()))
        return retrieval_scores(scores, image_of_text, split, groups, tolerance=tolerance)

    def rank(groups: np.ndarray | None) -> RetrievalScores:
        by_image = rank_all(image_scores, groups)
        if text_scores is image_scores:
            return by_image
        return replace(by_image, text_to_image=rank_all(text_scores, groups).text_to_image)

    accuracy = pair_accuracy(image_scores, image_of_text)
    groups = group_equal(text for example in examples for text in example.captions)
    pairs = set(zip(image_of_text.tolist(), groups.tolist(), strict=True))
    if len(pairs) == groups.max() + 1:
        return RetrievalResult(rank(None), None, accuracy, image_scores)
    return RetrievalResult(rank(None), rank(groups), accuracy, image_scores)
