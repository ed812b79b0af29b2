"""Scores of a spatial model on a split: seen labels, held-out labels and retrieval.

Shapes: I images, L labels, E embedding dimensions.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...data.dataset import CaptionData
from ...data.labels import Words, caption_words, image_labels, own_tags, tag_words
from ...data.sources import Source
from ...data.tags import FORMAT, read_tags
from ...linker import Linker
from ...metrics.classification import LabelScores, label_scores
from .options import HELD_OUT, SEEN
from .vectors import RetrievalResult, rank_split, split_scores

FREQUENT = 100  # seen labels that are scored: the most frequent in training


@dataclass(frozen=True)
class SpatialResult:
    """The scores of a split; implements `tasks.task.Result`.

    seen: scores of up to FREQUENT labels, the most frequent in training. held_out: scores of the
    labels that were not used in training.
    """

    seen: LabelScores
    held_out: LabelScores
    retrieval: RetrievalResult

    @property
    def numbers(self) -> dict[str, float]:
        """The scores by name; mean average precision is 0 if no image has one of the labels."""
        named = {SEEN: self.seen, HELD_OUT: self.held_out}
        means = {name: scores.mean if scores.names else 0.0 for name, scores in named.items()}
        return {**means, **self.retrieval.numbers}

    @property
    def content(self) -> dict[str, Any]:
        """The content of scores.json."""
        labels = {"seen": self.seen, "held_out": self.held_out}
        content = {
            name: {
                "chance": scores.chance if scores.names else None,
                "average_precision": dict(zip(scores.names, scores.precisions, strict=True)),
            }
            for name, scores in labels.items()
        }
        return {**self.retrieval.content, **self.numbers, "labels": content}

    def describe(self) -> str:
        """Return the scores and their protocol as lines of text."""
        frequent = len(self.seen.names) + self.seen.left_out  # a split may lack some of them
        return "\n".join(
            [
                self.seen.describe(f"the {frequent} most frequent seen labels"),
                self.held_out.describe("held-out labels"),
                self.retrieval.describe(),
            ]
        )


def label_words(data: CaptionData, split: str, tags: Path | None) -> list[Words]:
    """Return the labels of each image of a split: its tags, or words of its captions.

    tags: file or directory of tags; None uses the words of the captions, or the tags of a data set
    that consists of images with tags.
    """
    examples = data.split(split)
    if tags is not None:
        return tag_words(examples, read_tags(tags))
    return own_tags(examples) if data.format == FORMAT else caption_words(examples)


def score_spatial(
    linker: Linker,
    images: Source,
    data: CaptionData,
    split: str,
    tags: Path | None,
    batch_size: int = 64,
) -> SpatialResult:
    """Score a linker's labels and retrieval on a split.

    images: a source whose i-th item belongs to the split's i-th example. tags: the source of the
    image labels, as in `label_words`. An image has a label if any of its captions uses it or, if
    labels are tags, if it is one of the image's tags.
    """
    examples, labels = data.split(split), linker.known_labels
    frequent = labels.seen[:FREQUENT]
    names = (*frequent, *labels.held_out)
    found = linker.label_source(images, len(examples), names, batch_size=batch_size)
    mentioned = image_labels(label_words(data, split, tags), names).mentioned()
    seen, held_out = (
        label_scores(found.scores[:, part], mentioned[:, part], names[part])
        for part in (slice(0, len(frequent)), slice(len(frequent), None))
    )
    cosines = split_scores(linker, found.rows, data, split)
    return SpatialResult(seen, held_out, rank_split(cosines, cosines, data, split))
