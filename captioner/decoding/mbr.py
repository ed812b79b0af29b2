"""Minimum Bayes risk reranking: prefer captions that resemble many samples.

Shapes: B images, K captions per image to rank, N samples per image, T words.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..text.collate import pad_captions
from ..text.ngrams import ORDERS, ngram_counts, ngram_ids
from ..text.vocabulary import END
from .hypothesis import Hypothesis

TEMPERATURE = 0.7  # below 1, because label smoothing makes models overestimate rare words
LOG_PROB_WEIGHT = 0.02  # weight of a caption's log-probability, in similarity per nat


def rerank(found: Sequence[list[Hypothesis]], samples: Tensor) -> list[list[Hypothesis]]:
    """Sort the captions of each image by their similarity to its samples (B, N, T), highest first.

    The caption most similar to the samples has the lowest expected risk (Kumar and Byrne 2004),
    estimated by sampling (Eikema and Aziz 2020). A small weight on the log-probability
    discourages long captions that share a little with every sample. Captions truncated by
    max_length come after all complete ones.
    """
    tokens = pad_captions([[list(caption.tokens) for caption in group] for group in found])
    similarities = similarity(tokens.to(samples.device), samples).tolist()

    def order(pair: tuple[float, Hypothesis]) -> tuple[bool, float]:
        value, caption = pair
        return caption.tokens[-1] != END, -(value + LOG_PROB_WEIGHT * caption.score)

    return [
        [caption for _, caption in sorted(zip(row, group, strict=False), key=order)]
        for row, group in zip(similarities, found, strict=True)
    ]


def similarity(captions: Tensor, samples: Tensor) -> Tensor:
    """Compute the mean n-gram cosine similarity of captions (B, K, T) to samples (B, N, T').

    Returns (B, K), between 0 and 1: the cosine of the n-gram count vectors, averaged over the
    samples and n = 1 to 4. An n for which a caption is too short contributes 0. Tokens exclude the
    start token and are padded with 0; the end token counts as a word.
    """
    # ngram_ids needs small token ids with 0 for padding: prepend a 0, so that unique, which sorts,
    # maps token 0 to id 0 even if nothing is padded.
    zero = samples.new_zeros(1)
    tokens = torch.cat([zero, captions.flatten(), samples.flatten()])
    distinct, ids = torch.unique(tokens, return_inverse=True)
    caption_ids = ids[1 : 1 + captions.numel()].view_as(captions)
    sample_ids = ids[1 + captions.numel() :].view_as(samples)
    cosines = [_mean_cosines(caption_ids, sample_ids, n, len(distinct)) for n in ORDERS]
    return torch.stack(cosines).mean(0)


def _mean_cosines(captions: Tensor, samples: Tensor, n: int, base: int) -> Tensor:
    """Compute the mean n-gram cosine of each caption to the samples of its image: (B, K).

    The dot product with the mean of all normalised sample vectors replaces K*N cosines. The n-grams
    of all samples are sorted once; the total weight of an n-gram is then a difference of two
    cumulative sums of the weights.
    """
    caption_ngrams, sample_ngrams = ngram_ids(captions, n, base), ngram_ids(samples, n, base)
    weights = (sample_ngrams != 0) / _norms(sample_ngrams).double()
    ascending, order = sample_ngrams.flatten(1).sort(1)
    sums = F.pad(weights.flatten(1).gather(1, order).cumsum(1), (1, 0))
    wanted = caption_ngrams.flatten(1)
    first, after = (torch.searchsorted(ascending, wanted, right=right) for right in (False, True))
    products = (sums.gather(1, after) - sums.gather(1, first)).view_as(caption_ngrams)
    return ((products / _norms(caption_ngrams)).sum(-1) / samples.shape[1]).float()


def _norms(ngrams: Tensor) -> Tensor:
    """Compute the L2 norm of each caption's n-gram counts, at least 1: (..., T) -> (..., 1)."""
    # Summing each n-gram's count over all positions yields the sum of squared counts.
    counts = ngram_counts(ngrams, ngrams).masked_fill(ngrams == 0, 0)
    return counts.sum(-1, keepdim=True).clamp(min=1).sqrt()
