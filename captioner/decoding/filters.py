"""The filters on scores that the options of decoding ask for.

No search and no model. Shapes: R rows, t words so far, V vocabulary.

A filter is a function (scores (R, V), previous words (R, t)) -> scores (R, V), which it may change
in place. Filters act on the raw scores; the log-softmax of what they leave is the log-probability
that is reported and summed. Temperature, top_k and top_p shape only the draw of sampling.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ..text.vocabulary import END, PAD, START, UNKNOWN
from .options import DecodingOptions

Filter = Callable[[Tensor, Tensor], Tensor]


def filters(options: DecodingOptions) -> list[Filter]:
    """The filters that the options ask for, in the order in which they apply."""
    chosen = [_forbid(PAD, START) if options.allow_unknown else _forbid(PAD, START, UNKNOWN)]
    if options.min_length:
        chosen.append(_at_least(options.min_length))
    if options.no_repeat_ngram:
        chosen.append(_no_repeat(options.no_repeat_ngram))
    return chosen


def _forbid(*tokens: int) -> Filter:
    def apply(scores: Tensor, words: Tensor) -> Tensor:
        for token in tokens:
            scores[:, token] = -torch.inf
        return scores

    return apply


def _at_least(length: int) -> Filter:
    def apply(scores: Tensor, words: Tensor) -> Tensor:
        if words.shape[1] < length:
            scores[:, END] = -torch.inf
        return scores

    return apply


def _no_repeat(size: int) -> Filter:
    def apply(scores: Tensor, words: Tensor) -> Tensor:
        length = words.shape[1]
        if length < size:
            return scores
        seen = words.unfold(1, size, 1)  # (R, t - n + 1, n)
        last = words[:, length - size + 1 :]  # (R, n - 1)
        repeats = (seen[:, :, :-1] == last[:, None]).all(-1)
        # scatter hits the end token where nothing repeats: its score is put back, or made the only
        # one where no word is left
        forbidden = torch.where(repeats, seen[:, :, -1], END)
        end = scores[:, END].clone()
        scores.scatter_(1, forbidden, -torch.inf)
        nothing_left = torch.maximum(end, scores.amax(-1)) == -torch.inf
        scores[:, END] = end.masked_fill(nothing_left, 0)
        return scores

    return apply


def apply_filters(chosen: list[Filter], scores: Tensor, words: Tensor) -> Tensor:
    """Raw scores (R, V) through all filters, in float32; a row left without a word must end."""
    scores = scores.float()
    for filter in chosen:
        scores = filter(scores, words)
    return scores


def shape_draw(scores: Tensor, options: DecodingOptions) -> Tensor:
    """Temperature, then top_k, then top_p over scores (R, V): what is cut becomes -inf.

    top_p keeps the fewest likeliest words whose probabilities reach p (Holtzman et al. 2020).
    """
    scores = scores / options.temperature
    if options.top_k is not None and options.top_k < scores.shape[1]:
        values, words = scores.topk(options.top_k)
        scores = torch.full_like(scores, -torch.inf).scatter(1, words, values)
    if options.top_p is not None and options.top_p < 1:
        values, words = scores.sort(descending=True, stable=True)
        before = values.softmax(-1).cumsum(-1) - values.softmax(-1)
        values = values.masked_fill(before >= options.top_p, -torch.inf)
        scores = torch.full_like(scores, -torch.inf).scatter(1, words, values)
    return scores
