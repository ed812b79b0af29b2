"""One run of the linear maps: the sentence encoder, the closed-form fit, and the batches."""

from collections.abc import Iterator, Sequence

import torch

from ...checkpoints.checkpoint import load_checkpoint_weights
from ...distributed import say
from ...models.linking.linear import LinearMap, PairBatch, image_vectors
from ...models.linking.options import LinearOptions
from ...models.linking.texts import TextReader, load_reader
from ..encoding import build_configured_encoder
from ..task import JobInputs
from .job import CaptionedImage, LinkingJob, merge, read_image_rows, split_range
from .options import LinearTaskOptions
from .text_vectors import build_sentence_encoder, caption_vectors

READ_AT_ONCE = 4096  # images


class LinearJob(LinkingJob):
    """Implements `tasks.task.Job`."""

    def __init__(self, inputs: JobInputs) -> None:
        """Fit or load the sentence encoder, build the model, and open the images."""
        super().__init__(inputs)
        groups, start = inputs.options, inputs.start
        model_options, options = groups.of(LinearOptions, LinearTaskOptions)
        if start:
            reader = load_reader(start.path)
        else:
            reader = TextReader(sentences=build_sentence_encoder(options, inputs.data))
        rows = read_image_rows(options.image_vectors, inputs.data)
        encoder = build_configured_encoder(groups) if rows is None else None
        if rows is not None:
            torch.manual_seed(groups.training.seed)
        size = encoder.channels if encoder else rows.dimensions if rows else 0
        model = LinearMap(size, reader.vector_size, model_options, encoder)
        if start:
            load_checkpoint_weights(model, start)
        say(
            f"linear maps of {size} image dimensions and {reader.vector_size} text dimensions to "
            f"{model.dimensions} dimensions"
        )
        self.open(model.to(inputs.device), reader, rows)
        self._model = model
        if model_options.solver == "cca":
            self.fit = self._fit
        else:
            self._texts = self.read_training_texts()
            self.steps = len(self.order(0))

    def _fit(self) -> None:
        assert self.reader.sentences is not None
        blocks = (
            torch.from_numpy(block)
            for block in caption_vectors(self.reader.sentences, self.data, "train")
        )
        images = torch.cat(
            [
                image_vectors(self.images.load(range(first, last)))
                for first, last in split_range(len(self.examples), READ_AT_ONCE)
            ]
        )
        self._model.fit(images, blocks, torch.from_numpy(self.image_of_text))

    def batches(self, epoch: int, first: int) -> Iterator[PairBatch]:
        """Yield this process's share of an epoch's batches of images with all their captions.

        first: number of the first batch to yield.
        """
        return map(self._load, self.share(self.order(epoch)[first:]))

    def _load(self, items: Sequence[CaptionedImage]) -> PairBatch:
        indices, texts, image_of_text = merge(items)
        assert self._texts.vectors is not None
        return PairBatch(
            image_vectors(self.images.load(indices)),
            self._texts.vectors[texts],
            torch.from_numpy(image_of_text),
            tuple(self.examples[i].id for i in indices),
        )
