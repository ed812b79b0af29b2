"""Filters on next-token scores, and the truncation used in sampling.

Shapes: R rows, t words so far, V vocabulary.

A filter is a function (scores (R, V), previous words (R, t)) -> scores (R, V) that may modify its
scores in place. Filters act on the raw scores; the log-softmax of the filtered scores is the
log-probability that is reported and summed. Temperature, top_k and top_p affect only which word is
sampled, not its reported log-probability.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..text.vocabulary import END, PAD, START, UNKNOWN
from .options import DecodingOptions

Filter = Callable[[Tensor, Tensor], Tensor]


def build_filters(options: DecodingOptions) -> list[Filter]:
    """Build the filters that the options require, in order of application."""
    forbidden = (PAD, START) if options.allow_unknown else (PAD, START, UNKNOWN)
    filters = [_forbid(*forbidden)]
    if options.min_length:
        filters.append(_enforce_min_length(options.min_length))
    if options.no_repeat_ngram:
        filters.append(_forbid_repeats(options.no_repeat_ngram))
    return filters


def _forbid(*tokens: int) -> Filter:
    def apply(scores: Tensor, _words: Tensor) -> Tensor:
        for token in tokens:
            scores[:, token] = -torch.inf
        return scores

    return apply


def _enforce_min_length(length: int) -> Filter:
    def apply(scores: Tensor, words: Tensor) -> Tensor:
        if words.shape[1] < length:
            scores[:, END] = -torch.inf
        return scores

    return apply


def _forbid_repeats(size: int) -> Filter:
    def apply(scores: Tensor, words: Tensor) -> Tensor:
        length = words.shape[1]
        if length < size:
            return scores
        ngrams = words.unfold(1, size, 1)  # (R, t - n + 1, n)
        last = words[:, length - size + 1 :]  # (R, n - 1)
        repeats = (ngrams[:, :, :-1] == last[:, None]).all(-1)
        # scatter_ needs an index everywhere: n-grams that do not repeat point at the end token,
        # whose score is restored afterwards. If no word is left, the end token becomes the only
        # possible token, even below min_length.
        forbidden = torch.where(repeats, ngrams[:, :, -1], END)
        end = scores[:, END].clone()
        scores.scatter_(1, forbidden, -torch.inf)
        nothing_left = torch.maximum(end, scores.amax(-1)) == -torch.inf
        scores[:, END] = end.masked_fill(nothing_left, 0)
        return scores

    return apply


def apply_filters(filters: Sequence[Filter], scores: Tensor, words: Tensor) -> Tensor:
    """Apply all filters to raw scores (R, V) in float32, given the previous words (R, t)."""
    scores = scores.float()
    for apply in filters:
        scores = apply(scores, words)
    return scores


def cut_scores(scores: Tensor, options: DecodingOptions) -> Tensor:
    """Apply temperature, then top_k, then top_p to scores (R, V); excluded words get -inf.

    top_p keeps the smallest set of most likely words whose probabilities sum to at least p
    (Holtzman et al. 2020); the most likely word is always kept.
    """
    scores = scores / options.temperature
    if options.top_k is not None and options.top_k < scores.shape[1]:
        values, words = scores.topk(options.top_k)
        scores = torch.full_like(scores, -torch.inf).scatter(1, words, values)
    if options.top_p is not None and options.top_p < 1:
        values, words = scores.sort(descending=True, stable=True)
        before = values.softmax(-1).cumsum(-1) - values.softmax(-1)
        excluded = before >= options.top_p
        excluded[:, 0] = False  # not even by a top_p that float32 rounds to 0
        values = values.masked_fill(excluded, -torch.inf)
        scores = torch.full_like(scores, -torch.inf).scatter(1, words, values)
    return scores
