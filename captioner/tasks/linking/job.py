"""The part of a run that all linking systems share: data, order of batches, and validation.

A system adds its model and its batches.
"""

import random
import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from ... import distributed
from ...data.dataset import CaptionData, Example, fingerprint
from ...data.sources import Source
from ...data.storage import files as storage
from ...distributed import say
from ...errors import InputError
from ...linker import Linker
from ...metrics.retrieval import RetrievalScores
from ...models.linking.build import LinkingModel
from ...models.linking.texts import TextReader, Texts, concatenate
from ...models.losses import Loss
from ...retrieval.query import Query, Term
from ...text.given_rows import GivenRows, read_rows
from ...text.tokenizer import WORDS, are_mostly_one_word, split_words
from ...vision.encoders import Encoder
from ..commands import captioner_command, program
from ..encoding import open_split
from ..task import JobInputs
from .collapse import CollapseWatch
from .matches import write_matches
from .text_vectors import caption_texts
from .vectors import (
    RetrievalResult,
    given_image_vectors,
    group_equal,
    image_of_caption,
    score_split,
)

PAGE = "matches.html"  # in the run's directory


class CaptionedImage(NamedTuple):
    """The index of a training image, and the rows of captions that accompany it in a batch."""

    image: int
    rows: tuple[int, ...]


