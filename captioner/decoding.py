"""From a model's `start` and `step` to captions with their log-probabilities and maps.

Nothing here knows which model it is, nor files or words. Shapes: B pictures, K hypotheses per
picture, R = B*K rows, N captions asked for, T steps, V vocabulary, h, w grid.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import torch
from torch import Tensor

from .batches import Pictures
from .collate import pad_captions
from .decoding_options import DecodingOptions
from .devices import device_of, products_in
from .loading import load_ahead
from .search.beam import beam_search
from .search.consensus import TEMPERATURE, by_agreement
from .search.filters import apply_filters, filters, shape_draw
from .search.hypotheses import (
    Generator,
    Hypothesis,
    ImageGenerator,
    collect,
    expected_reads,
    look_now,
)
from .text import END, PAD, START

TOGETHER = 512  # samples of consensus at once: small groups leave ended ones out sooner


def decode(model: Generator, features: Tensor, options: DecodingOptions) -> list[list[Hypothesis]]:
    """For each feature map of (B, D, h, w) its `num_captions` captions, best first.

    Beam search, whose captions all differ, gives fewer where the options allow no more.
    """
    with torch.inference_mode():
        search = beam_search if options.method == "beam" else _rollout
        found = (_agreed if options.consensus else search)(model, features, options)
        if options.word_alternatives:
            return _with_alternatives(model, features, found, options)
        return found


def choose_words(model: Generator, features: Tensor, options: DecodingOptions) -> Tensor:
    """The words alone, greedy or sampled, that `decode` would choose for each map of (B, D, h, w).

    Returns (B, N, T): a picture's captions in no order, each with its end token unless max_length
    cut it, padded with 0.
    """
    assert options.method != "beam"
    with torch.inference_mode():
        count = len(features) * options.num_captions
        words = [
            _placed(each, rows, count) for rows, each, *_ in _choices(model, features, options)
        ]
        return torch.stack(words, 1).unflatten(0, (len(features), -1))


def score_captions(
    model: Generator, features: Tensor, tokens: Tensor, options: DecodingOptions
) -> Tensor:
    """Log-probabilities of given words, by the very steps and filters that decode.

    features (B, D, h, w); tokens (B, K, 1 + T) from the start token on, padded with 0.
    Returns (B, K, T), 0 at padding and -inf for words that the options forbid.
    """
    with torch.inference_mode():
        log_probs = [
            vocabulary.gather(1, word[:, None])[:, 0].masked_fill(word == PAD, 0)
            for word, vocabulary in told(model, features, tokens, options)
        ]
        return torch.stack(log_probs, 1).unflatten(0, tokens.shape[:2])


def told(
    model: Generator, features: Tensor, tokens: Tensor, options: DecodingOptions
) -> Iterator[tuple[Tensor, Tensor]]:
    """What a model that is told what to write, tokens (B, K, 1 + T), makes of it: by step the word
    (R,) and the log-probabilities (R, V) that it was one of."""
    memory, state = model.start(features, tokens[0, :, 1:].numel())
    state = {k: v.repeat_interleave(tokens.shape[1], 0) for k, v in state.items()}
    rows = tokens.flatten(0, 1)
    chosen = filters(options)
    for t in range(rows.shape[1] - 1):
        scores, state, _ = model.step(rows[:, t], state, memory)
        scores = apply_filters(chosen, scores, rows[:, 1 : t + 1])
        yield rows[:, t + 1], scores.log_softmax(-1)


def _agreed(model: Generator, features: Tensor, options: DecodingOptions) -> list[list[Hypothesis]]:
    """All captions of the beam, ranked by their agreement with samples, of which the best stay.

    Every picture's samples are drawn by the same numbers, whatever batch it is in.
    """
    assert options.consensus
    all_found = replace(options, num_captions=options.beams, consensus=None)
    drawn = replace(
        all_found,
        method="sample",
        num_captions=options.consensus,
        beam_size=None,
        length_penalty=None,
        temperature=TEMPERATURE,
        seed=0,
    )
    found = beam_search(model, features, all_found)
    ranked = []
    pictures = max(1, TOGETHER // options.consensus)
    for first in range(0, len(found), pictures):
        some = slice(first, first + pictures)
        ranked += by_agreement(found[some], choose_words(model, features[some], drawn))
    return [group[: options.num_captions] for group in ranked]


def _with_alternatives(
    model: Generator, features: Tensor, found: list[list[Hypothesis]], options: DecodingOptions
) -> list[list[Hypothesis]]:
    """The captions found, each told to the model once more to see what else it would have said."""
    tokens = pad_captions([[[START, *each.tokens] for each in group] for group in found])
    tokens = tokens.to(features.device)
    steps = []
    for word, log_probs in told(model, features, tokens, options):
        others = log_probs.scatter(1, word[:, None], -torch.inf)
        steps.append(others.topk(min(options.word_alternatives, others.shape[1])))
    log_probs, words = (
        torch.stack(part, 1).unflatten(0, tokens.shape[:2]).tolist()  # (B, K, T, alternatives)
        for part in zip(*steps, strict=True)
    )

    def complete(each: Hypothesis, b: int, k: int) -> Hypothesis:
        ranked = (
            zip(*step, strict=True) for step in zip(words[b][k], log_probs[b][k], strict=True)
        )
        others = (tuple(pair for pair in step if pair[1] > -torch.inf) for step in ranked)
        return replace(each, alternatives=tuple(islice(others, len(each.tokens))))

    return [[complete(each, b, k) for k, each in enumerate(group)] for b, group in enumerate(found)]


def caption_batches(
    model: ImageGenerator,
    pictures: Pictures,
    batches: Sequence[Sequence[int]],
    options: DecodingOptions,
    *,
    workers: int = 0,
    precision: str = "float32",
) -> Iterator[tuple[Sequence[int], list[list[Hypothesis]]]]:
    """Load, encode and decode batch by batch; yields the indices and per picture its captions."""
    device = device_of(model)
    ahead = load_ahead(pictures.load, batches, workers, pin=device.type == "cuda")
    was_training = model.training
    model.train(False)
    try:
        for batch, loaded in zip(batches, ahead, strict=True):
            with torch.inference_mode(), products_in(precision, device):
                values = loaded.to(device, non_blocking=True).float()
                features = values if pictures.are_features else model.encoder(values)
                found = decode(model, features, options)
            yield batch, found
    finally:
        model.train(was_training)


# ---- greedy and sampling ------------------------------------------------------------------------


def _rollout(
    model: Generator, features: Tensor, options: DecodingOptions
) -> list[list[Hypothesis]]:
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
    at each other. Those that have ended are padding until half of every picture's have, and are
    left out then.
    """
    pictures, per_picture = len(features), options.num_captions
    rows = torch.arange(pictures * per_picture, device=features.device)
    memory, state = model.start(features, expected_reads(options, per_picture))
    state = {key: value.repeat_interleave(per_picture, 0) for key, value in state.items()}
    sampling = options.method == "sample"
    choose = _sampler(options, pictures, features.device) if sampling else _likeliest
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
        if look_now(features, t):
            going_on = int((~ended).view(pictures, -1).sum(1).max())
            if going_on == 0:
                break
            if 2 * going_on <= len(rows) // pictures:
                left = _first(ended.view(pictures, -1), going_on)
                rows, tokens, ended, words = (x[left] for x in (rows, tokens, ended, words))
                state = {key: value[left] for key, value in state.items()}


