"""Which of the captions that a search found agrees best with all that the model may say.

Nothing here runs a model or searches. Shapes: B pictures, K captions of each to choose from,
N samples of each, T words.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..batches import pad_captions
from ..ngrams import ORDERS, counts, numbers
from .hypotheses import Hypothesis

TEMPERATURE = 0.7  # of the samples: smoothed labels make models say too many rare words
FAITH = 0.02  # what a nat of a caption's own log-probability counts, in likeness


def by_agreement(found: Sequence[list[Hypothesis]], samples: Tensor) -> list[list[Hypothesis]]:
    """Each picture's captions, those first that agree best with its samples, of (B, N, T).

    What agrees best has the least risk: minimum Bayes risk (Kumar and Byrne 2004), of samples
    (Eikema and Aziz 2020). FAITH keeps out long captions that are a little like everything.
    """
    tokens = pad_captions([[list(each.tokens) for each in group] for group in found])
    alike = likeness(tokens.to(samples.device), samples).mean(-1).tolist()
    return [
        [
            group[k]
            for k in sorted(range(len(group)), key=lambda k: -row[k] - FAITH * group[k].score)
        ]
        for row, group in zip(alike, found, strict=True)
    ]


def likeness(captions: Tensor, others: Tensor) -> Tensor:
    """Cosines of what n-grams captions (B, K, T) and others (B, N, T') have: (B, K, N), in 0..1.

    The mean over n of 1 to 4. Tokens without the start, padded with 0; the end is a word.
    """
    alone = others.new_zeros(1)  # padding is the least even where there is none
    known, places = torch.cat([alone, captions.flatten(), others.flatten()]).unique(
        return_inverse=True
    )
    mine, theirs = places[1:].split([captions.numel(), others.numel()])
    mine, theirs = mine.view_as(captions), theirs.view_as(others)
    return torch.stack([_cosine(mine, theirs, n, len(known)) for n in ORDERS]).mean(0)


def _cosine(captions: Tensor, others: Tensor, n: int, base: int) -> Tensor:
    mine, theirs = numbers(captions, n, base), numbers(others, n, base)
    sizes, their_sizes = (
        counts(each, each).masked_fill(each == 0, 0).sum(-1).sqrt() for each in (mine, theirs)
    )
    shared = counts(mine[:, :, None], theirs[:, None]).masked_fill(mine[:, :, None] == 0, 0)
    return shared.sum(-1) / (sizes[:, :, None] * their_sizes[:, None]).clamp(min=1)
