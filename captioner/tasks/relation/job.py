"""One run of the relation task: its labels, vocabulary, model and batches."""

import random
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ... import distributed
from ...checkpoints.checkpoint import Checkpoint, load_checkpoint_weights
from ...checkpoints.relation import load_reader
from ...data.dataset import Example
from ...data.relations import describe_labels, with_relations
from ...data.thumbnails import load_thumbnails
from ...distributed import say
from ...errors import InputError
from ...models.losses import Loss
from ...models.parameter_count import count_parameters, describe_parameters
from ...models.relation.articles import ArticleReader
from ...models.relation.model import RelationBatch, RelationModel
from ...models.relation.options import RelationOptions
from ...prefetch import load_ahead
from ...relation import RelationClassifier, group_rows
from ...text.sentences import split_sentences
from ...text.tokenizer import plain_words
from ...text.trained_words import fit_ppmi_svd
from ...text.vocabulary import Vocabulary
from ..commands import captioner_command, program
from ..encoding import build_configured_encoder, open_split
from ..task import JobInputs
from .options import AUTOENCODER, RelationTaskOptions
from .reconstruction import measure
from .scores import LabelledSplit, RelationResult, classify_split, contradictions, read_split
from .sheet import SHEET, save_sheet


class Item(NamedTuple):
    """An image of a batch, with the rows of some of its texts and of contradictions of it."""

    image: int
    texts: list[int]
    contradictions: list[int]


