"""Which of the captions that a search found agrees best with all that the model may say.

Nothing here runs a model or searches. Shapes: B images, K captions of each to choose from,
N samples of each, T words.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..text.collate import pad_captions
from ..text.ngrams import ORDERS, ngram_counts, ngram_ids
from ..text.vocabulary import END
from .hypothesis import Hypothesis

TEMPERATURE = 0.7  # of the samples: models of smoothed labels say too many rare words
LOG_PROB_WEIGHT = 0.02  # what a nat of a caption's own log-probability counts, in likeness


def rerank(found: Sequence[list[Hypothesis]], samples: Tensor) -> list[list[Hypothesis]]:
    """Each image's captions, those first that agree best with its samples, of (B, N, T).

    What agrees best has the least risk: minimum Bayes risk (Kumar and Byrne 2004), of samples
    (Eikema and Aziz 2020). FAITH keeps out long captions that are a little like everything.
    Captions that were cut come after all that have ended.
    """
    tokens = pad_captions([[list(each.tokens) for each in group] for group in found])
    alike = likeness(tokens.to(samples.device), samples).tolist()

    def order(pair: tuple[float, Hypothesis]) -> tuple[bool, float]:
        value, caption = pair
        return caption.tokens[-1] != END, -(value + LOG_PROB_WEIGHT * caption.score)

    return [
        [caption for _, caption in sorted(zip(row, group, strict=False), key=order)]
        for row, group in zip(alike, found, strict=True)
    ]


def likeness(captions: Tensor, samples: Tensor) -> Tensor:
    """How much captions (B, K, T) are like samples (B, N, T') of their images: (B, K), in 0..1.

    The mean, over samples and n of 1 to 4, of the cosines of what n-grams they have; an n for
    which a caption is too short counts 0. Tokens without the start, padded with 0; the end is a
    word.
    """
    alone = samples.new_zeros(1)  # padding is the least even where there is none
    known, places = torch.cat([alone, captions.flatten(), samples.flatten()]).unique(
        return_inverse=True
    )
    mine, theirs = places[1:].split([captions.numel(), samples.numel()])
    mine, theirs = mine.view_as(captions), theirs.view_as(samples)
    return torch.stack([_cosines(mine, theirs, n, len(known)) for n in ORDERS]).mean(0)


def _cosines(captions: Tensor, samples: Tensor, n: int, base: int) -> Tensor:
    """The means over the samples, (B, K): of what all samples together have of each n-gram, each
    its share of its own norm."""
    mine, theirs = ngram_ids(captions, n, base), ngram_ids(samples, n, base)
    norms, their_norms = (
        ngram_counts(each, each).masked_fill(each == 0, 0).sum(-1, keepdim=True).clamp(min=1).sqrt()
        for each in (mine, theirs)
    )
    ascending, order = theirs.flatten(1).sort(1)
    shares = (theirs != 0) / their_norms.double()
    sums = F.pad(shares.flatten(1).gather(1, order).cumsum(1), (1, 0))
    wanted = mine.flatten(1)
    first, after = (torch.searchsorted(ascending, wanted, right=right) for right in (False, True))
    shared = (sums.gather(1, after) - sums.gather(1, first)).view_as(mine)
    return ((shared / norms).sum(-1) / samples.shape[1]).float()
