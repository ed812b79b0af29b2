"""One run of the multimodal CNN: its vocabulary, word vectors, model and batches."""

import shlex
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from ...checkpoints.checkpoint import load_checkpoint_weights
from ...data.dataset import Example
from ...distributed import say
from ...models.linking.joint import JointBatch
from ...models.linking.mcnn import MultimodalCNN
from ...models.linking.mcnn_start import start_as_similarity
from ...models.linking.options import McnnOptions
from ...models.linking.texts import TextReader, load_reader
from ...models.parameter_count import count_parameters, describe_parameters
from ...prefetch import load_ahead
from ...text.tokenizer import plain_words
from ...text.vocabulary import Vocabulary
from ..commands import program
from ..encoding import build_configured_encoder
from ..task import JobInputs
from .job import CaptionedImage, LinkingJob, merge
from .joint import fill_embedding
from .options import RANDOM, McnnTaskOptions
from .pair_scores import evenly_spaced, score_all_pairs, select_images
from .vectors import RetrievalResult

MEASURED = 1024  # training images from which the mean and deviation of image vectors are computed


class McnnJob(LinkingJob):
    """Implements `tasks.task.Job`."""

    advice = "use --loss infonce, a lower --learning-rate or a higher --negatives"
    unspaced_advice = "separate the words with spaces"

    def __init__(self, inputs: JobInputs) -> None:
        """Build or load the vocabulary, build the model, and open the images or features."""
        super().__init__(inputs)
        groups, start = inputs.options, inputs.start
        model_options, options = groups.of(McnnOptions, McnnTaskOptions)
        captions = [text for example in self.examples for text in example.captions]
        if start:
            reader = load_reader(start.path)
        else:
            words = Vocabulary.build(map(plain_words, captions), options.text_min_count)
            reader = TextReader(words, max_words=options.max_words)
        encoder = build_configured_encoder(groups)
        assert reader.vocabulary is not None
        count = len(reader.vocabulary)
        model = MultimodalCNN(encoder.channels, count, model_options, encoder)
        if start:
            load_checkpoint_weights(model, start)
        elif (source := options.word_vectors) != RANDOM:
            minimum = options.text_min_count
            fill_embedding(model.words, source, reader.vocabulary, captions, minimum)
        say(
            f"m-CNN of {encoder.channels} image channels and {count} words, merged at the "
            f"{model_options.level} level, with {describe_parameters(count_parameters(model))}"
        )
        self.open(model.to(inputs.device), reader, None)
        if not start and encoder.pretrained:  # at first, images look alike to an untrained encoder
            start_as_similarity(model)
            model.eval().measure_images(self._sample_features())
        self._ranked = evenly_spaced(len(inputs.data.split("val")), options.val_images)
        self.setting = f"val split, all pairs of {len(self._ranked)} images and their captions"
        self._texts = self.read_training_texts()
        per_batch = 1 if self.images.are_features else None
        self._batches = partial(self.order, per_batch=per_batch)
        self.steps = len(self._batches(0))

    def batches(self, epoch: int, first: int) -> Iterator[JointBatch]:
        """Yield this process's share of an epoch's batches of images and texts, from `first`."""
        yield from load_ahead(
            self._load,
            self.share(self._batches(epoch)[first:]),
            self.inputs.options.data.workers,
            pin=self.inputs.device.type == "cuda",
        )

    def _load(self, items: Sequence[CaptionedImage]) -> JointBatch:
        indices, texts, image_of_text = merge(items)
        return JointBatch(
            self.images.load(indices),
            self.images.are_features,
            self._texts.take(torch.from_numpy(texts)),
            torch.from_numpy(image_of_text),
            tuple(self.examples[i].id for i in indices),
            own=torch.from_numpy(self.own_texts(indices, texts)),
        )

    def _sample_features(self) -> Iterator[Tensor]:
        """Yield the features of up to MEASURED training images, evenly spaced, in batches."""
        chosen = evenly_spaced(len(self.examples), MEASURED)
        for first in range(0, len(chosen), 64):
            values = self.images.load(chosen[first : first + 64]).to(self.inputs.device)
            encoder = None if self.images.are_features else self.model.encoder
            with torch.inference_mode():
                yield values if encoder is None else encoder(values)

    @property
    def ranked_examples(self) -> list[Example]:
        """The examples that `evaluate` ranks: up to `val_images` evenly spaced ones of val."""
        examples = self.data.split("val")
        return [examples[position] for position in self._ranked]

    def evaluate(self, _precision: str, /) -> RetrievalResult:
        """Rank the captions and images of `ranked_examples` by the scores of all pairs."""
        self.model.eval()
        images = select_images(self.val_images, self._ranked)
        return score_all_pairs([(self.linker, images)], self.ranked_examples, "val")

    def next_commands(self) -> list[str]:
        """Return the command that scores a split."""
        splits = {example.split for example in self.data.examples}
        split = "test" if "test" in splits else "val"
        run = str(self.inputs.run)
        return [shlex.join([*program("evaluate"), "--checkpoint", run, "--split", split])]
