"""One run of the joint embedding: its vocabulary, word vectors, model and batches."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ...checkpoints.checkpoint import load_checkpoint_weights
from ...data.dataset import CaptionData, fingerprint
from ...distributed import say
from ...errors import InputError
from ...models.linking.joint import Differences, Exchanged, JointBatch, JointEmbedding
from ...models.linking.options import RANDOM_NEGATIVE, JointOptions
from ...models.linking.texts import TextReader, Texts, concatenate, load_reader
from ...models.parameter_count import count_parameters, describe_parameters
from ...prefetch import load_ahead
from ...text.options import TextVectorOptions
from ...text.sentence_vectors import WordSum, fit_word2vec, read_word_vectors
from ...text.tokenizer import plain_words
from ...text.vocabulary import Vocabulary
from ..encoding import build_configured_encoder
from ..task import JobInputs
from .batch_texts import Opposites, ShortTexts, are_parts, number_stems
from .job import CaptionedImage, LinkingJob, merge, read_image_rows
from .options import WORD2VEC, JointTaskOptions
from .text_vectors import fit_sentence_encoder

MAX_SUBTRACTED = 64  # different words in a batch


class JointJob(LinkingJob):
    """Implements `tasks.task.Job`."""

    advice = (
        "use a lower --learning-rate, --loss infonce, or, with --loss hardest, more "
        "--warm-up-epochs"
    )

    def __init__(self, inputs: JobInputs) -> None:
        """Build or load the vocabulary, build the model, and open the images or features."""
        super().__init__(inputs)
        groups, start = inputs.options, inputs.start
        self._model_options, options = groups.of(JointOptions, JointTaskOptions)
        reader = load_reader(start.path) if start else build_reader(options, inputs.data)
        rows = read_image_rows(options.image_vectors, inputs.data)
        encoder = build_configured_encoder(groups) if rows is None else None
        size = encoder.channels if encoder else rows.dimensions if rows else 0
        assert reader.vocabulary is not None
        words = len(reader.vocabulary)
        model = JointEmbedding(size, words, reader.vector_size, self._model_options, encoder)
        if start:
            load_checkpoint_weights(model, start)
        elif (source := options.word_vectors) is not None:
            captions, minimum = training_captions(inputs.data, options), options.text_min_count
            fill_embedding(model.words, source, reader.vocabulary, captions, minimum)
        say(
            f"joint embedding of {size} image dimensions and {words} tokens in "
            f"{model.dimensions} dimensions, with {describe_parameters(count_parameters(model))}"
        )
        self.open(model.to(inputs.device), reader, rows)
        self._texts = self.read_training_texts()
        self._short, self._opposites = self._prepare_batch_texts(options)
        per_batch = options.captions_per_batch
        if per_batch is None and self.images.are_features:
            per_batch = 1
        self._batches = partial(
            self.order, captions_per_image=options.captions_per_image, per_batch=per_batch
        )
        self.steps = len(self._batches(0))

    def _prepare_batch_texts(
        self, options: JointTaskOptions
    ) -> tuple[ShortTexts | None, Opposites | None]:
        """Return what makes the short texts and the exchanged texts of a batch.

        Each is None if the run does not use it.
        """
        tokens, vocabulary = self._texts.tokens, self.reader.vocabulary
        assert tokens is not None
        assert vocabulary is not None
        self._stems = number_stems(vocabulary)
        # Sentence vectors exist for captions only.
        if self._model_options.loss == RANDOM_NEGATIVE or self._texts.vectors is not None:
            return None, None
        short = ShortTexts.of(tokens, len(vocabulary)) if options.short_texts else None
        return short, Opposites.of(options.opposites, vocabulary) if options.opposites else None

    def batches(self, epoch: int, first: int) -> Iterator[JointBatch]:
        """Yield this process's share of an epoch's batches of images and texts, from `first`."""
        batches, wrong_rows = self._batches(epoch), None
        if self._model_options.loss == RANDOM_NEGATIVE:
            used = sorted(row for items in batches for item in items for row in item.rows)
            seed = (self.training_options.seed, epoch)
            wrong_rows = draw_wrong_texts(self.image_of_text, np.array(used), seed)
        warm = epoch >= self._model_options.warm_up_epochs
        yield from load_ahead(
            lambda items: self._load(items, epoch, warm, wrong_rows),
            self.share(batches[first:]),
            self.inputs.options.data.workers,
            pin=self.inputs.device.type == "cuda",
        )

    def _load(
        self, items: Sequence[CaptionedImage], epoch: int, warm: bool, wrong_rows: np.ndarray | None
    ) -> JointBatch:
        indices, rows, image_of_text = merge(items)
        batch = JointBatch(
            self.images.load(indices),
            self.images.are_features,
            self._texts.take(torch.from_numpy(rows)),
            torch.from_numpy(image_of_text),
            tuple(self.examples[i].id for i in indices),
            warm,
            None if wrong_rows is None else self._texts.take(torch.from_numpy(wrong_rows[rows])),
            torch.from_numpy(self.own_texts(indices, rows)),
        )
        seed = hash((self.training_options.seed, epoch, *rows[:8].tolist()))
        return self._add_texts(batch, indices, torch.Generator().manual_seed(seed))

    def _add_texts(
        self, batch: JointBatch, indices: Sequence[int], generator: torch.Generator
    ) -> JointBatch:
        """Add short texts, which are treated like captions, and texts with exchanged words.

        With the loss "infonce", also add queries that subtract a word from a short text.
        """
        tokens, image_of_text, own = batch.texts.tokens, batch.image_of_text, batch.own
        assert tokens is not None
        assert own is not None
        if self._short:
            short = self._short.draw(tokens, generator)
            texts = concatenate([batch.texts, Texts(short)])
            own = torch.cat([own, self._belong(short, indices)], 1)
            image_of_text = image_of_text.repeat(2)
            batch = replace(batch, texts=texts, image_of_text=image_of_text, own=own)
            tokens = texts.tokens
            if self._model_options.loss == "infonce":
                batch = self._subtract_words(batch, indices, generator)
        if self._opposites:
            assert tokens is not None
            changed, rows = self._opposites.exchange(tokens)
            kept = ~self._belong(changed, indices).gather(0, image_of_text[rows][None])[0]
            if kept.any():
                batch = replace(batch, exchanged=Exchanged(Texts(changed[kept]), rows[kept]))
        return batch

    def _subtract_words(
        self, batch: JointBatch, indices: Sequence[int], generator: torch.Generator
    ) -> JointBatch:
        """Add a query A - B for each short text A, with a random word B.

        The query is left out if a caption of the image of A contains B.
        """
        assert self._short is not None
        assert batch.own is not None
        words = self._short.draw_words(MAX_SUBTRACTED, generator)
        present = self._belong(words, indices)  # (B, U)
        rows = torch.arange(len(batch.texts) // 2, len(batch.texts))  # the short texts
        word_of = torch.randint(len(words), rows.shape, generator=generator)
        absent = ~present[batch.image_of_text[rows], word_of]
        rows, word_of = rows[absent], word_of[absent]
        if not len(rows):
            return batch
        own = batch.own[:, rows] & ~present[:, word_of]
        return replace(batch, differences=Differences(Texts(words), rows, word_of, own))

    def _belong(self, tokens: Tensor, indices: Sequence[int]) -> Tensor:
        """Return a mask (B, N): whether a text (N, T) is part of a caption of an image.

        tokens (N, T): the texts. indices: B images. As in `are_parts`, other words of the caption
        may be in between. Forms of a word count as the same.
        """
        firsts = np.searchsorted(self.image_of_text, indices)
        counts = np.searchsorted(self.image_of_text, indices, "right") - firsts
        rows = np.concatenate([np.arange(f, f + n) for f, n in zip(firsts, counts, strict=True)])
        captions = self._texts.take(torch.from_numpy(rows)).tokens
        assert captions is not None
        found = are_parts(self._stems[tokens], self._stems[captions])
        parts = torch.split(found, counts.tolist(), 1)
        return torch.stack([part.any(1) for part in parts])


def training_captions(data: CaptionData, options: JointTaskOptions) -> list[str]:
    """Return the captions to train on, image by image, up to `captions_per_image` of each."""
    count = options.captions_per_image
    return [text for example in data.split("train") for text in example.captions[:count]]


def draw_wrong_texts(
    image_of_text: np.ndarray, used: np.ndarray, seed: Sequence[int]
) -> np.ndarray:
    """Draw a negative for each text that is used: a random text of another image.

    image_of_text (N,): in increasing order. used: rows of the texts that are used, in increasing
    order. Returns rows (N,), drawn uniformly from the used texts of other images, or 0 for a text
    that is not used.
    """
    images = image_of_text[used]
    first, last = (np.searchsorted(images, images, side) for side in ("left", "right"))
    drawn = np.random.default_rng(seed).integers(0, len(used) - (last - first))
    wrong = np.zeros(len(image_of_text), int)
    wrong[used] = used[np.where(drawn < first, drawn, drawn + last - first)]
    return wrong


def build_reader(options: JointTaskOptions, data: CaptionData) -> TextReader:
    """Build the vocabulary, and a sentence encoder if the options contain `text_vectors`.

    The words and statistics of both come from `training_captions`.
    """
    captions = training_captions(data, options)
    vocabulary = Vocabulary.build(map(plain_words, captions), options.text_min_count)
    sentences = None
    if options.text_vectors:
        sources = TextVectorOptions(
            text_vectors=options.text_vectors,
            text_min_count=options.text_min_count,
            text_dimensions=options.text_dimensions,
        )
        count = sum(len(example.captions) for example in data.examples)
        sentences = fit_sentence_encoder(sources, captions, count, fingerprint(data))
    return TextReader(vocabulary, sentences, options.max_words)


def fill_embedding(
    embedding: nn.Embedding,
    source: str,
    vocabulary: Vocabulary,
    captions: list[str],
    min_count: int,
) -> None:
    """Initialise word embeddings with word2vec of the captions, or with vectors of a file.

    embedding: one row for each token of the vocabulary. source: WORD2VEC or the path of a file.
    min_count: minimum count of a word in the captions. The vectors are scaled so that their mean
    norm is that of the random embeddings. Words without a vector keep their random embedding.
    Raises InputError if the size of the vectors differs from that of the embeddings.
    """
    size = embedding.embedding_dim
    words: WordSum = (
        fit_word2vec(captions, min_count, size, weighted=False, whitened=False)
        if source == WORD2VEC
        else read_word_vectors(Path(source), captions, min_count, weighted=False, whitened=False)
    )
    assert words.vectors is not None
    if words.vectors.shape[1] != size:
        raise InputError(
            f"the word vectors {source} have {words.vectors.shape[1]} dimensions, but word_size is "
            f"{size}; pass --word-size {words.vectors.shape[1]}"
        )
    tokens = torch.tensor(vocabulary.encode(words.words))
    with torch.no_grad():
        norm = embedding.weight.norm(dim=1).mean()
        vectors = torch.from_numpy(np.ascontiguousarray(words.vectors))
        embedding.weight[tokens] = vectors / vectors.norm(dim=1).mean() * norm
