"""Greedy and sampled captions: each row chooses its next word and never looks at the others.

Shapes: B images, N captions per image, R rows that go on of B*N, T steps, V vocabulary,
h, w grid.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..text.vocabulary import END, PAD, START
from .filters import apply_filters, filters, shape_draw
from .hypothesis import Generator, Hypothesis, collect, expected_steps, should_sync
from .options import DecodingOptions


def choose_words(model: Generator, features: Tensor, options: DecodingOptions) -> Tensor:
    """The words alone, greedy or sampled, that `decode` would choose for each map of (B, D, h, w).

    Returns (B, N, T): an image's captions in no order, each with its end token unless max_length
    cut it, padded with 0.
    """
    assert options.method != "beam"
    with torch.inference_mode():
        count = len(features) * options.num_captions
        words = [
            _placed(each, rows, count) for rows, each, *_ in _choices(model, features, options)
        ]
        return torch.stack(words, 1).unflatten(0, (len(features), -1))


def rollout(model: Generator, features: Tensor, options: DecodingOptions) -> list[list[Hypothesis]]:
    words, log_probs, maps = [], [], []
    count = len(features) * options.num_captions
    for rows, tokens, scores, attention in _choices(model, features, options):
        chosen = scores.log_softmax(-1).gather(1, tokens[:, None])[:, 0]
        words.append(_placed(tokens, rows, count))
        log_probs.append(_placed(chosen, rows, count))
        maps.append(None if attention is None else _placed(attention, rows, count))
    hypotheses = collect(torch.stack(words, 1), torch.stack(log_probs, 1), maps)
    firsts = range(0, count, options.num_captions)
    ranked = [hypotheses[i : i + options.num_captions] for i in firsts]
    return [sorted(group, key=lambda h: h.score, reverse=True) for group in ranked]


def _placed(values: Tensor, rows: Tensor, count: int) -> Tensor:
    """Values (R, ...) in their rows of `count`, the others 0."""
    return values.new_zeros(count, *values.shape[1:]).index_copy_(0, rows, values)


def _choices(
    model: Generator, features: Tensor, options: DecodingOptions
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor | None]]:
    """Step by step the rows (R,) that go on, of B*N, and the word (R,) that each chooses.

    With them the scores (R, V) that they were chosen from, and the maps (R, h, w). Rows never look
    at each other. Those that have ended are padding until half of every image's have, and are
    left out then.
    """
    images, per_image = len(features), options.num_captions
    rows = torch.arange(images * per_image, device=features.device)
    memory, state = model.start(features, expected_steps(options, per_image))
    state = {key: value.repeat_interleave(per_image, 0) for key, value in state.items()}
    sampling = options.method == "sample"
    choose = _sampler(options, images, features.device) if sampling else _likeliest
    chosen = filters(options)
    words = rows.new_zeros(len(rows), options.max_length)
    tokens = torch.full_like(rows, START)
    ended = torch.zeros_like(rows, dtype=torch.bool)
    for t in range(options.max_length):
        scores, state, attention = model.step(tokens, state, memory)
        scores = apply_filters(chosen, scores, words[:, :t])
        tokens = choose(scores, t, rows).masked_fill(ended, PAD)
        words[:, t] = tokens
        yield rows, tokens, scores, attention
        ended = ended | (tokens == END)
        if should_sync(features, t):
            going_on = int((~ended).view(images, -1).sum(1).max())
            if going_on == 0:
                break
            if 2 * going_on <= len(rows) // images:
                left = _first(ended.view(images, -1), going_on)
                rows, tokens, ended, words = (x[left] for x in (rows, tokens, ended, words))
                state = {key: value[left] for key, value in state.items()}


def _first(ended: Tensor, most: int) -> Tensor:
    """Of rows (B, K) the places of those that have not ended, as many for every image: K halved
    as often as `most` allows, so that compiled steps meet few sizes."""
    keep = ended.shape[1]
    while keep // 2 >= most:
        keep //= 2
    first = torch.arange(len(ended), device=ended.device)[:, None] * ended.shape[1]
    return (first + ended.int().argsort(dim=1, stable=True)[:, :keep]).flatten()


def _likeliest(scores: Tensor, t: int, rows: Tensor) -> Tensor:
    return scores.argmax(-1)


def _sampler(
    options: DecodingOptions, images: int, device: torch.device
) -> Callable[[Tensor, int, Tensor], Tensor]:
    """Draws by inverting the cumulative distribution at uniform numbers drawn beforehand.

    With a seed every image gets the same numbers, so that its captions do not depend on the
    batch it is in. They are spread evenly: at every step one lies in each of as many equal parts
    of 0..1 as there are captions (McKay et al. 1979, Latin hypercubes), which leaves each caption
    the model's own distribution, and shows that with fewer of them. Without a seed each row has
    numbers of its own, from torch's global generator, that know nothing of each other.
    """
    steps, per_image = options.max_length, options.num_captions
    if options.seed is None:
        uniform = torch.rand(steps, images * per_image)
    else:
        generator = torch.Generator().manual_seed(options.seed)
        uniform = torch.rand(steps, per_image, generator=generator).double()
        part = torch.rand(steps, per_image, generator=generator).argsort(1)
        uniform = ((part + uniform) / per_image).repeat(1, images)

    uniform = uniform.double().to(device)

    def choose(scores: Tensor, t: int, rows: Tensor) -> Tensor:
        cumulative = shape_draw(scores, options).double().softmax(-1).cumsum(-1)
        target = uniform[t, rows, None] * cumulative[:, -1:]
        return torch.searchsorted(cumulative, target, right=True)[:, 0].clamp(
            max=scores.shape[1] - 1
        )

    return choose
