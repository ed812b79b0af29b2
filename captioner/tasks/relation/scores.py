"""Scores of a relation model on a split: of predicted labels, or of reconstructions.

Shapes: N texts, M texts with a label.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np

from ...data.dataset import Example
from ...data.relations import SC
from ...data.sources import Source
from ...errors import InputError
from ...metrics.confusion import ClassScores
from ...models.relation.articles import ArticleReader, ArticleStore
from ...models.relation.options import Head
from ...relation import RelationClassifier
from ...text.sentences import split_sentences
from .options import ACCURACY, MACRO_F1
from .reconstruction import Reconstruction


@dataclass(frozen=True, eq=False)
class LabelledSplit:
    """The texts of a split with their labels.

    store: all texts. image_of_text (N,): index of each text's image. labels (N, heads): index of
    the level of each head, -1 if the text has no such label.
    """

    examples: Sequence[Example]
    store: ArticleStore
    image_of_text: np.ndarray
    labels: np.ndarray

    @property
    def labelled(self) -> np.ndarray:
        """The rows (M,) of the texts that have a label for at least one head."""
        rows: np.ndarray = np.flatnonzero((self.labels >= 0).any(1))
        return rows

    @property
    def pairs(self) -> np.ndarray:
        """The rows of the texts that an autoencoder is trained on and scored on.

        These are the texts without any label, or all texts if every text has one.
        """
        own = [not labels.values for e in self.examples for labels in e.labels]
        rows: np.ndarray = np.flatnonzero(own)
        return rows if len(rows) else np.arange(len(self.labels))


def contradictions(split: LabelledSplit, heads: Sequence[Head]) -> np.ndarray:
    """Return the rows of the texts of one sentence that contradict their image: sc is -1.

    A text that equals, as far as it is read, a sentence of the image's `pairs` is not among them.
    """
    columns = [i for i, head in enumerate(heads) if head.name == SC and -1.0 in head.levels]
    if not columns:
        return np.zeros(0, int)
    wrong = split.labels[:, columns[0]] == heads[columns[0]].index(-1.0)
    texts = [text for example in split.examples for text in example.captions]
    learned: dict[int, set[int]] = defaultdict(set)
    for row in split.pairs.tolist():
        learned[split.image_of_text[row]].update(split.store.sentences(row))
    found = [
        row
        for row in np.flatnonzero(wrong).tolist()
        if len(split_sentences(texts[row])) == 1
        and learned[split.image_of_text[row]].isdisjoint(split.store.sentences(row))
    ]
    return np.array(found, int)


def read_split(
    examples: Sequence[Example], reader: ArticleReader, heads: Sequence[Head]
) -> LabelledSplit:
    """Read the texts and labels of a split's examples.

    Labels without a head are ignored. Raises InputError for a label that is not a level of its
    head.
    """
    labels = [
        [_level(head, own.values, example) for head in heads]
        for example in examples
        for own in example.labels
    ]
    owner = np.repeat(np.arange(len(examples)), [len(e.captions) for e in examples])
    store = ArticleStore(reader, (text for example in examples for text in example.captions))
    return LabelledSplit(examples, store, owner, np.array(labels).reshape(-1, len(heads)))


def _level(head: Head, values: Mapping[str, float], example: Example) -> int:
    """Return the index of a text's level, -1 if it has no label for the head."""
    if head.name not in values:
        return -1
    try:
        return head.index(values[head.name])
    except InputError as error:
        raise InputError(f"a text of {example.path}: {error}") from error


@dataclass(frozen=True)
class RelationResult:
    """The scores of a split; implements `tasks.task.Result`.

    heads: the scores of a classifier by head, without heads that label no text of the split.
    reconstruction: the scores of an autoencoder; None for a classifier.
    """

    heads: dict[str, ClassScores] = field(default_factory=dict)
    reconstruction: Reconstruction | None = None

    @property
    def numbers(self) -> dict[str, float]:
        """The scores by name, from 0 to 1: accuracy and macro F1, as means and for each head.

        The means are NaN if no text has a label. An autoencoder has the numbers of
        `Reconstruction` instead.
        """
        if self.reconstruction is not None:
            return self.reconstruction.numbers
        numbers = {ACCURACY: math.nan, MACRO_F1: math.nan}
        if self.heads:
            numbers[ACCURACY] = fmean(scores.accuracy for scores in self.heads.values())
            numbers[MACRO_F1] = fmean(scores.macro_f1 for scores in self.heads.values())
        for name, scores in self.heads.items():
            numbers |= {
                f"{name}_{ACCURACY}": scores.accuracy,
                f"{name}_{MACRO_F1}": scores.macro_f1,
            }
        return numbers

    def describe(self) -> str:
        """Return the scores as lines of text."""
        if self.reconstruction is not None:
            return self.reconstruction.describe()
        lines = []
        for name, scores in self.heads.items():
            head = f"{name}: accuracy {scores.interval:.3f}, macro F1 {scores.macro_f1:.3f}"
            lines += [f"{head}, {len(scores.truth):,} texts", scores.describe()]
        return "\n".join(lines)


def score_heads(
    split: LabelledSplit, heads: Sequence[Head], predicted: Sequence[np.ndarray]
) -> dict[str, ClassScores]:
    """Return the scores of each head by name, without heads that label no text.

    predicted: for each head, the index of the level (M,) of each text in `split.labelled`.
    """
    scores, rows = {}, split.labelled
    for column, (head, own) in enumerate(zip(heads, predicted, strict=True)):
        known = split.labels[rows, column] >= 0
        if known.any():
            scores[head.name] = ClassScores(
                split.labels[rows, column][known],
                own[known],
                split.image_of_text[rows][known],
                level_names(head),
            )
    return scores


def level_names(head: Head) -> tuple[str, ...]:
    """Return the levels of a head as text."""
    return tuple(f"{level:g}" for level in head.levels)


def classify_split(
    classifier: RelationClassifier,
    images: Source,
    split: LabelledSplit,
    image_order: np.ndarray | None = None,
) -> dict[str, ClassScores]:
    """Score a classifier on the labelled texts of a split; return the scores by head.

    images: a source whose i-th item belongs to the split's i-th example. image_order: as in
    `RelationClassifier.embed`.
    """
    rows = split.labelled
    if not len(rows):
        return {}
    probabilities = classifier.classify(
        images, split.store, split.image_of_text, rows.tolist(), image_order
    )
    predicted = [each.argmax(1) for each in probabilities]
    return score_heads(split, classifier.heads, predicted)


def shuffled_images(count: int, seed: int = 0) -> np.ndarray:
    """Return an order of at least two images in which none keeps its place."""
    order = np.random.default_rng(seed).permutation(count)
    moved = np.empty(count, int)
    moved[order] = np.roll(order, 1)
    return moved
