"""RelationClassifier: how an image and a text of several sentences relate.

Shapes: N texts, A dimensions of an article embedding, L levels of a head.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .checkpoints import checkpoint as checkpoints
from .checkpoints import hub
from .checkpoints.checkpoint import Checkpoint
from .checkpoints.relation import restore
from .data.given_images import collect_images
from .data.images import ImageInput, Transform
from .data.sources import InputSource, Source
from .devices import device_of, pick_device
from .errors import InputError, refuse_path
from .linker import Linker
from .models.relation.articles import ArticleReader, Articles, ArticleStore
from .models.relation.encoder import JoinedArticles
from .models.relation.model import RelationModel
from .models.relation.options import Head
from .prefetch import WORKERS, load_ahead
from .regions import spatial
from .text.content_words import is_content_word
from .text.tokenizer import plain_words

IMAGES_AT_ONCE = 32


@dataclass(frozen=True)
class Prediction:
    """The prediction of one label.

    value: the most likely level. expected: the mean of the levels, weighted by their
    probabilities. probabilities: by level, in ascending order; they sum to 1.
    """

    value: float
    expected: float
    probabilities: dict[float, float]


@dataclass(frozen=True)
class Relation:
    """How an image and a text relate.

    labels: the prediction of each head, by its name, such as "cmi" or "sc". unknown_words: words of
    the text that are not in the model's vocabulary, in the order of the text, with repetitions.
    """

    labels: dict[str, Prediction]
    unknown_words: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Prediction:
        return self.labels[name]


class RelationClassifier:
    """A trained relation model with its article reader and image transform, on a device.

    Create one with `from_pretrained`. Method calls do not change the model.
    """

    def __new__(cls, *args: Any, **_: Any) -> "RelationClassifier":
        refuse_path(cls, args)
        return super().__new__(cls)

    def __init__(self, model: RelationModel, reader: ArticleReader, transform: Transform) -> None:
        """Wrap a model; `from_pretrained` is the usual way to create a RelationClassifier."""
        self.model = model.eval()
        self.reader = reader
        self.transform = transform

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        device: str | torch.device | None = None,
        revision: str | None = None,
    ) -> "RelationClassifier":
        """Load a checkpoint, or the best checkpoint of a run.

        path: a directory, or a repository "user/name" on the Hugging Face hub, which is downloaded
        (this requires the extra `hub`). device, revision: as in `Linker.from_pretrained`. Raises
        InputError for a missing or damaged checkpoint, one that was not trained with
        `--system relation`, a failed download, and an unavailable device.
        """
        return cls.from_checkpoint(checkpoints.load(hub.local(path, revision)), device)

    @classmethod
    def from_checkpoint(
        cls, read: Checkpoint, device: str | torch.device | None = None
    ) -> "RelationClassifier":
        """Build a RelationClassifier from a checkpoint in memory; see `from_pretrained`."""
        model, reader = restore(read)
        return cls(model.to(pick_device(device)), reader, read.transform)

    @property
    def device(self) -> torch.device:
        """The device of the model's parameters."""
        return device_of(self.model)

    @property
    def heads(self) -> tuple[Head, ...]:
        """The labels that are predicted, with their levels."""
        return self.model.options.parsed_heads

    def __repr__(self) -> str:
        """Return the labels that are predicted, and the device."""
        return f"RelationClassifier({', '.join(head.name for head in self.heads)}; {self.device})"

    def relate(self, image: ImageInput, text: str) -> Relation:
        """Predict every label of an image and a text of one or more sentences.

        image: one image, as in `Captioner.caption`. Raises InputError for an image that cannot be
        read, and for a text without words that the model knows.
        """
        if not isinstance(text, str):
            raise InputError(f"a text must be a string, got {text!r}")
        words, known = plain_words(text), self.reader.vocabulary
        unknown = tuple(word for word in words if word not in known)
        if len(unknown) == len(words):
            raise InputError(f"a text must contain at least one known word, got {text!r}")
        source = InputSource(collect_images(image)[0], self.transform, "stop")
        found = self.classify(source, ArticleStore(self.reader, [text]), np.zeros(1, int))
        labels = {
            head.name: predict(head, probabilities[0])
            for head, probabilities in zip(self.heads, found, strict=True)
        }
        return Relation(labels, unknown)

    def embed(
        self,
        images: Source,
        texts: ArticleStore,
        image_of_text: np.ndarray,
        rows: Sequence[int] | None = None,
        image_order: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return the article embeddings (N, A), float32, of the texts in `rows` with their images.

        images: the images of a split, or their stored features. image_of_text: the index of each
        text's image, in ascending order. rows: the texts to embed, in ascending order; None embeds
        all. image_order: index of the image that takes the place of each image; None keeps all.
        """
        blocks = self._join(images, texts, image_of_text, rows, image_order)
        parts = [joined.embeddings for joined, _ in blocks]
        stacked: np.ndarray = torch.cat(parts).float().cpu().numpy()
        return stacked

    def classify(
        self,
        images: Source,
        texts: ArticleStore,
        image_of_text: np.ndarray,
        rows: Sequence[int] | None = None,
        image_order: np.ndarray | None = None,
    ) -> list[np.ndarray]:
        """Return the probabilities (N, L) of each head's levels; parameters as in `embed`."""
        parts = []
        for joined, articles in self._join(images, texts, image_of_text, rows, image_order):
            with torch.inference_mode():
                parts.append([p.softmax(1) for p in self.model.classify(joined, articles)])
        return [torch.cat(head).cpu().numpy() for head in zip(*parts, strict=True)]

    def _join(
        self,
        images: Source,
        texts: ArticleStore,
        image_of_text: np.ndarray,
        rows: Sequence[int] | None,
        image_order: np.ndarray | None,
    ) -> Iterator[tuple[JoinedArticles, Articles]]:
        """Yield the texts with their images, in blocks; parameters as in `embed`."""
        rows = range(len(texts)) if rows is None else rows
        groups = group_rows(rows, image_of_text)
        blocks = [groups[i : i + IMAGES_AT_ONCE] for i in range(0, len(groups), IMAGES_AT_ONCE)]

        def load(block: Sequence[tuple[int, list[int]]]) -> tuple[Tensor, Sequence[list[int]]]:
            indices = [image if image_order is None else image_order[image] for image, _ in block]
            return images.load([int(i) for i in indices]), [own for _, own in block]

        for values, own in load_ahead(load, blocks, WORKERS):
            with torch.inference_mode():
                features = self.model.embed_images(
                    values.to(self.device), are_features=images.are_features
                )
                owner = torch.repeat_interleave(torch.tensor([len(each) for each in own]))
                articles = texts.take([row for each in own for row in each])
                articles = articles.map(lambda tensor: tensor.to(self.device))
                joined = self.model.articles(features.take(owner.to(self.device)), articles)
            yield joined, articles


def predict(head: Head, probabilities: np.ndarray) -> Prediction:
    """Return the prediction for probabilities (L,) of a head's levels."""
    by_level = {level: float(p) for level, p in zip(head.levels, probabilities, strict=True)}
    expected = sum(level * p for level, p in by_level.items())
    return Prediction(max(by_level, key=by_level.__getitem__), expected, by_level)


def word_support(linker: Linker, image: ImageInput, text: str) -> dict[str, float]:
    """Return the probability that an image shows a word, for each content word of a text.

    The keys are in the order of the text. linker: a spatial model. image: one image, as in
    `Captioner.caption`. Words that the model does not know are omitted. Raises InputError for an
    image that cannot be read, and for a model that is not spatial.
    """
    spatial(linker.model)
    words = [word for word in dict.fromkeys(plain_words(text)) if is_content_word(word)]
    known = [word for word in words if linker.texts.knows(word)]
    if not known:
        return {}
    scores = linker.labels(image, known)[0]
    return {word: float(score) for word, score in zip(known, scores, strict=True)}


def group_rows(rows: Iterable[int], image_of_text: np.ndarray) -> list[tuple[int, list[int]]]:
    """Return the index of the image of each row, each index once, with all of its rows.

    rows: ascending indices of texts. image_of_text: the index of each text's image.
    """
    groups: dict[int, list[int]] = {}
    for row in rows:
        groups.setdefault(int(image_of_text[row]), []).append(int(row))
    return list(groups.items())
