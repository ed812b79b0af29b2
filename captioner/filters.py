"""How to choose words: the options of decoding and the filters on scores that they ask for.

No search and no model. Shapes: R rows, t words so far, V vocabulary.

A filter is a function (scores (R, V), previous words (R, t)) -> scores (R, V), which it may change
in place. Filters act on the raw scores; the log-softmax of what they leave is the log-probability
that is reported and summed. Temperature, top_k and top_p shape only the draw of sampling.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import InputError
from .options import check_at_least, option
from .text import Vocabulary

PAD, START, END, UNKNOWN = Vocabulary.PAD, Vocabulary.START, Vocabulary.END, Vocabulary.UNKNOWN
BEAM_SIZE, LENGTH_PENALTY = 3, 0.7
Filter = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class DecodingOptions:
    """How to choose words; contradictions raise InputError at once.

    Beam search ranks by sum of log-probabilities / length ** length_penalty. The end token counts
    in that length and in max_length, where a caption is cut, but not in min_length.
    """

    method: str = option("beam", "how to choose words", choices=("greedy", "sample", "beam"))
    beam_size: int | None = option(None, f"hypotheses kept by beam search (default: {BEAM_SIZE})")
    num_captions: int = option(1, "captions returned per picture, best first")
    max_length: int = option(30, "most words of a caption, its end counted")
    min_length: int = option(1, "fewest words of a caption")
    length_penalty: float | None = option(
        None, f"0 ranks by total, 1 by mean log-probability (default: {LENGTH_PENALTY})"
    )
    temperature: float = option(1.0, "below 1 samples likelier words, above 1 unlikelier ones")
    top_k: int | None = option(None, "sample from the k likeliest words only")
    top_p: float | None = option(None, "sample from the likeliest words that hold this share")
    no_repeat_ngram: int | None = option(None, "never write the same n words twice")
    allow_unknown: bool = option(False, "let captions contain <unk>")
    seed: int | None = option(None, "seed of sampling; each picture draws the same for a seed")

    def __post_init__(self) -> None:
        if self.method not in ("greedy", "sample", "beam"):
            raise InputError(f"method must be greedy, sample or beam, got {self.method!r}")
        check_at_least(self, 1, "beam_size", "num_captions", "max_length", "top_k")
        check_at_least(self, 1, "no_repeat_ngram")
        check_at_least(self, 0, "min_length", "length_penalty")
        if not 0 < self.temperature < math.inf:
            raise InputError(f"temperature must be above 0, got {self.temperature}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InputError(f"top_p must be above 0 and at most 1, got {self.top_p}")
        if self.min_length > self.max_length:
            raise InputError(f"min_length {self.min_length} is above max_length {self.max_length}")
        shaped = self.temperature != 1 or self.top_k is not None or self.top_p is not None
        if self.method != "sample" and (shaped or self.seed is not None):
            raise InputError(
                "temperature, top_k, top_p and seed need method 'sample', "
                f"got method {self.method!r}"
            )
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise InputError(f"seed must be at least 0 and below 2**63, got {self.seed}")
        if self.method != "beam" and (self.length_penalty, self.beam_size) != (None, None):
            raise InputError(
                f"beam_size and length_penalty need method 'beam', got method {self.method!r}"
            )
        if self.method == "beam" and self.num_captions > self.beams:
            raise InputError(f"num_captions {self.num_captions} is above beam_size {self.beams}")
        if self.method == "greedy" and self.num_captions != 1:
            raise InputError(f"greedy gives one caption, got num_captions {self.num_captions}")

    @property
    def beams(self) -> int:
        """Hypotheses that beam search keeps."""
        return BEAM_SIZE if self.beam_size is None else self.beam_size

    @property
    def penalty(self) -> float:
        """The power of the length by which beam search divides."""
        return LENGTH_PENALTY if self.length_penalty is None else self.length_penalty


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