class LinkingJob:
    """Implements the part of `tasks.task.Job` that all linking systems share.

    A subclass calls `open` once it has built its model. It sets `steps` and defines `batches`, or
    sets `fit`. advice: what to do if the loss collapses. unspaced_advice: what to do if captions
    have no spaces between words.
    """

    setting = "val split"
    fit: Callable[[], None] | None = None
    steps = 0
    advice = "use a lower --learning-rate"
    unspaced_advice = "pass a sentence encoder or a .npy file as --text-vectors"

    def __init__(self, inputs: JobInputs) -> None:
        self.inputs, self.data = inputs, inputs.data
        self.training_options = inputs.options.training
        self.examples = inputs.data.split("train")
        self._collapse = CollapseWatch(self.advice)
        self.image_of_text = image_of_caption(self.examples)  # (N,), with captions in order
        captions = (text for example in self.examples for text in example.captions)
        if are_mostly_one_word(captions, WORDS):
            say(
                "note: most captions are a single word; if their script has no spaces between "
                f"words, {self.unspaced_advice}"
            )

    def open(self, model: LinkingModel, reader: TextReader, rows: GivenRows | None) -> None:
        """Store the model, and open the images of both splits.

        model: a model that is already on the run's device. rows: image vectors that the user
        computed. If they are None, the features of a frozen encoder are computed or read from the
        feature store; any other encoder reads the images themselves.
        """
        self.model, self.reader = model, reader
        self.linker = Linker(model, reader, self.inputs.transform)
        self.images, self.val_images = (
            self._open_images(model.encoder, rows, split) for split in ("train", "val")
        )

    def _open_images(self, encoder: Encoder | None, rows: GivenRows | None, split: str) -> Source:
        if encoder is None:
            assert rows is not None
            return given_image_vectors(rows, self.data, split)
        return open_split(encoder, self.data.split(split), self.inputs, self.model.features).images

    def read_training_texts(self) -> Texts:
        """Return all training captions, in order, prepared for the model."""
        return concatenate(list(caption_texts(self.reader, self.data, "train")))

    def order(
        self, epoch: int, *, captions_per_image: int | None = None, per_batch: int | None = None
    ) -> list[list[CaptionedImage]]:
        """Return an epoch's random batches of images with some of their captions.

        A batch contains at least two items per process. captions_per_image: maximum number of
        captions to use of each image, in order; None uses all. per_batch: maximum number of
        captions of an item; an image with more captions has several items, which may be in
        different batches. None puts all captions of an image into one item. Raises InputError if
        there are fewer than two images with captions per process.
        """
        rng = random.Random(f"{self.training_options.seed}/{epoch}")
        items, first = [], 0
        for image, example in enumerate(self.examples):
            rows = list(range(first, first + len(example.captions)))[:captions_per_image]
            if per_batch is not None:
                rng.shuffle(rows)
            for start, end in split_range(len(rows), per_batch or max(1, len(rows))):
                items.append(CaptionedImage(image, tuple(rows[start:end])))
            first += len(example.captions)
        rng.shuffle(items)
        smallest = 2 * distributed.world_size()  # a single image has no negative pairs
        size = max(self.training_options.batch_size, smallest)
        if (images := len({item.image for item in items})) < smallest:
            raise InputError(
                "training needs at least 2 images with captions per process, "
                f"{smallest} in total, got {images}; add some to the train split"
            )
        ranges = split_range(len(items), size)
        if ranges[-1][1] - ranges[-1][0] < smallest:
            ranges[-2:] = [(ranges[-2][0], len(items))]
        return [items[first:last] for first, last in ranges]

    @cached_property
    def _groups(self) -> np.ndarray:
        """A number for each training caption (N,), equal for captions with the same words."""
        return group_equal(text for example in self.examples for text in example.captions)

    def own_texts(self, images: Sequence[int], texts: np.ndarray) -> np.ndarray:
        """Return a mask (B, N): whether a caption has the same words as a caption of an image.

        images: the indices of B images. texts: the rows of N captions.
        """
        unique, column = np.unique(self._groups[texts], return_inverse=True)
        columns = {group: number for number, group in enumerate(unique.tolist())}
        own = np.zeros((len(images), len(unique)), bool)
        firsts = np.searchsorted(self.image_of_text, images)
        lasts = np.searchsorted(self.image_of_text, images, "right")
        for row, (first, last) in enumerate(zip(firsts, lasts, strict=True)):
            groups = self._groups[first:last].tolist()
            own[row, [columns[group] for group in groups if group in columns]] = True
        return own[:, column]

    def share(self, batches: list[list[CaptionedImage]]) -> list[list[CaptionedImage]]:
        """Return the part of each batch that this process trains on."""
        rank, world = distributed.rank(), distributed.world_size()
        return [items[rank::world] for items in batches]

    def prepare(self, batch: Any) -> tuple[Any, dict[str, Tensor]]:
        """Return the batch unchanged, and no scalars to log."""
        return batch, {}

    def observe(self, loss: Loss) -> None:
        """Warn once if the loss has collapsed."""
        self._collapse.observe(loss)

    def evaluate(self, _precision: str, /) -> RetrievalResult:
        """Rank the val split's captions for its images, and its images for its captions."""
        self.model.eval()
        return score_split(self.linker, self.val_images, self.data, "val")

    def show(self, _result: RetrievalResult, _epoch: int, _log_image: Any) -> None:
        """Do nothing: linking systems have no samples to show."""

    @property
    def ranked_examples(self) -> list[Example]:
        """The examples of the val split that `evaluate` ranks."""
        return self.data.split("val")

    def signature(self, scores: Mapping[str, float]) -> str:
        """Return the protocol of the scores; an empty string before evaluation."""
        if not scores:
            return ""
        examples = self.ranked_examples
        ones = np.ones(len(examples), int)
        texts = np.ones(sum(len(example.captions) for example in examples), int)
        return RetrievalScores(ones, texts, ones, texts, len(examples), "val").protocol

    def save_text_model(self, directory: Path) -> None:
        """Write the vocabulary and the sentence encoder."""
        self.reader.save(directory)

    def conclude(self, result: RetrievalResult) -> list[str]:
        """Write the page of example images and captions; return a line with its path."""
        path = self.inputs.run / PAGE
        write_matches(path, self.ranked_examples, result)
        return [f"images and captions: {path}"]

    def next_commands(self) -> list[str]:
        """Return commands that score a split, search images by a text, and captions by an image.

        Captions are searched by a text if the model reads given image vectors. Searches that the
        model or the storage of the images does not allow are left out.
        """
        examples = self.data.split("val")
        splits = {example.split for example in self.data.examples}
        split = "test" if "test" in splits else "val"
        commands = [[*program("evaluate"), "--checkpoint", str(self.inputs.run), "--split", split]]
        unknown = self.reader.unknown_words  # for vectors from a .npy file, all words are unknown
        captions = (text for example in examples for text in example.captions)
        text = next((text for text in captions if split_words(text) and not unknown(text)), "")
        image = None if self.model.encoder is None else examples[0].path
        is_plain = isinstance(image, Path) and storage.container(image) == image
        if image and text and is_plain:
            commands += self._search_commands("images", [str(image.parent)], text)
        if text:
            query = str(Query((Term(str(image), is_image=True),))) if image else text
            commands += self._search_commands("captions", ["--texts"], query)
        return [shlex.join(command) for command in commands]

    def _search_commands(self, name: str, sources: Sequence[str], query: str) -> list[list[str]]:
        """Return two commands: one writes an index in the run's directory, one searches it."""
        run, captioner = self.inputs.run, captioner_command()
        index = str(run / f"{name}.index")
        write = [*captioner, "index", *sources, "--checkpoint", str(run), "--output", index]
        return [write, [*captioner, "search", index, query]]


def read_image_rows(path: Path | None, data: CaptionData) -> GivenRows | None:
    """Read the image vectors of a data set from a .npy file; return None if `path` is None.

    Raises InputError if the file cannot be read or does not have one row per caption.
    """
    if path is None:
        return None
    count = sum(len(example.captions) for example in data.examples)
    return read_rows(path, count, fingerprint(data), "image vectors")


def merge(items: Sequence[CaptionedImage]) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Return the distinct images of a batch, the rows (N,) of its texts, and each text's image.

    The last array (N,) contains the position of each text's image in the list of images.
    """
    positions = {item.image: 0 for item in items}
    positions = {image: position for position, image in enumerate(positions)}
    rows = np.array([row for item in items for row in item.rows])
    image_of_text = np.array([positions[item.image] for item in items for _ in item.rows])
    return list(positions), rows, image_of_text


def split_range(count: int, size: int) -> list[tuple[int, int]]:
    """Split range(count) into consecutive ranges of up to `size`, and return their bounds."""
    return [(first, min(first + size, count)) for first in range(0, count, size)]
