"""Further texts of a training batch, made from its captions: short texts and exchanged words.

Short texts resemble queries, which captions do not. A caption with opposite words exchanged, such
as "left" and "right", is a negative of its image that has nearly the same words.

Shapes: N texts, T words, C captions, S words of a short text, V vocabulary, B images.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...text.content_words import stem
from ...text.vocabulary import PAD, Vocabulary
from .options import read_pair


@dataclass(frozen=True)
class ShortTexts:
    """Draws some words of a caption, in order.

    weights (V,): words are drawn in proportion to these weights, without replacement.
    """

    weights: Tensor

    @classmethod
    def of(cls, tokens: Tensor, size: int) -> "ShortTexts":
        """Weight words by the inverse square root of their count in all captions `tokens` (N, T).

        Frequent words are thus drawn less often, as in the subsampling of word2vec (Mikolov et al.
        2013, section 2.3), and tokens that do not occur never. size: V.
        """
        counts = torch.bincount(tokens[tokens != PAD], minlength=size).double()
        return cls(torch.where(counts > 0, counts.rsqrt(), 0))

    def draw_words(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw `count` different words, (n, 1), or all words of positive weight if fewer exist."""
        count = min(count, int((self.weights > 0).sum()))
        return self.weights.multinomial(count, generator=generator)[:, None]

    def draw(self, tokens: Tensor, generator: torch.Generator) -> Tensor:
        """Return one short text (N, S) for each text (N, T), followed by padding.

        The number of words is uniform from 1 to the length of the text; empty texts remain empty.
        """
        shape, real = tokens.shape, tokens != PAD
        chosen = torch.rand(shape[0], generator=generator).mul(real.sum(1)).long() + 1  # (N,)
        # The smallest of exponential variables, each with its word's weight as rate, are a sample
        # without replacement (Efraimidis and Spirakis 2006).
        times = torch.empty(shape, dtype=torch.double).exponential_(generator=generator)
        times = times.div_(self.weights[tokens]).masked_fill_(~real, torch.inf)
        ranks = times.argsort(1).argsort(1)
        return _pack(tokens.masked_fill(ranks >= chosen[:, None], PAD))


@dataclass(frozen=True)
class Opposites:
    """Exchanges opposite words. exchanged (V,): the token that replaces each token."""

    exchanged: Tensor

    @classmethod
    def of(cls, pairs: Sequence[str], vocabulary: Vocabulary) -> "Opposites":
        """Read pairs such as "left/right"; those with a word outside the vocabulary are ignored."""
        exchanged = torch.arange(len(vocabulary))
        for pair in pairs:
            words = read_pair(pair)
            if all(word in vocabulary for word in words):
                first, second = vocabulary.encode(list(words))
                exchanged[first], exchanged[second] = second, first
        return cls(exchanged)

    def exchange(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Exchange words of texts (N, T); return the M texts that this changes, and their rows.

        The texts have the shape (M, T), and the rows (M,).
        """
        changed = self.exchanged[tokens]
        rows = (changed != tokens).any(1).nonzero()[:, 0]
        return changed[rows], rows


def number_stems(vocabulary: Vocabulary) -> Tensor:
    """Return a number for each token (V,), equal for words that have the same stem."""
    special, numbers = len(vocabulary) - len(vocabulary.words), dict[str, int]()
    stems = map(stem, vocabulary.words)
    found = [numbers.setdefault(each, special + len(numbers)) for each in stems]
    return torch.tensor([*range(special), *found])  # padding stays padding


def are_parts(short: Tensor, captions: Tensor) -> Tensor:
    """Return a mask (N, C): whether all words of a text occur in a caption in the same order.

    short (N, S), captions (C, T): tokens, or numbers of stems, followed by padding. Other words of
    the caption may be in between. An empty text is part of every caption.
    """
    count, size = len(captions), int(torch.cat([short.flatten(), captions.flatten()]).max()) + 1
    # Only captions with the rarest word of a text can contain it: few pairs need to be compared.
    keys = captions * count + torch.arange(count)[:, None]
    holders: Tensor = torch.unique(keys[captions != PAD])  # sorted by word, then by caption
    frequency = torch.bincount(holders // count, minlength=size)
    firsts = frequency.cumsum(0) - frequency
    column = frequency[short].masked_fill(short == PAD, count + 1).argmin(1)
    rarest = short[torch.arange(len(short)), column]
    pairs = frequency[rarest]
    text = torch.arange(len(short)).repeat_interleave(pairs)
    offset = torch.arange(len(text)) - (pairs.cumsum(0) - pairs)[text]
    caption = holders[firsts[rarest][text] + offset] % count
    ended = torch.nn.functional.pad(short, (0, 1), value=PAD)  # (N, S + 1)
    matched = torch.zeros_like(text)  # number of words found in order
    for word in captions[caption].T:
        matched += (ended[text, matched] == word) & (word != PAD)
    whole = matched == (short != PAD).sum(1)[text]
    parts = torch.zeros(len(short), count, dtype=torch.bool)
    parts[text[whole], caption[whole]] = True
    parts[(short == PAD).all(1)] = True
    return parts


def _pack(tokens: Tensor) -> Tensor:
    """Move the words of each text (N, T) together, in order, before its padding."""
    order = (tokens == PAD).sort(dim=1, stable=True).indices
    longest = int((tokens != PAD).sum(1).max()) if len(tokens) else 0
    return tokens.gather(1, order)[:, : max(1, longest)]
