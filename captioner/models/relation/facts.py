"""Facts of sentences: learned numbers that say how a sentence fits its image and its text.

They are computed from a few cosines, and from each word with its neighbours and with the image; the
article embedding does not enter. Shapes: P cells, N texts, L sentences of the longest text, K
sentences of all texts, T words, W, S sizes of words and sentences, U units per word, F facts.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .articles import Articles
from .encoder import EmbeddedImages, ReadSentences
from .options import RelationOptions

WORD_UNITS = 64
WORD_DROPOUT = 0.2
COSINES = 5
SCALE = 5.0  # of cosines, which are mostly between -0.2 and 0.6


class SentenceFacts(nn.Module):
    """Computes F facts in [0, 1] for each sentence."""

    def __init__(self, options: RelationOptions) -> None:
        super().__init__()
        self.word = nn.Linear(3 * options.word_size + options.sentence_size, WORD_UNITS)
        self.facts = nn.Linear(COSINES + 3 * WORD_UNITS, options.head_size)

    def forward(self, images: EmbeddedImages, read: ReadSentences, articles: Articles) -> Tensor:
        """Return the facts (K, F) of the sentences of N texts, and of their N images."""
        owner = articles.text_of_sentence
        own = EmbeddedImages(images.embeddings[owner], images.cells[owner])
        cosines = sentence_cosines(own, read, articles)
        facts = self.facts(torch.cat([cosines * SCALE, *self.read_words(own, read)], -1))
        return facts.float().sigmoid()

    def read_words(self, images: EmbeddedImages, read: ReadSentences) -> tuple[Tensor, ...]:
        """Return the mean, maximum and minimum (K, U) over the words of a sentence.

        images: those of the K sentences. A hidden layer reads each word: its embedding, those of
        its neighbours, and the product of its vector with the cell that fits it best.
        """
        words = read.embeddings * read.embeddings.shape[-1] ** 0.5
        before, after = F.pad(words, (0, 0, 1, 0))[:, :-1], F.pad(words, (0, 0, 0, 1))[:, 1:]
        inputs = torch.cat([before, words, after, best_products(read.words, images.cells)], -1)
        units = self.word(F.dropout(inputs, WORD_DROPOUT, self.training)).relu()  # (K, T, U)
        steps = torch.arange(units.shape[1], device=units.device)
        padding = (steps >= read.lengths[:, None])[..., None]
        zeroed = units.masked_fill(padding, 0)
        mean = zeroed.sum(1) / read.lengths[:, None]
        return mean, zeroed.amax(1), units.masked_fill(padding, 1e4).amin(1)


def best_products(words: Tensor, cells: Tensor) -> Tensor:
    """Return the products (K, T, S) of words with the cell that has the largest dot product.

    words (K, T, S); cells (K, P, S): those of each sentence's image.
    """
    if cells.shape[1] == 1:
        return words * cells
    best = (words @ cells.transpose(1, 2)).argmax(-1, keepdim=True)  # (K, T, 1)
    return words * cells.gather(1, best.expand(-1, -1, words.shape[-1]))


def sentence_cosines(images: EmbeddedImages, read: ReadSentences, articles: Articles) -> Tensor:
    """Return the cosines (K, 5) of sentences with their images and with the rest of their texts.

    images: those of the K sentences. The columns: the cosine with the image; the largest product
    with a cell, of the scale of a cosine; the mean and the maximum of the cosines with the other
    sentences of the text, and their sum weighted by how well these fit the image. The last three
    are 0 for a sentence without others.
    """
    owner, place, size = articles.text_of_sentence, articles.position, read.vectors.shape[1]
    with_image = (read.vectors * images.embeddings).mean(-1)  # (K,)
    with_cell = (images.cells @ read.vectors[:, :, None]).amax(1)[:, 0] / size
    texts, longest = len(articles), int(articles.counts.max())
    vectors = read.vectors.new_zeros(texts, longest, size)
    vectors[owner, place] = read.vectors
    weights = with_image.new_zeros(texts, 1, longest)
    weights[owner, 0, place] = with_image
    steps = torch.arange(longest, device=owner.device)
    others = (steps < articles.counts[:, None])[:, None] & ~torch.eye(
        longest, dtype=torch.bool, device=owner.device
    )  # (N, L, L)
    pairs = (vectors @ vectors.transpose(1, 2) / size).float().masked_fill(~others, 0)
    mean = pairs.sum(-1) / (articles.counts - 1).clamp_min(1)[:, None]
    largest = pairs.masked_fill(~others, -1).amax(-1).masked_fill(~others.any(-1), 0)
    rest = torch.stack([mean, largest, (pairs * weights).sum(-1)], -1)[owner, place]
    return torch.cat([with_image[:, None], with_cell[:, None], rest], -1)
