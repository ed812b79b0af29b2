"""The article encoder: an image and the sentences of a text become one article embedding.

The encoder of Henning and Ewerth 2017: an LSTM reads the words of each sentence, and another one
reads the image embedding and then the sentence vectors; its last output and the image embedding
become the article embedding. Beyond it, unless there are no support groups, each sentence vector
also contains how the sentence and its words match the image and the other sentences, which the
LSTMs would otherwise have to learn from the labels alone. Shapes: B images, P cells, X channels, N
texts, K sentences of all texts, T words, W, S, A sizes of words, sentences and articles, G support
groups, M = 2S + 4G + 5 matches of a sentence, V words of all sentences.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ...text.vocabulary import PAD
from ..layers import call_lstm
from .articles import Articles
from .options import RelationOptions

SHARPNESS = 8.0  # of the weights of sentences by their cosines with the image


class EmbeddedImages(NamedTuple):
    """Images as embeddings (B, S), whose entries have a mean square of 1, and as cells (B, P, S).

    Entries of the cells have a mean square of 1 over all images. With one cell, it is the
    embedding.
    """

    embeddings: Tensor
    cells: Tensor

    def take(self, rows: Tensor) -> "EmbeddedImages":
        """Return the images at `rows`."""
        return EmbeddedImages(self.embeddings[rows], self.cells[rows])


class ReadSentences(NamedTuple):
    """K sentences: LSTM states, and vectors that are compared with images.

    states (K, S): after the last word of each sentence. words (K, T, S): vectors of words in their
    context, 0 for padding. vectors (K, S): sums of the word vectors, scaled like an image
    embedding. lengths (K,): numbers of words.
    """

    states: Tensor
    words: Tensor
    vectors: Tensor
    lengths: Tensor

    def split(self, count: int) -> "tuple[ReadSentences, ReadSentences]":
        """Return the first `count` sentences, and the others."""
        first, others = zip(*((part[:count], part[count:]) for part in self), strict=True)
        return ReadSentences(*first), ReadSentences(*others)

    @property
    def is_word(self) -> Tensor:
        """A mask (K, T) that is False for padding."""
        steps = torch.arange(self.words.shape[1], device=self.words.device)
        return steps < self.lengths[:, None]


class Matches(NamedTuple):
    """How sentences and their words match images; without support groups, M and V are 0.

    sentences (K, M): products of a sentence with its image and with the other sentences of its
    text. words (V, 2S): products of each word with the cell that matches its sentence best, and the
    word itself. sentence_of_word (V,): the index of each word's sentence.
    """

    sentences: Tensor
    words: Tensor
    sentence_of_word: Tensor


class JoinedArticles(NamedTuple):
    """N texts with their images: article embeddings (N, A), and how the sentences match."""

    embeddings: Tensor
    matches: Matches


class ArticleEncoder(nn.Module):
    """Encodes images and texts as article embeddings."""

    def __init__(self, channels: int, vocabulary_size: int, options: RelationOptions) -> None:
        """Create the layers; channels: X."""
        super().__init__()
        self.options = options
        word, size, article = options.word_size, options.sentence_size, options.article_size
        self.words = nn.Embedding(vocabulary_size, word, padding_idx=PAD)
        with torch.no_grad():
            self.words.weight.div_(word**0.5)
        if options.image_hidden:
            self.image_hidden = nn.Linear(channels, options.image_hidden)
            channels = options.image_hidden
        self.image = nn.Linear(channels, size, bias=False)
        # Without it, what all images or all words have in common would dominate their products.
        self.image_norm = nn.BatchNorm1d(size, affine=False)
        self.sentence = nn.LSTM(word, size, batch_first=True)
        self.matching = nn.Linear(word + size, size, bias=False)
        self.matching_norm = nn.BatchNorm1d(size, affine=False)
        groups = options.support_groups
        self.match_size = 2 * size + 4 * groups + 5 if groups else 0
        if self.match_size:
            self.matches = nn.Linear(self.match_size, size)
        self.text = nn.LSTM(size, article, batch_first=True)
        self.article = nn.Linear(article + size, article)

    def embed_images(self, features: Tensor) -> EmbeddedImages:
        """Embed feature maps (B, X, h, w), or pooled features (B, 2, X), of which the mean is used.

        Maps are averaged in the cells of the grid, and each cell is embedded; pooled features are a
        single cell. The embedding of an image is the mean of its embedded cells, before both are
        scaled.
        """
        if features.ndim == 4:
            grid = F.adaptive_avg_pool2d(features.float(), self.options.image_grid)
            cells = grid.flatten(2).transpose(1, 2)  # (B, P, X)
        else:
            cells = features[:, :1].float()
        if self.options.image_scaling == "sqrt":
            # Only for frozen encoders: the gradient of the square root near 0 is too large.
            cells = F.normalize(cells.sign() * cells.abs().sqrt(), dim=-1)
        cells = F.dropout(cells, self.options.image_dropout, self.training)
        if self.options.image_hidden:
            cells = self.image_hidden(cells).relu()
        embedded = self.image(cells)  # (B, P, S)
        embedded = self.image_norm(embedded.flatten(0, 1).float()).view(embedded.shape)
        embeddings = unit_scale(embedded.mean(1))
        # Scaled one by one, cells that show only the background would match words at random.
        return EmbeddedImages(embeddings, embedded if cells.shape[1] > 1 else embeddings[:, None])

    def read_sentences(self, tokens: Tensor) -> ReadSentences:
        """Read sentences of tokens (K, T), each with at least one word.

        Texts share many sentences; each is read once.
        """
        distinct, number = torch.unique(tokens, dim=0, return_inverse=True)
        read = self._read_distinct(distinct)
        return ReadSentences(*(part[number] for part in read))

    def _read_distinct(self, tokens: Tensor) -> ReadSentences:
        lengths = (tokens != PAD).sum(1)
        words = self.words(tokens)  # (K, T, W)
        contexts, states = run_lstm(self.sentence, words, lengths)
        is_word, size = tokens != PAD, self.options.sentence_size
        matched = self.matching(torch.cat([words, contexts], -1)[is_word])  # (words, S)
        vectors = matched.new_zeros(*tokens.shape, size, dtype=torch.float32)
        vectors[is_word] = self.matching_norm(matched.float())
        return ReadSentences(states, vectors, unit_scale(vectors.sum(1)), lengths)

    def forward(self, images: EmbeddedImages, articles: Articles) -> JoinedArticles:
        """Encode N texts and their images, one for each text."""
        read = self.read_sentences(articles.tokens)
        return self.join(images, read, articles)

    def join(
        self, images: EmbeddedImages, read: ReadSentences, articles: Articles
    ) -> JoinedArticles:
        """Encode N texts whose sentences have been read, with their images, one for each text.

        read: the result of `read_sentences` for `articles.tokens`.
        """
        owner = articles.text_of_sentence
        rows, matches = read.states, self.match(images, read, articles)
        if self.match_size:
            rows = rows + self.matches(matches.sentences)
        longest = int(articles.counts.max())
        steps = rows.new_zeros(len(articles), 1 + longest, rows.shape[1])
        steps[:, 0] = images.embeddings
        steps[owner, 1 + articles.position] = rows
        _, states = run_lstm(self.text, steps, 1 + articles.counts)
        joined = self.article(torch.cat([states, images.embeddings], -1)).relu()
        return JoinedArticles(joined, matches)

    def match(self, images: EmbeddedImages, read: ReadSentences, articles: Articles) -> Matches:
        """Return how each sentence matches its image and the other sentences of its text."""
        owner, groups = articles.text_of_sentence, self.options.support_groups
        if not groups:
            none = read.vectors.new_zeros(0, 2 * read.vectors.shape[1])
            return Matches(read.vectors.new_zeros(len(owner), 0), none, owner.new_zeros(0))
        cells, whole = images.cells[owner], read.vectors[:, None]
        with_image = read.vectors * images.embeddings[owner]
        with_others = read.vectors * _other_sentences(read.vectors, articles)
        sentences = [
            with_image,
            with_others,
            with_others.sum(1, keepdim=True) / math.sqrt(whole.shape[-1]),
            compare_sentences(read.vectors, with_image.mean(1), articles),
            best_cells(whole, cells, 1)[:, 0],
            best_cells(whole, cells, groups)[:, 0],
            *self.supports(read, cells),
        ]
        best = (cells @ read.vectors[..., None])[..., 0].argmax(1)  # (K,)
        sentence, place = read.is_word.nonzero(as_tuple=True)
        words = read.words[sentence, place]
        products = words * cells[sentence, best[sentence]]
        return Matches(torch.cat(sentences, -1), torch.cat([products, words], -1), sentence)

    def supports(self, read: ReadSentences, cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return how much the image supports each sentence: mean, minimum and maximum over words.

        cells (K, P, S): those of each sentence's image. Each result is (K, G).
        """
        best = best_cells(read.words, cells, self.options.support_groups)
        padding = ~read.is_word[..., None]
        mean = best.masked_fill(padding, 0).sum(1) / read.lengths[:, None]
        low, high = best.masked_fill(padding, 1e4), best.masked_fill(padding, -1e4)
        return mean, low.amin(1), high.amax(1)


