"""Facts: what a classifier reads of each sentence of a text, whatever the LSTMs have learned.

Shapes: N texts, K sentences of all texts, W words of all sentences, S size of sentences, M matches
of a sentence, F facts of a sentence.
"""

import torch
from torch import Tensor, nn

from .articles import Articles
from .encoder import Matches


class Facts(nn.Module):
    """Computes F numbers for each sentence from its matches and from those of its words.

    Each word passes a hidden layer of its own, so that one word that the image contradicts differs
    from a sentence that matches a little less. The sentence gets the mean, the minimum and the
    maximum over its words. Nothing is read of the other sentences but the matches.
    """

    def __init__(self, match_size: int, size: int, facts: int, dropout: float) -> None:
        """Create the layers; match_size: M, size: S, facts: F, dropout: of all hidden units."""
        super().__init__()
        self.words = nn.Linear(2 * size, facts)
        self.sentence = nn.Linear(match_size + 3 * facts, facts)
        self.output = nn.Linear(facts, facts)
        self.drop = nn.Dropout(dropout)

    def forward(self, matches: Matches, articles: Articles) -> tuple[Tensor, Tensor, Tensor]:
        """Return the mean, minimum and maximum of the facts over each text's sentences, (N, F)."""
        count, owner = len(articles.tokens), articles.text_of_sentence
        words = self.drop(self.words(matches.words).relu())
        own = [matches.sentences, *pool_rows(words, matches.sentence_of_word, count)]
        hidden = self.drop(self.sentence(torch.cat(own, -1)).relu())
        return pool_rows(self.drop(self.output(hidden).relu()), owner, len(articles))


def pool_rows(values: Tensor, owner: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean, minimum and maximum (count, F) of the rows (R, F) of each owner.

    owner (R,): from 0 to count - 1, each at least once.
    """
    values, index = values.float(), owner[:, None].expand_as(values)
    empty = values.new_zeros(count, values.shape[1])
    mean, low, high = (
        empty.scatter_reduce(0, index, values, how, include_self=False)
        for how in ("mean", "amin", "amax")
    )
    return mean, low, high
