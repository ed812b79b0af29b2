"""One run of the joint embedding: its vocabulary, word vectors, model and batches."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from ...checkpoints.checkpoint import load_checkpoint_weights
from ...data.dataset import CaptionData
from ...distributed import say
from ...errors import InputError
from ...models.linking.joint import JointBatch, JointEmbedding
from ...models.linking.texts import TextReader, load_reader
from ...prefetch import load_ahead
from ...text.options import TextVectorOptions
from ...text.sentence_vectors import WordSum, fit_word2vec, read_word_vectors
from ...text.tokenizer import plain_words
from ...text.vocabulary import Vocabulary
from ..encoding import build_configured_encoder
from ..task import JobInputs
from .job import LinkingJob, read_image_rows
from .options import WORD2VEC, JointTaskOptions
from .task import joint_options
from .text_vectors import build_sentence_encoder


class JointJob(LinkingJob):
    """Implements `tasks.task.Job`."""

    advice = (
        "use a lower --learning-rate, with --loss hardest more --warm-up-epochs, or --loss infonce"
    )

    def __init__(self, inputs: JobInputs) -> None:
        """Build the vocabulary and the model, and pool the features of a frozen encoder."""
        super().__init__(inputs)
        groups, start = inputs.options, inputs.start
        self._model_options, options = joint_options(groups)
        reader = load_reader(start.path) if start else build_reader(options, inputs.data)
        rows = read_image_rows(options.image_vectors, inputs.data)
        encoder = build_configured_encoder(groups) if rows is None else None
        size = encoder.channels if encoder else rows.dimensions if rows else 0
        assert reader.vocabulary is not None
        words = len(reader.vocabulary)
        model = JointEmbedding(size, words, reader.vector_size, self._model_options, encoder)
        if start:
            load_checkpoint_weights(model, start)
        elif options.word_vectors is not None:
            fill_embedding(model, options, reader.vocabulary, self._captions())
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        say(
            f"joint embedding of {size} image dimensions and {words} words in "
            f"{model.dimensions} dimensions, with {trained:,} trained parameters"
        )
        self.open(model.to(inputs.device), reader, rows)
        self._texts = self.read_training_texts()
        self.steps = len(self.order(0))

    def _captions(self) -> list[str]:
        return [caption for example in self.examples for caption in example.captions]

    def batches(self, epoch: int, first: int) -> Iterator[JointBatch]:
        """Yield an epoch's batches of images with all their captions, starting with `first`."""
        warm = epoch >= self._model_options.warm_up_epochs
        pin = self.inputs.device.type == "cuda"
        loaded = load_ahead(
            lambda indices: self._load(indices, warm),
            self.shares(epoch, first),
            self.inputs.options.data.workers,
            pin=pin,
        )
        yield from loaded

    def _load(self, indices: Sequence[int], warm: bool) -> JointBatch:
        texts, image_of_text = self.captions_of(indices)
        return JointBatch(
            self.images.load(indices),
            self.images.are_features,
            self._texts.take(torch.from_numpy(texts)),
            torch.from_numpy(image_of_text),
            tuple(self.examples[i].id for i in indices),
            warm,
        )


def build_reader(options: JointTaskOptions, data: CaptionData) -> TextReader:
    """Build the vocabulary, and any sentence encoder, from the captions of the train split."""
    captions = [plain_words(c) for example in data.split("train") for c in example.captions]
    vocabulary = Vocabulary.build(captions, options.text_min_count)
    sentences = None
    if options.text_vectors:
        sources = TextVectorOptions(
            text_vectors=options.text_vectors,
            text_min_count=options.text_min_count,
            text_dimensions=options.text_dimensions,
        )
        sentences = build_sentence_encoder(sources, data)
    return TextReader(vocabulary, sentences, options.max_words)


def fill_embedding(
    model: JointEmbedding, options: JointTaskOptions, vocabulary: Vocabulary, captions: list[str]
) -> None:
    """Initialise the word embeddings with word2vec of the captions, or with vectors of a file.

    The vectors are scaled so that their mean norm is that of the random embeddings. Words without
    a vector keep their random embedding. Raises InputError if the size of the vectors differs from
    that of the embeddings.
    """
    source, size = options.word_vectors, model.options.word_size
    assert source is not None
    words: WordSum = (
        fit_word2vec(captions, options.text_min_count, size, weighted=False, whitened=False)
        if source == WORD2VEC
        else read_word_vectors(
            Path(source), captions, options.text_min_count, weighted=False, whitened=False
        )
    )
    assert words.vectors is not None
    if words.vectors.shape[1] != size:
        raise InputError(
            f"the word vectors {source} have {words.vectors.shape[1]} dimensions, but word_size is "
            f"{size}; pass --word-size {words.vectors.shape[1]}"
        )
    tokens = torch.tensor(vocabulary.encode(words.words))
    with torch.no_grad():
        norm = model.words.weight.norm(dim=1).mean()
        vectors = torch.from_numpy(np.ascontiguousarray(words.vectors))
        model.words.weight[tokens] = vectors / vectors.norm(dim=1).mean() * norm