def best_cells(words: Tensor, cells: Tensor, groups: int) -> Tensor:
    """Return the products (K, T, G) of words with the cell that is best for each of G groups.

    words (K, T, S); cells (K, P, S): those of each sentence's image. Word and cell are compared by
    products over the groups of their entries, divided by the root of a group's size.
    """
    own = words.reshape(*words.shape[:2], groups, -1).transpose(1, 2)  # (K, G, T, S / G)
    parts = cells.reshape(*cells.shape[:2], groups, -1).permute(0, 2, 3, 1)  # (K, G, S / G, P)
    return (own @ parts).amax(-1).transpose(1, 2) / math.sqrt(own.shape[-1])


def compare_sentences(vectors: Tensor, matches: Tensor, articles: Articles) -> Tensor:
    """Return how each of K sentences agrees with the other sentences of its text, (K, 3).

    vectors (K, S): sentences with a mean square of 1. matches (K,): the cosine of each sentence
    with its image. The columns, of which all are 0 for a text of one sentence, are the highest
    cosine with another sentence, and the means of that cosine and of `matches` over the others, in
    which sentences that match the image have more weight. They are scaled like the products of
    other matches, by the root of S.
    """
    owner, place = articles.text_of_sentence, articles.position
    longest, root = int(articles.counts.max()), math.sqrt(vectors.shape[1])
    padded = vectors.new_zeros(len(articles), longest, vectors.shape[1])
    padded[owner, place] = vectors / root
    of_image = matches.new_zeros(len(articles), longest)
    of_image[owner, place] = matches
    is_sentence = torch.arange(longest, device=owner.device) < articles.counts[:, None]
    same = torch.eye(longest, dtype=torch.bool, device=owner.device)
    other = is_sentence[:, None] & ~same  # (N, K', K')
    cosines = padded @ padded.transpose(1, 2)
    weights = (SHARPNESS * of_image)[:, None].masked_fill(~other, -1e4).softmax(2)
    closest = cosines.masked_fill(~other, -1).amax(2)
    agreeing = torch.stack(
        [closest, (weights * cosines).sum(2), (weights @ of_image[..., None])[..., 0]], -1
    )
    several = (articles.counts > 1)[owner, None]
    return agreeing[owner, place] * several * root


def run_lstm(lstm: nn.LSTM, steps: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Return the outputs (K, T, S) and the last states (K, S) of sequences with these lengths.

    steps (K, T, W). lengths (K,): at least 1 each. Padding steps are not computed; their outputs
    are 0.
    """
    packed = pack_padded_sequence(steps, lengths.cpu(), batch_first=True, enforce_sorted=False)
    outputs, (state, _) = call_lstm(lstm, packed)
    padded, _ = pad_packed_sequence(outputs, batch_first=True, total_length=steps.shape[1])
    return padded, state[0]


def unit_scale(rows: Tensor) -> Tensor:
    """Scale rows (..., S) in float32 so that the mean square of their entries is 1."""
    return F.normalize(rows.float(), dim=-1) * math.sqrt(rows.shape[-1])


def _other_sentences(vectors: Tensor, articles: Articles) -> Tensor:
    """Return, for each of K sentences, the scaled sum (K, S) of the other sentences of its text.

    The sum is 0 if there are no others.
    """
    owner = articles.text_of_sentence
    sums = vectors.new_zeros(len(articles), vectors.shape[1]).index_add(0, owner, vectors)
    others = (articles.counts > 1)[owner, None]
    return unit_scale((sums[owner] - vectors) * others)