def _first(ended: Tensor, most: int) -> Tensor:
    """Of rows (B, K) the places of those that have not ended, as many for every picture: K halved
    as often as `most` allows, so that compiled steps meet few sizes."""
    keep = ended.shape[1]
    while keep // 2 >= most:
        keep //= 2
    first = torch.arange(len(ended), device=ended.device)[:, None] * ended.shape[1]
    return (first + ended.int().argsort(dim=1, stable=True)[:, :keep]).flatten()


def _likeliest(scores: Tensor, t: int, rows: Tensor) -> Tensor:
    return scores.argmax(-1)


def _sampler(
    options: DecodingOptions, pictures: int, device: torch.device
) -> Callable[[Tensor, int, Tensor], Tensor]:
    """Draws by inverting the cumulative distribution at uniform numbers drawn beforehand.

    With a seed every picture gets the same numbers, so that its captions do not depend on the
    batch it is in. They are spread evenly: at every step one lies in each of as many equal parts
    of 0..1 as there are captions (McKay et al. 1979, Latin hypercubes), which leaves each caption
    the model's own distribution, and shows that with fewer of them. Without a seed each row has
    numbers of its own, from torch's global generator, that know nothing of each other.
    """
    steps, per_picture = options.max_length, options.num_captions
    if options.seed is None:
        uniform = torch.rand(steps, pictures * per_picture)
    else:
        generator = torch.Generator().manual_seed(options.seed)
        uniform = torch.rand(steps, per_picture, generator=generator).double()
        part = torch.rand(steps, per_picture, generator=generator).argsort(1)
        uniform = ((part + uniform) / per_picture).repeat(1, pictures)

    uniform = uniform.double().to(device)

    def choose(scores: Tensor, t: int, rows: Tensor) -> Tensor:
        cumulative = shape_draw(scores, options).double().softmax(-1).cumsum(-1)
        target = uniform[t, rows, None] * cumulative[:, -1:]
        return torch.searchsorted(cumulative, target, right=True)[:, 0].clamp(
            max=scores.shape[1] - 1
        )

    return choose
