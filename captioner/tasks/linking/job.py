"""One run of the linear map: its sentence encoder, vectors, batches and validation."""

import random
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ... import distributed
from ...checkpoints.checkpoint import load_checkpoint_weights
from ...data.dataset import CaptionData, fingerprint
from ...data.sources import Source
from ...distributed import say
from ...errors import InputError
from ...linker import Linker
from ...metrics.retrieval import RetrievalScores
from ...models.linking.linear import LinearMap, PairBatch, image_vectors
from ...models.linking.text_model import load_sentence_encoder, save_sentence_encoder
from ...text.given_rows import GivenRows, read_rows
from ...text.tokenizer import split_words
from ...vision.encoders import build_encoder
from ..commands import captioner_command, program
from ..encoding import open_split
from ..task import JobInputs
from .task import options_of
from .text_vectors import build_sentence_encoder, caption_vectors
from .vectors import RetrievalResult, given_image_vectors, image_of_caption, score_split

READ_AT_ONCE = 4096  # images


class LinearJob:
    """Implements `tasks.task.Job`."""

    setting = "val split"

    def __init__(self, inputs: JobInputs) -> None:
        """Fit the sentence encoder on the training captions and pool the images' features."""
        groups, start = inputs.options, inputs.start
        self._data, self._run, self._training = inputs.data, inputs.run, groups.training
        self._workers = groups.data.workers
        model_options, options = options_of(groups)
        if start:
            sentences = load_sentence_encoder(start.path)
        else:
            sentences = build_sentence_encoder(options, inputs.data)
        rows = read_image_rows(options.image_vectors, inputs.data)
        torch.manual_seed(groups.training.seed)
        encoder = None
        if rows is None:
            encoder = build_encoder(
                groups.encoder.encoder, groups.encoder.encoder_weights, pretrained=True
            )
        size = encoder.channels if encoder else rows.dimensions if rows else 0
        model = LinearMap(size, sentences.dimensions, model_options, encoder)
        if start:
            load_checkpoint_weights(model, start)
        self.model = model.to(inputs.device)
        say(
            f"linear map of {size} image and {sentences.dimensions} text dimensions into "
            f"{model.dimensions}"
        )
        self._linker = Linker(self.model, sentences, inputs.transform)

        def open_images(split: str) -> Source:
            if encoder is None:
                assert rows is not None
                return given_image_vectors(rows, inputs.data, split)
            return open_split(encoder, inputs.data.split(split), inputs, "pooled").images

        self._images, self._val_images = open_images("train"), open_images("val")
        self._examples = inputs.data.split("train")
        self._image_of_text = image_of_caption(self._examples)
        self.fit: Callable[[], None] | None = None
        if model_options.solver == "cca":
            self.fit, self.steps = self._fit, 0
        else:
            texts = list(caption_vectors(sentences, inputs.data, "train"))
            self._texts = torch.from_numpy(np.concatenate(texts))
            self.steps = len(self._order(0))

    def _fit(self) -> None:
        blocks = (
            torch.from_numpy(block)
            for block in caption_vectors(self._linker.sentences, self._data, "train")
        )
        images = torch.cat(
            [
                image_vectors(self._images.load(range(first, last)))
                for first, last in _ranges(len(self._examples), READ_AT_ONCE)
            ]
        )
        self.model.fit(images, blocks, torch.from_numpy(self._image_of_text))

    def batches(self, epoch: int, first: int) -> Iterator[PairBatch]:
        """Yield an epoch's batches of images with all their captions, from number `first`."""
        rank, world = distributed.rank(), distributed.world_size()
        for indices in self._order(epoch)[first:]:
            yield self._load(indices[rank::world])

    def prepare(self, batch: PairBatch) -> tuple[PairBatch, dict[str, Tensor]]:
        return batch, {}

    def _order(self, epoch: int) -> list[list[int]]:
        """Return random batches of indices of images with captions, at least two per process."""
        chosen = [i for i, example in enumerate(self._examples) if example.captions]
        random.Random(f"{self._training.seed}/{epoch}").shuffle(chosen)
        smallest = 2 * distributed.world_size()  # an image alone has no wrong pairs
        size = max(self._training.batch_size, smallest)
        if len(chosen) < smallest:
            raise InputError(
                f"the ranking loss needs at least {smallest} images with captions for "
                f"{distributed.world_size()} processes, got {len(chosen)}"
            )
        ranges = _ranges(len(chosen), size)
        if ranges[-1][1] - ranges[-1][0] < smallest:
            ranges[-2:] = [(ranges[-2][0], len(chosen))]
        return [chosen[first:last] for first, last in ranges]

    def _load(self, indices: Sequence[int]) -> PairBatch:
        rows = np.searchsorted(self._image_of_text, indices)  # of each image's first caption
        counts = [len(self._examples[i].captions) for i in indices]
        texts = np.concatenate([np.arange(r, r + n) for r, n in zip(rows, counts, strict=True)])
        return PairBatch(
            image_vectors(self._images.load(indices)),
            self._texts[texts],
            torch.from_numpy(np.repeat(np.arange(len(indices)), counts)),
            tuple(self._examples[i].id for i in indices),
        )

    def evaluate(self) -> RetrievalResult:
        """Rank the val split's captions for its images, and its images for its captions."""
        self.model.eval()
        return score_split(self._linker, self._val_images, self._data, "val")

    def show(self, _result: RetrievalResult, _epoch: int, _log_image: Any) -> None:
        """Show nothing: an epoch has no samples."""

    def signature(self, scores: Mapping[str, float]) -> str:
        """Return the protocol of the scores; empty before evaluation."""
        if not scores:
            return ""
        examples = self._data.split("val")
        ones = np.ones(len(examples), int)
        texts = np.ones(sum(len(example.captions) for example in examples), int)
        return RetrievalScores(ones, texts, ones, texts, len(examples), "val").protocol

    def save_text_model(self, directory: Path) -> None:
        """Write the sentence encoder."""
        save_sentence_encoder(self._linker.sentences, directory)

    def conclude(self, _: RetrievalResult) -> list[str]:
        """Return no lines: the run has no further files."""
        return []

    def next_commands(self) -> list[str]:
        """Return commands that score a split and write embeddings."""
        splits = {example.split for example in self._data.examples}
        split = "test" if "test" in splits else "val"
        evaluate = [*program("evaluate"), "--checkpoint", str(self._run), "--split", split]
        encode = [*captioner_command(), "encode", "--checkpoint", str(self._run)]
        commands = [evaluate]
        unknown = self._linker.sentences.unknown_words  # of given rows: all words
        captions = (text for example in self._data.split("val") for text in example.captions)
        if text := next((text for text in captions if split_words(text) and not unknown(text)), ""):
            commands.append([*encode, "--texts", text, "--output", "texts.npy"])
        return [shlex.join(command) for command in commands]


def read_image_rows(path: Path | None, data: CaptionData) -> GivenRows | None:
    """Read the image vectors of a data set from a .npy file; None if there is no file."""
    if path is None:
        return None
    count = sum(len(example.captions) for example in data.examples)
    return read_rows(path, count, fingerprint(data), "image vectors")


def _ranges(count: int, size: int) -> list[tuple[int, int]]:
    return [(first, min(first + size, count)) for first in range(0, count, size)]
