"""Sentences as vectors: the LSTM's state after it has read a sentence.

Shapes: N sentences, R sentences per batch, T words, D feature channels, H hidden size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from ...data.batches import MAX_WORDS
from ...decoding.hypothesis import Memory, State
from ...meta import on_meta_device
from ...text.sentence_vectors import unit_rows
from ...text.vocabulary import START, Vocabulary
from ...vision.encoders import Encoder
from .build import CaptioningModel, build_model
from .embedding import TiedEmbedding
from .options import ModelOptions

BATCH_SIZE = 256
ENCODER = "encoder."  # the names of the image encoder's weights begin with it


class NoEncoder(nn.Module):
    """Replaces the image encoder of a model that only reads sentences."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels


class UnscoredEmbedding(TiedEmbedding):
    """Embeddings without scores of the next word, whose computation would double the time."""

    def scores(self, output: Tensor) -> Tensor:
        return output.new_empty(len(output), 0)


@dataclass(frozen=True, eq=False)
class SentenceState:
    """Represents a sentence by a captioning LSTM's hidden state after its last word.

    The states are scaled to norm 1. The LSTM also needs an image; its feature map has a single
    position: the mean over the captioner's training images if the model stores it (in
    `Standardize`), otherwise zeros, which represent the absence of all features, because encoders
    end in a ReLU. Sentences are read as in training: the start token, then at most MAX_WORDS words,
    with `<unk>` for each unknown word. Use `sentence_state` or `build_sentence_state` to create a
    SentenceState. model: a model in eval mode, without its image encoder.
    """

    model: CaptioningModel
    vocabulary: Vocabulary

    @property
    def dimensions(self) -> int:
        """The hidden size H."""
        return self.model.options.hidden_size

    def encode(self, sentences: Sequence[str]) -> np.ndarray:
        """Return unit vectors (N, H), float32; a sentence without known words gets zeros."""
        rows = np.zeros((len(sentences), self.dimensions), dtype=np.float32)
        tokens = []
        for sentence in sentences:
            words = self.vocabulary.tokenizer.split(sentence)[:MAX_WORDS]
            known = any(word in self.vocabulary for word in words)
            tokens.append([START, *self.vocabulary.encode(words)] if known else [])
        # The longest sentences come first, so that each step advances the first rows of a batch.
        order = sorted((i for i in range(len(tokens)) if tokens[i]), key=lambda i: -len(tokens[i]))
        with torch.inference_mode():
            memory, state = self.model.start(self._image(), sum(map(len, tokens)))
            for first in range(0, len(order), BATCH_SIZE):
                chosen = order[first : first + BATCH_SIZE]
                rows[chosen] = self._read([tokens[i] for i in chosen], memory, state).numpy()
        return unit_rows(rows)

    def unknown_words(self, sentence: str) -> list[str]:
        """Return the words outside the vocabulary, in order; all are read as `<unk>`."""
        return [
            word
            for word in self.vocabulary.tokenizer.split(sentence)
            if word not in self.vocabulary
        ]

    def _read(self, tokens: Sequence[list[int]], memory: Memory, state: State) -> Tensor:
        """Return the hidden states (R, H) after sentences sorted from longest to shortest.

        memory, state: those of a single image; the sentences are its hypotheses.
        """
        hidden, cell = (state[name].repeat(len(tokens), 1) for name in ("hidden", "cell"))
        for t in range(len(tokens[0])):
            words = torch.tensor([sentence[t] for sentence in tokens if t < len(sentence)])
            active = {"hidden": hidden[: len(words)], "cell": cell[: len(words)]}
            _, active, _ = self.model.step(words, active, memory)
            hidden[: len(words)], cell[: len(words)] = active["hidden"], active["cell"]
        return hidden

    def _image(self) -> Tensor:
        """Return the feature map (1, D, 1, 1) that is used for all sentences.

        It is the mean over the training images, or zeros if the model does not store the mean.
        """
        standardize = getattr(self.model, "standardize", None)
        if standardize is None:
            return torch.zeros(1, self.model.encoder.channels, 1, 1)
        return cast(Tensor, standardize.mean)[None, :, None, None]


def sentence_state(model: CaptioningModel, vocabulary: Vocabulary) -> SentenceState:
    """Create a sentence encoder on the CPU from a copy of a trained captioning model's weights."""
    weights = {k: v for k, v in model.state_dict().items() if not k.startswith(ENCODER)}
    return build_sentence_state(model.options, model.encoder.channels, vocabulary, weights)


def build_sentence_state(
    options: ModelOptions, channels: int, vocabulary: Vocabulary, weights: Mapping[str, Tensor]
) -> SentenceState:
    """Build the encoder from its model's options, feature channels D, vocabulary and weights.

    weights: the model's state dict without the weights of the image encoder. Raises RuntimeError if
    the names or shapes of the weights do not match the other arguments.
    """
    with on_meta_device():
        encoder = cast(Encoder, NoEncoder(channels))
        model = build_model(encoder, len(vocabulary), options)
        model.words = UnscoredEmbedding(len(vocabulary), options.embedding_size)
    # Products of tensors that begin at other bytes, as in a mapped file, are rounded differently.
    copies = {name: value.detach().clone() for name, value in weights.items()}
    model.load_state_dict(copies, assign=True)
    return SentenceState(model.eval(), vocabulary)