class RelationJob:
    """Implements `tasks.task.Job`."""

    setting = "val split"
    fit: Callable[[], None] | None = None

    def __init__(self, inputs: JobInputs) -> None:
        """Generate labelled texts if the data has no labels, build the model, and open the images.

        Raises InputError for a label that is not a level of its head and, for a classifier, if no
        text of the train split is labelled.
        """
        groups, start = inputs.options, inputs.start
        self.inputs = inputs
        self._model_options, self._options = groups.of(RelationOptions, RelationTaskOptions)
        self.is_autoencoder = self._options.recipe == AUTOENCODER
        self.data = with_relations(inputs.data)
        examples, val_examples = self.data.split("train"), self.data.split("val")
        for line in (*self.data.notes[len(inputs.data.notes) :], *describe_labels(examples)):
            say(line)
        self._are_generated = self.data is not inputs.data
        reader = build_reader(self._options, examples, start)
        heads = self._model_options.parsed_heads
        self.train = read_split(examples, reader, heads)
        if not self.is_autoencoder:
            for head, labels in zip(heads, self.train.labels.T, strict=True):
                if not (labels >= 0).any():
                    say(
                        f"note: no text of the train split has the label {head.name}, so its "
                        "predictions will mean nothing; pass --heads without it"
                    )
        self.val = read_split(val_examples, reader, heads)
        self.model = self._build_model(reader, start).to(inputs.device)
        self.classifier = RelationClassifier(self.model, reader, inputs.transform)
        kind, encoder = self.model.features, self.model.encoder
        assert encoder is not None
        self.images = open_split(encoder, examples, inputs, kind).images
        self.val_images = open_split(encoder, val_examples, inputs, kind).images
        if self.is_autoencoder:
            self._open_thumbnails(measured=start is not None)
        self.steps = len(self._order(self.train, 0))

    def _build_model(self, reader: ArticleReader, start: Checkpoint | None) -> RelationModel:
        encoder = build_configured_encoder(self.inputs.options)
        size = len(reader.vocabulary)
        model = RelationModel(encoder.channels, size, self._model_options, encoder)
        if start:
            load_checkpoint_weights(model, _with_own_heads(start, model))
        else:
            fill_embedding(model, reader.vocabulary, _sentences(self.data.split("train")))
        # More training would fit them to the captions of training images, not to those of others.
        keep = start is not None and encoder.frozen and not self.is_autoencoder
        model.train_parts(autoencoder=self.is_autoencoder, vectors=not keep)
        say(
            f"{'autoencoder' if self.is_autoencoder else 'classifier'} of images with "
            f"{encoder.channels} channels and {size:,} words, "
            f"{describe_parameters(count_parameters(model))}"
        )
        return model

    def _texts(self, epoch: int) -> LabelledSplit:
        """Return the training texts of an epoch.

        Generated texts are generated anew, with the epoch as their seed. The same few would be
        remembered, whereas a caption can be contradicted in many ways.
        """
        if epoch == 0 or not self._are_generated:
            return self.train
        examples = tuple(self.inputs.data.split("train"))
        fresh = with_relations(replace(self.inputs.data, examples=examples), epoch)
        return read_split(
            fresh.split("train"), self.classifier.reader, self._model_options.parsed_heads
        )

    def _chosen_rows(self, texts: LabelledSplit) -> np.ndarray:
        rows = texts.pairs if self.is_autoencoder else texts.labelled
        if not len(rows):
            names = ", ".join(head.name for head in self._model_options.parsed_heads)
            raise InputError(
                f"no text of the train split has a label for the heads {names}; pass --heads for "
                "the labels of the data, or train the autoencoder with --recipe autoencoder"
            )
        return rows

    def _open_thumbnails(self, *, measured: bool) -> None:
        """Load the thumbnails of both splits.

        Unless they were `measured` by an earlier run, also measure the statistics of the training
        thumbnails and the frequencies of words.
        """
        size, workers = self._model_options.thumbnail_size, self.inputs.options.data.workers
        self.thumbnails, self.val_thumbnails = (
            load_thumbnails([example.path for example in split.examples], size, workers)
            for split in (self.train, self.val)
        )
        if not measured:
            counts = self.train.store.word_counts(self.train.pairs, self.model.vocabulary_size)
            self.model.text_decoder.measure(counts)
            self.model.image_decoder.measure(self.thumbnails)

    def _order(self, texts: LabelledSplit, epoch: int) -> list[list[Item]]:
        """Return an epoch's batches of images in random order, each image with some of its texts.

        texts: those of the epoch. Each batch has at least two images per process. Raises InputError
        if there are fewer.
        """
        rng = random.Random(f"{self.inputs.options.training.seed}/{epoch}")
        count = None if self.is_autoencoder else self._options.texts_per_image
        wrong: dict[int, list[int]] = {}
        if self.is_autoencoder:
            found = contradictions(texts, self._model_options.parsed_heads)
            wrong = dict(group_rows(found, texts.image_of_text))
        items = []
        for image, rows in group_rows(self._chosen_rows(texts), texts.image_of_text):
            few = count is not None and count < len(rows)
            chosen = rng.sample(rows, count or 0) if few else rows
            items.append(Item(image, chosen, wrong.get(image, [])))
        rng.shuffle(items)
        smallest = 2 * distributed.world_size()  # batch normalisation needs two images
        if len(items) < smallest:
            kind = "texts" if self.is_autoencoder else "labelled texts"
            raise InputError(
                f"training needs at least 2 images with {kind} per process, "
                f"{smallest} in total, got {len(items)}; add some to the train split"
            )
        size = max(self.inputs.options.training.batch_size, smallest)
        batches = [items[first : first + size] for first in range(0, len(items), size)]
        if len(batches[-1]) < smallest:
            batches[-2:] = [batches[-2] + batches[-1]]
        return batches

    def batches(self, epoch: int, first: int) -> Iterator[RelationBatch]:
        """Yield this process's share of an epoch's batches, from number `first`."""
        rank, world = distributed.rank(), distributed.world_size()
        texts = self._texts(epoch)
        own = (items[rank::world] for items in self._order(texts, epoch)[first:])
        workers, pin = self.inputs.options.data.workers, self.inputs.device.type == "cuda"
        yield from load_ahead(partial(self._load, texts), own, workers, pin=pin)

    def _load(self, texts: LabelledSplit, items: Sequence[Item]) -> RelationBatch:
        images = [item.image for item in items]
        rows, image_of_text = _flatten([item.texts for item in items])
        wrong, image_of_wrong = _flatten([item.contradictions for item in items])
        return RelationBatch(
            self.images.load(images),
            self.images.are_features,
            texts.store.take(rows),
            image_of_text,
            torch.from_numpy(texts.labels[rows]),
            self.thumbnails[images] if self.is_autoencoder else None,
            texts.store.take(wrong) if wrong else None,
            image_of_wrong if wrong else None,
            tuple(texts.examples[image].id for image in images),
        )

    def prepare(self, batch: Any) -> tuple[Any, dict[str, Tensor]]:
        """Return the batch unchanged, and nothing to log."""
        return batch, {}

    def observe(self, loss: Loss) -> None:
        """Do nothing: the losses of single steps are not needed."""

    def evaluate(self, _precision: str, /) -> RelationResult:
        """Score a classifier's labels of the val split, or an autoencoder's reconstructions."""
        self.model.eval()
        if not self.is_autoencoder:
            return RelationResult(classify_split(self.classifier, self.val_images, self.val))
        return RelationResult(
            reconstruction=measure(
                self.classifier,
                self.val_images,
                self.val.store,
                self.val.image_of_text,
                self.val.pairs.tolist(),
                self.val_thumbnails,
            )
        )

    def show(self, _result: RelationResult, _epoch: int, _log_image: Any) -> None:
        """Do nothing: reconstructions are drawn at the end."""

    def signature(self, scores: Mapping[str, float]) -> str:
        """Return the protocol of the scores; an empty string before evaluation."""
        if not scores:
            return ""
        rows = self.val.pairs if self.is_autoencoder else self.val.labelled
        return f"val split, {len(rows):,} texts of {len(self.val.examples):,} images"

    def save_text_model(self, directory: Path) -> None:
        """Write the vocabulary."""
        self.classifier.reader.vocabulary.save(directory / "vocabulary.json")

    def conclude(self, _: RelationResult) -> list[str]:
        """Draw an autoencoder's reconstructions of val images; return a line with the path.

        A classifier has none, and with --heatmaps 0 none are drawn.
        """
        count = self.inputs.options.run.heatmaps
        if not self.is_autoencoder or not count:
            return []
        path = self.inputs.run / SHEET
        save_sheet(path, self.classifier, self.val_images, self.val, count)
        return [f"reconstructions: {path}"]

    def next_commands(self) -> list[str]:
        """Return commands that evaluate and use a classifier.

        For an autoencoder, the command trains a classifier from it.
        """
        run, inputs = str(self.inputs.run), self.inputs.options
        if self.is_autoencoder:
            data = [] if inputs.data.data is None else ["--data", str(inputs.data.data)]
            start = ["--system", "relation", *data, "--start-from", run]
            encoder = inputs.encoder.encoder
            return [shlex.join([*program("train"), *start, "--encoder", encoder])]
        splits = {example.split for example in self.data.examples}
        split = "test" if "test" in splits else "val"
        image, text = self.val.examples[0].path, self.val.examples[0].captions[0]
        relate = [*captioner_command(), "relate", str(image), text.partition("\n")[0]]
        evaluate = [*program("evaluate"), "--checkpoint", run, "--split", split]
        return [shlex.join(evaluate), shlex.join([*relate, "--checkpoint", run])]


