"""Recall@K, median rank and rsum of retrieval, from a score matrix; no model.

Shapes: I images, N texts.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import InputError

RECALLS = (1, 5, 10)
NAMES = (
    *(f"{way}_{name}" for way in ("i2t", "t2i") for name in ("R@1", "R@5", "R@10", "MedR")),
    "rsum",
)


@dataclass(frozen=True)
class RetrievalScores:
    """Ranks of the best right answer to every query, both ways.

    image_to_text (I,): for each image that has a text, the 0-based rank of its best text.
    text_to_image (N,): for each text, the 0-based rank of its best image. A wrong answer with the
    same score ranks before a right one. images, texts: how many were ranked.
    """

    image_to_text: np.ndarray
    text_to_image: np.ndarray
    images: int
    texts: int

    @property
    def numbers(self) -> dict[str, float]:
        """The scores by name: recalls in percent, median ranks counted from 1, and rsum.

        "i2t_R@1" ... "i2t_MedR" rank texts for images, "t2i_..." images for texts; "rsum" is the
        sum of the six recalls.
        """
        found: dict[str, float] = {}
        for way, ranks in (("i2t", self.image_to_text), ("t2i", self.text_to_image)):
            for k in RECALLS:
                found[f"{way}_R@{k}"] = float(100 * (ranks < k).mean())
            found[f"{way}_MedR"] = float(np.floor(np.median(ranks)) + 1)
        found["rsum"] = sum(value for name, value in found.items() if "R@" in name)
        return found

    def describe(self) -> str:
        """The scores as lines of text, with the protocol they were computed by."""
        return f"{describe(self.numbers)}\n{self.protocol}"

    @property
    def protocol(self) -> str:
        """How many images and texts were ranked, and how ties count."""
        return f"{self.images} images, {self.texts} texts, ranked as one set; ties count as wrong"


def describe(numbers: Mapping[str, float]) -> str:
    """Scores by name as two lines of text, one for each way, and rsum."""
    lines = []
    for way, title in (("i2t", "image to text"), ("t2i", "text to image")):
        recalls = "  ".join(f"R@{k} {numbers[f'{way}_R@{k}']:.1f}" for k in RECALLS)
        lines.append(f"{title}: {recalls}  MedR {numbers[f'{way}_MedR']:.0f}")
    return "\n".join([*lines, f"rsum {numbers['rsum']:.1f}"])


def retrieval_scores(
    scores: np.ndarray, image_of_text: np.ndarray, same_text: np.ndarray | None = None
) -> RetrievalScores:
    """Rank every text for every image and every image for every text.

    scores (I, N): larger is better. image_of_text (N,): the row of each text's own image; images
    may have one text, several or none, and those without are not queries. same_text (N,): a number
    for each text, equal for texts that count as the same, so that a text is also right for the
    images of its equals; None: every text is right for its own image alone.
    The rank of a query is the number of wrong answers that score as high as its best right answer,
    or higher. Raises InputError for shapes that do not fit and for scores that are not finite.
    """
    scores, image_of_text = np.asarray(scores), np.asarray(image_of_text)
    if scores.ndim != 2 or image_of_text.shape != scores.shape[1:] or 0 in scores.shape:
        raise InputError(
            f"scores must be (images, texts) with an image for each text, got {scores.shape} and "
            f"{image_of_text.shape}"
        )
    if not np.isfinite(scores).all():
        raise InputError("scores must be finite")
    if image_of_text.min() < 0 or image_of_text.max() >= len(scores):
        raise InputError(f"texts must belong to one of {len(scores)} images")
    text = (
        np.arange(scores.shape[1])
        if same_text is None
        else np.unique(same_text, return_inverse=True)[1]
    )
    right_texts: list[set[int]] = [set() for _ in range(len(scores))]  # of each image, by number
    for number, image in zip(text.tolist(), image_of_text.tolist(), strict=True):
        right_texts[image].add(number)

    def right(image: int) -> np.ndarray:
        return np.isin(text, list(right_texts[image]))

    best_image = np.full(scores.shape[1], -np.inf)  # the best right score of each text
    image_ranks = []
    for image, row in enumerate(scores):
        if not right_texts[image]:
            continue
        mask = right(image)
        best_image[mask] = np.maximum(best_image[mask], row[mask])
        image_ranks.append(int((row[~mask] >= row[mask].max()).sum()))
    text_ranks = np.zeros(scores.shape[1], dtype=int)
    for image, row in enumerate(scores):
        mask = right(image) if right_texts[image] else np.zeros(len(row), dtype=bool)
        text_ranks += ~mask & (row >= best_image)
    return RetrievalScores(np.array(image_ranks), text_ranks, len(scores), scores.shape[1])


def chance(images: int, texts: int) -> dict[str, float]:
    """The recalls of a random ranking, in percent, where every image has texts / images texts."""
    each = texts / images
    found = {f"i2t_R@{k}": 100 * (1 - (1 - k / texts) ** each) for k in RECALLS}
    return found | {f"t2i_R@{k}": 100 * k / images for k in RECALLS}
