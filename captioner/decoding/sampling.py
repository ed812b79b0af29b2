"""Greedy decoding and sampling: every row chooses its next word independently.

Shapes: B images, N captions per image, R active rows (the B*N rows without those that have been
dropped), T steps, V vocabulary, (h, w) grid.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ..text.vocabulary import END, PAD, START
from .filters import apply_filters, build_filters, cut_scores
from .hypothesis import Generator, Hypothesis, collect_hypotheses, expected_steps, should_sync
from .options import DecodingOptions

BLOCK = 64  # words whose probabilities are summed together
ROUNDING = 1e-12  # relative error of sums in float64, generously


def choose_words(model: Generator, features: Tensor, options: DecodingOptions) -> Tensor:
    """Generate greedy or sampled captions of feature maps (B, D, h, w), as tokens only.

    Returns (B, N, T): each image's captions in no particular order, each with its end token unless
    max_length truncated it, padded with 0. `generate` returns the same captions as Hypothesis
    objects.
    """
    assert options.method != "beam"
    with torch.inference_mode():
        count = len(features) * options.num_captions
        words = [
            _scatter_rows(tokens, rows, count)
            for rows, tokens, *_ in _generate_steps(model, features, options)
        ]
        return torch.unflatten(torch.stack(words, 1), 0, (len(features), -1))


def generate(
    model: Generator, features: Tensor, options: DecodingOptions
) -> list[list[Hypothesis]]:
    """Generate greedy or sampled captions of feature maps (B, D, h, w), most likely first."""
    words, log_probs, maps = [], [], []
    count = len(features) * options.num_captions
    for rows, tokens, scores, attention in _generate_steps(model, features, options):
        chosen = scores.log_softmax(-1).gather(1, tokens[:, None])[:, 0]
        words.append(_scatter_rows(tokens, rows, count))
        log_probs.append(_scatter_rows(chosen, rows, count))
        maps.append(None if attention is None else _scatter_rows(attention, rows, count))
    hypotheses = collect_hypotheses(torch.stack(words, 1), torch.stack(log_probs, 1), maps)
    firsts = range(0, count, options.num_captions)
    groups = [hypotheses[i : i + options.num_captions] for i in firsts]
    return [sorted(group, key=lambda h: h.score, reverse=True) for group in groups]


def _scatter_rows(values: Tensor, rows: Tensor, count: int) -> Tensor:
    """Return a tensor (count, ...) with values (R, ...) at the given rows and 0 elsewhere."""
    if len(rows) == count:
        return values
    return values.new_zeros(count, *values.shape[1:]).index_copy_(0, rows, values)


def _generate_steps(
    model: Generator, features: Tensor, options: DecodingOptions
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor | None]]:
    """Yield, for each step, the indices (R,) of the active rows, their tokens, scores and maps.

    The tokens (R,) were chosen from the scores (R, V); the maps are (R, h, w), or None. Rows that
    have ended produce padding, and are dropped when a check (see `should_sync`) finds that at least
    a quarter of the rows of every image have ended.
    """
    images, per_image = len(features), options.num_captions
    rows = torch.arange(images * per_image, device=features.device)
    memory, state = model.start(features, expected_steps(options, per_image))
    state = {name: value.repeat_interleave(per_image, 0) for name, value in state.items()}
    sampling = options.method == "sample"
    choose = _build_sampler(options, images, features.device) if sampling else _choose_likeliest
    filters = build_filters(options)
    words = rows.new_zeros(len(rows), options.max_length)
    tokens = torch.full_like(rows, START)
    ended = torch.zeros_like(rows, dtype=torch.bool)
    for t in range(options.max_length):
        scores, state, attention = model.step(tokens, state, memory)
        scores = apply_filters(filters, scores, words[:, :t])
        tokens = choose(scores, t, rows).masked_fill(ended, PAD)
        words[:, t] = tokens
        yield rows, tokens, scores, attention
        ended = ended | (tokens == END)
        if should_sync(features, t):
            running = int((~ended).view(images, -1).sum(1).max())
            if running == 0:
                break
            if (count := _row_count(per_image, running)) < len(rows) // images:
                kept = _active_rows(ended.view(images, -1), count)
                rows, tokens, ended, words = (x[kept] for x in (rows, tokens, ended, words))
                state = {name: value[kept] for name, value in state.items()}


def _row_count(per_image: int, running: int) -> int:
    """Return how many rows of each image to keep.

    per_image: N. running: largest number of unfinished rows of any image, at least 1. The result is
    N, halved as often as `running` allows, or three quarters of that if they suffice, so that
    compiled steps and CUDA graphs need few sizes.
    """
    count = per_image
    while count // 2 >= running:
        count //= 2
    return count * 3 // 4 if count * 3 // 4 >= running else count


def _active_rows(ended: Tensor, count: int) -> Tensor:
    """Return the indices of the rows to keep: `count` of each image, the unfinished ones first.

    ended (B, K): whether each of the K active rows of an image has ended.
    """
    first_row = torch.arange(len(ended), device=ended.device)[:, None] * ended.shape[1]
    return (first_row + ended.int().argsort(dim=1, stable=True)[:, :count]).flatten()


def _choose_likeliest(scores: Tensor, _t: int, _rows: Tensor) -> Tensor:
    return scores.argmax(-1)


def _build_sampler(
    options: DecodingOptions, images: int, device: torch.device
) -> Callable[[Tensor, int, Tensor], Tensor]:
    """Build a function (scores (R, V), step t, rows (R,)) -> words (R,) that samples words.

    It inverts the cumulative distribution at uniform random numbers that are drawn in advance on
    the CPU, so that every device uses the same numbers.

    With a seed, every image gets the same N numbers per step, so that its captions do not depend on
    its batch. The numbers are stratified: each falls into a different one of N equal intervals of
    [0, 1) (Latin hypercube sampling, McKay et al. 1979). Each caption on its own still follows the
    model's distribution, and the N samples represent it better than independent ones. Without a
    seed, the numbers of all rows are independent and come from torch's global generator.
    """
    steps, per_image = options.max_length, options.num_captions
    if options.seed is None:
        uniform = torch.rand(steps, images * per_image)
    else:
        generator = torch.Generator().manual_seed(options.seed)
        uniform = torch.rand(steps, per_image, generator=generator).double()
        interval = torch.rand(steps, per_image, generator=generator).argsort(1)
        uniform = ((interval + uniform) / per_image).repeat(1, images)

    uniform = uniform.double().to(device)

    def draw(scores: Tensor, t: int, rows: Tensor) -> Tensor:
        return _invert(cut_scores(scores, options).softmax(-1), uniform[t, rows])

    return draw


def _invert(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Return the words (R,) at which the cumulative distributions exceed numbers in [0, 1).

    probabilities (R, V): their sums need not be exactly 1. uniform (R,), in float64. A word whose
    probability is 0 is never returned. First the block of words is found, then the word, because
    the cumulative sum of a block takes far less time than that of the vocabulary.
    """
    padding = -probabilities.shape[1] % BLOCK
    blocks = torch.unflatten(F.pad(probabilities, (0, padding)), 1, (-1, BLOCK))
    totals = blocks.sum(2, dtype=torch.double)  # (R, V / BLOCK)
    ends = totals.cumsum(1)
    target = uniform[:, None] * ends[:, -1:]
    block = _first_above(ends, target)
    start = ends.gather(1, block) - totals.gather(1, block)
    inside = blocks.take_along_dim(block[:, :, None], 1)[:, 0].double().cumsum(1)  # (R, BLOCK)
    words = block * BLOCK + _first_above(inside, target - start)
    return words[:, 0].clamp(max=probabilities.shape[1] - 1)


def _first_above(cumulative: Tensor, target: Tensor) -> Tensor:
    """Return the first index (R, 1) at which cumulative sums (R, n) exceed a target (R, 1).

    A target that rounding has moved out of the range [0, last sum) counts as its nearest end. Sums
    that are NaN, from a model that has diverged, count as the last index, not as one past it.
    """
    last = cumulative[:, -1:]
    inside = target.clamp(min=0).minimum(last * (1 - ROUNDING))
    first = torch.searchsorted(cumulative, inside, right=True)
    return first.clamp(max=cumulative.shape[1] - 1)