def _flatten(groups: Sequence[list[int]]) -> tuple[list[int], Tensor]:
    """Return the rows of all groups, and the index (R,) of each row's group."""
    owner = torch.repeat_interleave(torch.tensor([len(rows) for rows in groups]))
    return [row for rows in groups for row in rows], owner


def _with_own_heads(start: Checkpoint, model: RelationModel) -> Checkpoint:
    """Return the checkpoint; if it was trained for other heads, with those of the new model."""
    if start.config["model"].get("heads") == model.options.heads:
        return start
    own = {name: value for name, value in model.state_dict().items() if name.startswith("heads.")}
    kept = {name: value for name, value in start.weights.items() if not name.startswith("heads.")}
    return Checkpoint(start.path, start.config, kept | own)


def _sentences(examples: Sequence[Example]) -> list[str]:
    """Return the distinct sentences of all texts; generated texts repeat those of captions."""
    texts = (text for example in examples for text in example.captions)
    return list(dict.fromkeys(sentence for text in texts for sentence in split_sentences(text)))


def build_reader(
    options: RelationTaskOptions, examples: Sequence[Example], start: Checkpoint | None = None
) -> ArticleReader:
    """Build a reader with the limits of the options.

    Its vocabulary is that of `start`, or of the distinct sentences of the examples if it is None.
    """
    if start is None:
        sentences = map(plain_words, _sentences(examples))
        vocabulary = Vocabulary.build(sentences, options.text_min_count)
    else:
        vocabulary = load_reader(start).vocabulary
    return ArticleReader(vocabulary, options.max_sentences, options.max_words)


def fill_embedding(model: RelationModel, vocabulary: Vocabulary, sentences: Sequence[str]) -> None:
    """Initialise the word embeddings with PPMI and SVD of the training sentences.

    All vectors are scaled by the same factor, so that their mean norm is that of the random
    embeddings. Words without a vector keep their random embedding, and vectors with fewer
    dimensions replace only the first ones.
    """
    weight = model.articles.words.weight
    found = fit_ppmi_svd(sentences, 1, weight.shape[1], weighted=False)
    assert found.vectors is not None
    known = [i for i, word in enumerate(found.words) if word in vocabulary]
    tokens = torch.tensor(vocabulary.encode(found.words[i] for i in known))
    vectors = torch.from_numpy(found.vectors[known])
    with torch.no_grad():
        norm = weight.norm(dim=1).mean()
        weight[tokens, : vectors.shape[1]] = vectors / vectors.norm(dim=1).mean() * norm
