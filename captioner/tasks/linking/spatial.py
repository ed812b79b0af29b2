"""One run of the spatial embedding: its labels, their vectors, the model and the batches."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from ...checkpoints.checkpoint import load_checkpoint_weights
from ...data.dataset import CaptionData
from ...data.labels import (
    ImageLabels,
    LabelSplit,
    choose_labels,
    exclude_relatives,
    image_labels,
    load_labels,
    split_labels,
)
from ...distributed import say
from ...errors import InputError
from ...linker import Linker
from ...models.linking.options import SpatialOptions
from ...models.linking.spatial import SpatialBatch, SpatialEmbedding
from ...models.linking.texts import TextReader, load_reader
from ...models.parameter_count import count_parameters, describe_parameters
from ...prefetch import load_ahead
from ...text.options import WEIGHTED
from ...text.sentence_vectors import SentenceEncoder, WordSum, unit_rows
from ...text.trained_words import fit_ppmi_svd
from ..commands import captioner_command, program
from ..encoding import build_configured_encoder
from ..task import JobInputs
from .job import LinkingJob
from .label_scores import SpatialResult, label_words, score_spatial
from .options import PPMI_IMAGE, SpatialTaskOptions
from .spatial_figures import draw_maps, draw_plane
from .text_vectors import build_sentence_encoder


class SpatialJob(LinkingJob):
    """Implements `tasks.task.Job`."""

    unspaced_advice = "separate the words with spaces"

    def __init__(self, inputs: JobInputs) -> None:
        """Choose or load the labels, build the model, and open the images or feature maps."""
        super().__init__(inputs)
        groups, start = inputs.options, inputs.start
        model_options, options = groups.of(SpatialOptions, SpatialTaskOptions)
        self._options = options
        if start:
            reader, labels = load_reader(start.path), load_labels(start.path)
        else:
            reader = TextReader(sentences=build_label_vectors(options, inputs.data))
            labels = build_labels(options, inputs.data, reader, groups.training.seed)
        encoder = build_configured_encoder(groups)
        model = SpatialEmbedding(encoder.channels, reader.vector_size, model_options, encoder)
        if start:
            load_checkpoint_weights(model, start)
        say(
            f"spatial embedding of {encoder.channels} channels in {model_options.blocks} blocks of "
            f"{model.dimensions} dimensions, {len(labels.seen):,} seen and "
            f"{len(labels.held_out):,} held-out labels, "
            f"{describe_parameters(count_parameters(model))}"
        )
        self.open(model.to(inputs.device), reader, None)
        self.linker = Linker(model, reader, inputs.transform, labels)
        words = label_words(self.data, "train", options.tags)
        self._labels = exclude_relatives(image_labels(words, labels.seen))
        assert reader.sentences is not None
        self._vectors = torch.from_numpy(reader.sentences.encode(labels.seen))
        self.steps = len(self.order(0))

    def batches(self, epoch: int, first: int) -> Iterator[SpatialBatch]:
        """Yield this process's share of an epoch's batches of images and labels, from `first`."""
        pin, workers = self.inputs.device.type == "cuda", self.inputs.options.data.workers

        def load(indices: Sequence[int]) -> SpatialBatch:
            return self._load(indices, epoch)

        batches = self.share(self.order(epoch)[first:])
        indices = [[item.image for item in items] for items in batches]
        yield from load_ahead(load, indices, workers, pin=pin)

    def _load(self, indices: Sequence[int], epoch: int) -> SpatialBatch:
        seed, count = self.training_options.seed, self._options.labels_per_image
        chosen = [
            sample_labels(self._labels, i, count, np.random.default_rng((seed, epoch, i)))
            for i in indices
        ]
        longest = max(len(ids) for ids, _ in chosen)
        ids = torch.zeros(len(indices), longest, dtype=torch.long)
        targets, weights = torch.zeros(2, len(indices), longest)
        for row, (own, present) in enumerate(chosen):
            ids[row, : len(own)] = torch.from_numpy(own)
            targets[row, :present] = 1
            weights[row, : len(own)] = 1
        return SpatialBatch(
            self.images.load(indices),
            self.images.are_features,
            self._vectors[ids],
            targets,
            weights,
            tuple(self.examples[i].id for i in indices),
        )

    def evaluate(self, _precision: str, /) -> SpatialResult:  # type: ignore[override]
        """Score labels and retrieval on the val split."""
        self.model.eval()
        return score_spatial(self.linker, self.val_images, self.data, "val", self._options.tags)

    def save_text_model(self, directory: Path) -> None:
        """Write the word vectors and the labels to a checkpoint's directory."""
        super().save_text_model(directory)
        self.linker.known_labels.save(directory)

    def conclude(self, _: SpatialResult) -> list[str]:  # type: ignore[override]
        """Draw maps of up to --heatmaps val images, and a projection of all val images.

        Returns lines with the paths. With --heatmaps 0, neither is drawn.
        """
        count = self.inputs.options.run.heatmaps
        if not count:
            return []
        examples, images = self.data.split("val"), self.val_images
        maps = draw_maps(self.inputs.run / "maps", self.linker, images, examples, count)
        plane = draw_plane(self.inputs.run / "projection.png", self.linker, images, examples)
        return [f"maps: {maps}", f"projection: {plane}"]

    def next_commands(self) -> list[str]:
        """Return commands that evaluate, label, localise, index, search and project.

        The last three are left out for images that are not local files.
        """
        run, images = str(self.inputs.run), self.data.split("val")
        splits = {example.split for example in self.data.examples}
        split = "test" if "test" in splits else "val"
        words, image = self.linker.known_labels.seen[:3], images[0].path
        captioner = captioner_command()
        commands = [
            [*program("evaluate"), "--checkpoint", run, "--split", split],
            [*captioner, "label", str(image), "--checkpoint", run],
            [*captioner, "localize", str(image), *words, "--checkpoint", run, "--output", "maps"],
        ]
        if isinstance(image, Path):
            index = f"{self.inputs.run.name}.index"
            where = [str(image.parent), "--checkpoint", run, "--output", index]
            commands.append([*captioner, "index", *where])
            commands.append([*captioner, "search", index, f"--paint={words[0]}=left"])
            commands.append([*captioner, "project", index, "--labels", *words])
        return [shlex.join(command) for command in commands]


