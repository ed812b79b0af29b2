"""Recall@K, median rank and rsum of retrieval, computed from a score matrix.

Shapes: I images, N texts.
"""

from dataclasses import dataclass

import numpy as np

from ..errors import InputError

RECALLS = (1, 5, 10)
DIRECTIONS = {"i2t": "image to text", "t2i": "text to image"}


@dataclass(frozen=True)
class RetrievalScores:
    """The ranks of the correct answers, from which recalls and median ranks are computed.

    image_to_text (at most I,): for each image that has a text, the 0-based rank of its best correct
    text. text_to_image (N,): for each text, the 0-based rank of its best correct image.
    texts_of_image (at most I,), images_of_text (N,): the number of correct answers to these
    queries. images: number of images ranked, including images without texts. split: the name of
    the ranked split. equal_texts: whether a text is also correct for the images of equal texts.
    """

    image_to_text: np.ndarray
    text_to_image: np.ndarray
    texts_of_image: np.ndarray
    images_of_text: np.ndarray
    images: int
    split: str
    equal_texts: bool = False

    @property
    def numbers(self) -> dict[str, float]:
        """The scores by name: recalls in percent, median ranks counted from 1, and rsum.

        "i2t_R@1", "i2t_R@5", "i2t_R@10" and "i2t_MedR" are for ranking texts for images, "t2i_..."
        for ranking images for texts. A median between two ranks is rounded down. "rsum" is the sum
        of the six recalls.
        """
        numbers: dict[str, float] = {}
        for direction, ranks in (("i2t", self.image_to_text), ("t2i", self.text_to_image)):
            for k in RECALLS:
                numbers[f"{direction}_R@{k}"] = float(100 * (ranks < k).mean())
            numbers[f"{direction}_MedR"] = float(np.floor(np.median(ranks)) + 1)
        numbers["rsum"] = sum(value for name, value in numbers.items() if "R@" in name)
        return numbers

    @property
    def chance(self) -> dict[str, float]:
        """The recalls expected of a random order, in percent, under the names of `numbers`."""
        return {
            f"{direction}_R@{k}": _chance(correct, candidates, k)
            for direction, correct, candidates in (
                ("i2t", self.texts_of_image, len(self.text_to_image)),
                ("t2i", self.images_of_text, self.images),
            )
            for k in RECALLS
        }

    @property
    def protocol(self) -> str:
        """A one-line description of what was ranked: split, images, texts, and how ties count."""
        without_text = self.images - len(self.image_to_text)
        counted = f" ({without_text} without a text)" if without_text else ""
        equal = "; equal texts of other images count as correct" if self.equal_texts else ""
        return (
            f"{self.split}: {self.images} images{counted}, {len(self.text_to_image)} texts, "
            f"ranked all at once; ties count as wrong{equal}"
        )

    def describe(self) -> str:
        """Return the scores as lines of text: one per direction, then rsum and the protocol."""
        numbers, chance = self.numbers, self.chance
        lines = []
        for direction, title in DIRECTIONS.items():
            recalls = "  ".join(f"R@{k} {numbers[f'{direction}_R@{k}']:.1f}" for k in RECALLS)
            by_chance = f"(by chance {chance[f'{direction}_R@{RECALLS[-1]}']:.1f})"
            lines.append(f"{title}: {recalls} {by_chance}  MedR {numbers[f'{direction}_MedR']:.0f}")
        return "\n".join([*lines, f"rsum {numbers['rsum']:.1f}", self.protocol])


def pair_accuracy(scores: np.ndarray, image_of_text: np.ndarray) -> float | None:
    """Return the probability that a pair scores higher than its image with a random negative text.

    scores and image_of_text: as in `retrieval_scores`. The result, in [0, 1], is the mean over all
    pairs of the fraction of texts of other images that have a lower score; ties count as incorrect.
    It is close to 1 even for models that rank poorly, so report it together with recalls. Returns
    None if only one image has texts.
    """
    total = 0.0
    for image in np.unique(image_of_text):
        own = image_of_text == image
        wrong = np.sort(scores[image, ~own])
        if not len(wrong):
            return None
        total += np.searchsorted(wrong, scores[image, own], "left").sum() / len(wrong)
    return float(total / len(image_of_text))


def _chance(correct: np.ndarray, candidates: int, k: int) -> float:
    """Return the expected R@k in percent if the candidates are ranked at random.

    candidates: their number. correct: the number of correct candidates of each query. A query has
    no hit if k incorrect candidates are drawn without replacement.
    """
    drawn = np.arange(min(k, candidates))
    missed = (candidates - correct[:, None] - drawn).clip(min=0) / (candidates - drawn)
    return float(100 * (1 - missed.prod(1)).mean())


def retrieval_scores(
    scores: np.ndarray,
    image_of_text: np.ndarray,
    split: str,
    text_groups: np.ndarray | None = None,
    *,
    tolerance: float = 0.0,
) -> RetrievalScores:
    """Rank all texts for every image, and all images for every text.

    scores (I, N): higher is better. image_of_text (N,): integers, the row of each text's image. An
    image may have any number of texts; an image without texts is a candidate but not a query.
    split: the name of the split, for the protocol. text_groups (N,): integers that are equal for
    equal texts, so that a text is also correct for the images of equal texts; if None, a text is
    correct only for its own image. tolerance: maximum difference of two scores that count as a tie,
    because scores of equal pairs may differ by rounding.

    The rank of a query is the number of incorrect answers that score higher than its best correct
    answer or tie with it, so that constant scores yield the worst result. Raises InputError if the
    shapes do not match, if scores are not finite, or if image_of_text contains rows that do not
    exist.
    """
    scores, image_of_text = np.asarray(scores), np.asarray(image_of_text)
    if scores.ndim != 2 or image_of_text.shape != scores.shape[1:] or 0 in scores.shape:
        raise InputError(
            "scores must have shape (images, texts) and image_of_text (texts,), both nonempty, got "
            f"{scores.shape} and {image_of_text.shape}"
        )
    if not np.isfinite(scores).all():
        raise InputError("scores must be finite, got NaN or infinity")
    if not np.issubdtype(image_of_text.dtype, np.integer):
        raise InputError(f"image_of_text must contain integers, got {image_of_text.dtype}")
    if image_of_text.min() < 0 or image_of_text.max() >= len(scores):
        raise InputError(
            f"image_of_text must contain indices from 0 to {len(scores) - 1}, got "
            f"{image_of_text.min()} to {image_of_text.max()}"
        )
    # One column per group of equal texts: whether an image has a text of the group.
    groups = np.arange(len(image_of_text))
    if text_groups is not None:
        _, groups = np.unique(text_groups, return_inverse=True)
    has_group = np.zeros((len(scores), groups.max() + 1), dtype=bool)
    has_group[image_of_text, groups] = True
    correct = has_group[:, groups]  # (I, N)
    right = np.where(correct, scores, -np.inf)
    is_query = correct.any(1)
    image_ranks = ((scores >= right.max(1)[:, None] - tolerance) & ~correct).sum(1)
    text_ranks = ((scores >= right.max(0) - tolerance) & ~correct).sum(0)
    return RetrievalScores(
        image_ranks[is_query],
        text_ranks,
        correct.sum(1)[is_query],
        correct.sum(0),
        len(scores),
        split,
        text_groups is not None,
    )
