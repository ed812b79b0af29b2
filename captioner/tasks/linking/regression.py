"""One run of the regression of text vectors: its sentence encoder, model and batches."""

from collections.abc import Iterator, Sequence

import torch

from ...checkpoints.checkpoint import load_checkpoint_weights
from ...distributed import say
from ...models.linking.options import RegressionOptions
from ...models.linking.regression import RegressionBatch, TextRegression
from ...models.linking.texts import TextReader, load_reader
from ...models.parameter_count import count_parameters, describe_parameters
from ...prefetch import load_ahead
from ..encoding import build_configured_encoder
from ..task import JobInputs
from .job import CaptionedImage, LinkingJob, merge, read_image_rows
from .options import RegressionTaskOptions
from .queries import score_queries
from .text_vectors import build_sentence_encoder
from .vectors import RetrievalResult


class RegressionJob(LinkingJob):
    """Implements `tasks.task.Job`."""

    def __init__(self, inputs: JobInputs) -> None:
        """Fit or load the sentence encoder, build the model, and open the images or features."""
        super().__init__(inputs)
        groups, start = inputs.options, inputs.start
        model_options, options = groups.of(RegressionOptions, RegressionTaskOptions)
        if start:
            reader = load_reader(start.path)
        else:
            reader = TextReader(sentences=build_sentence_encoder(options, inputs.data))
        rows = read_image_rows(options.image_vectors, inputs.data)
        encoder = build_configured_encoder(groups) if rows is None else None
        torch.manual_seed(groups.training.seed)  # also for the layers on given image vectors
        size = encoder.channels if encoder else rows.dimensions if rows else 0
        model = TextRegression(size, reader.vector_size, model_options, encoder)
        if start:
            load_checkpoint_weights(model, start)
        say(
            f"regression of {model.dimensions} text dimensions from {size} image dimensions, "
            f"{describe_parameters(count_parameters(model))}"
        )
        self.open(model.to(inputs.device), reader, rows)
        texts = self.read_training_texts().vectors
        assert texts is not None
        self._vectors = texts
        self.steps = len(self.order(0))

    def batches(self, epoch: int, first: int) -> Iterator[RegressionBatch]:
        """Yield this process's share of an epoch's batches of images with all their captions.

        first: number of the first batch to yield.
        """
        pin, workers = self.inputs.device.type == "cuda", self.inputs.options.data.workers
        yield from load_ahead(self._load, self.share(self.order(epoch)[first:]), workers, pin=pin)

    def _load(self, items: Sequence[CaptionedImage]) -> RegressionBatch:
        indices, texts, image_of_text = merge(items)
        return RegressionBatch(
            self.images.load(indices),
            self.images.are_features,
            self._vectors[torch.from_numpy(texts)],
            torch.from_numpy(image_of_text),
            tuple(self.examples[i].id for i in indices),
        )

    def conclude(self, result: RetrievalResult) -> list[str]:
        """Write the page of matches; return lines with its path and scores of the standard queries.

        A model that cannot encode new texts has no scores of queries.
        """
        lines = super().conclude(result)
        if not self.reader.can_read:
            return lines
        examples = self.data.split("val")
        rows = self.linker.encode_source(self.val_images, len(examples), batch_size=256)
        return lines + score_queries(self.linker, rows, examples).describe().splitlines()
