"""The decoders of the autoencoder: from an article embedding to a thumbnail and to a text.

Henning and Ewerth 2017; the lengths of the text and of its sentences are given. Shapes: B images,
N texts, K sentences of all texts, T words, M words of all sentences, A, S, W sizes of articles,
sentences and words, V vocabulary, H thumbnail side.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...text.vocabulary import PAD, SPECIALS
from ..layers import call_lstm
from ..losses import Targets, caption_cross_entropy
from .articles import Articles
from .encoder import run_lstm
from .options import THUMBNAIL_STEP, RelationOptions

START_MAPS, MAPS = 16, (32, 16)  # channels of the small map, and after each enlargement
SCALE = 15.0  # initial factor of the cosines; without it, softmax over many words is nearly uniform


class ImageDecoder(nn.Module):
    """Decodes a thumbnail as its difference from the mean thumbnail, in standard deviations.

    mean (3, H, H) and deviation, one number for all pixels: those of the training thumbnails, on a
    scale from 0 to 1; see `measure`.
    """

    def __init__(self, options: RelationOptions) -> None:
        super().__init__()
        side = options.thumbnail_size
        self._start = side // THUMBNAIL_STEP
        self.start = nn.Linear(options.article_size, START_MAPS * self._start**2)
        convolutions = [
            nn.Conv2d(before, after, 5, padding=2)
            for before, after in zip((START_MAPS, *MAPS), (*MAPS, 3), strict=True)
        ]
        for layer in convolutions:  # with torch's smaller weights, it learns half as fast
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
        self.convolutions = nn.ModuleList(convolutions)
        self.mean: Tensor  # (3, H, H)
        self.register_buffer("mean", torch.zeros(3, side, side))
        self.deviation: Tensor
        self.register_buffer("deviation", torch.ones(()))

    def measure(self, thumbnails: Tensor) -> None:
        """Set the mean and the deviation from training thumbnails (B, 3, H, H), uint8.

        The deviation is the root mean square of all differences from the mean thumbnail, or 1 if
        all thumbnails are equal.
        """
        mean = thumbnails.double().mean(0)
        self.mean.copy_(mean / 255)
        variance = sum((each.double() - mean).square().mean() for each in thumbnails)
        deviation = (variance / len(thumbnails)) ** 0.5 / 255
        self.deviation.copy_(deviation if deviation > 0 else torch.ones(()))

    def normalise(self, thumbnails: Tensor) -> Tensor:
        """Map thumbnails (B, 3, H, H), uint8, to the differences that the decoder is trained on."""
        return (thumbnails.float() / 255 - self.mean) / self.deviation

    def forward(self, articles: Tensor) -> Tensor:
        """Decode article embeddings (N, A) as differences (N, 3, H, H)."""
        maps = self.start(articles).unflatten(1, (START_MAPS, self._start, self._start))
        first, second, last = self.convolutions
        for layer in (first, second):
            maps = layer(F.interpolate(maps, scale_factor=2, mode="nearest")).relu()
        decoded: Tensor = last(maps)
        return decoded

    def render(self, articles: Tensor) -> Tensor:
        """Decode article embeddings (N, A) as thumbnails (N, 3, H, H), uint8."""
        pixels: Tensor = self(articles).float() * self.deviation + self.mean
        return (pixels * 255).round().clamp(0, 255).to(torch.uint8)


class TextDecoder(nn.Module):
    """Decodes the words of each sentence by the cosines with all word vectors.

    One LSTM reads the article embedding at every step and outputs a vector for each sentence;
    another reads that vector at every step and outputs a vector for each word. The score of a word
    is its log frequency in training plus the scaled cosine; the scale is learned.
    """

    def __init__(self, vocabulary_size: int, options: RelationOptions) -> None:
        super().__init__()
        self.sentences = nn.LSTM(options.article_size, options.sentence_size, batch_first=True)
        self.words = nn.LSTM(options.sentence_size, options.word_size, batch_first=True)
        self.log_scale = nn.Parameter(torch.tensor(math.log(SCALE)))
        self.log_frequency: Tensor  # (V,)
        self.register_buffer("log_frequency", torch.full((vocabulary_size,), 0.0))

    def measure(self, counts: Tensor) -> None:
        """Set the log frequencies from the counts (V,) of tokens in training.

        One is added to every count, so that no frequency is 0; that of padding is negligible.
        """
        smoothed = counts.double() + 1
        smoothed[PAD] = 1e-6
        self.log_frequency.copy_((smoothed / smoothed.sum()).log())

    def forward(self, embeddings: Tensor, articles: Articles) -> Tensor:
        """Return a vector of norm 1 for each word and 0 for padding, (K, T, W).

        embeddings (N, A): article embeddings. articles: N texts; only their lengths are used.
        """
        longest = int(articles.counts.max())
        steps = embeddings[:, None].expand(-1, longest, -1)
        states, _ = call_lstm(self.sentences, steps)  # (N, longest, S)
        states = states[articles.text_of_sentence, articles.position]  # (K, S)
        repeated = states[:, None].expand(-1, articles.tokens.shape[1], -1)
        outputs, _ = run_lstm(self.words, repeated, (articles.tokens != PAD).sum(1))
        return F.normalize(outputs.float(), dim=-1)

    def cross_entropy(self, embeddings: Tensor, articles: Articles, words: Tensor) -> Tensor:
        """Return the mean negative log-probability (nats) of the words of the texts.

        embeddings (N, A): article embeddings. words (V, W): the word embeddings of the encoder.
        """
        is_word = articles.tokens != PAD
        outputs = self(embeddings, articles)[is_word] * self.log_scale.exp()  # (M, W)
        unit = F.normalize(words.float(), dim=-1)
        targets = Targets.one_word(articles.tokens[is_word])
        total, _ = caption_cross_entropy(outputs, unit, self.log_frequency, targets)
        return total / len(outputs)

    def most_likely(self, embeddings: Tensor, articles: Articles, words: Tensor) -> Tensor:
        """Return the most likely words of texts with these lengths, as tokens (K, T).

        Special tokens, such as the unknown word, are never chosen. embeddings, words: as in
        `cross_entropy`. articles: only the lengths are used.
        """
        unit = F.normalize(words.float(), dim=-1)
        scores: Tensor = (
            self(embeddings, articles) * self.log_scale.exp() @ unit.T + self.log_frequency
        )
        scores[..., : len(SPECIALS)] = -torch.inf
        return scores.argmax(-1).masked_fill(articles.tokens == PAD, PAD)