def build_label_vectors(options: SpatialTaskOptions, data: CaptionData) -> WordSum:
    """Build word vectors, subtract their mean over the vocabulary, and scale them to unit length.

    The vector of a label of several words is the sum of theirs, scaled to unit length; with the
    suffix -tf-idf, rare words have more weight. Raises InputError in the same cases as
    `build_sentence_encoder`, and for a source that does not have one vector per word.
    """
    encoder: SentenceEncoder
    if options.text_vectors[0].removesuffix(WEIGHTED) == PPMI_IMAGE:
        texts = [" ".join(example.captions) for example in data.split("train")]
        size = options.text_min_count, options.text_dimensions
        encoder = fit_ppmi_svd(texts, *size, weighted=True, window=None)
    else:
        encoder = build_sentence_encoder(options, data)
    if not isinstance(encoder, WordSum) or encoder.vectors is None:
        raise InputError(
            "the spatial embedding needs one vector per word, which these --text-vectors do not "
            f"have: {', '.join(options.text_vectors)}; pass word vectors"
        )
    vectors = unit_rows(encoder.vectors - encoder.vectors.mean(0))
    is_plain = not any(source.endswith(WEIGHTED) for source in options.text_vectors)
    weights = np.ones(len(encoder.words), np.float32) if is_plain else encoder.weights
    return WordSum(encoder.words, weights, vectors)


def build_labels(
    options: SpatialTaskOptions, data: CaptionData, reader: TextReader, seed: int
) -> LabelSplit:
    """Choose the labels with vectors that enough training images have; hold out a fraction.

    Raises InputError if fewer than two labels remain.
    """
    words = label_words(data, "train", options.tags)
    names = choose_labels(words, options.min_images, lambda name: not reader.unknown_words(name))
    return split_labels(names, options.held_out, seed)


def sample_labels(
    labels: ImageLabels, image: int, count: int, generator: np.random.Generator
) -> tuple[np.ndarray, int]:
    """Return the indices of labels on which to train an image, and the number of positive ones.

    All labels of the image come first. Random labels that the image does not have follow, until
    there are `count` labels in total. Labels that are unclear for the image are never used.
    """
    present = labels.present[image]
    taken = np.concatenate([present, labels.unclear[image]])
    absent = np.setdiff1d(np.arange(len(labels.names)), taken, assume_unique=True)
    missing = min(len(absent), max(0, count - len(present)))
    return np.concatenate([present, generator.permutation(absent)[:missing]]), len(present)
