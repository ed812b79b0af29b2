"""Search: from a model's `start` and `step` to captions with their log-probabilities and maps.

Nothing here knows which model it is, nor files or words. Shapes: B pictures, K hypotheses per
picture, R = B*K rows, N hypotheses asked for, T steps, V vocabulary, h, w grid.

"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from .filters import DecodingOptions, apply_filters, filters, shape_draw
from .text import Vocabulary

PAD, START, END = Vocabulary.PAD, Vocabulary.START, Vocabulary.END
Memory = dict[str, Tensor]
State = dict[str, Tensor]


class Generator(Protocol):
    """What search needs of a model; see captioning.py for the contract."""

    def start(self, features: Tensor, reads: int) -> tuple[Memory, State]: ...

    def step(
        self, tokens: Tensor, state: State, memory: Memory
    ) -> tuple[Tensor, State, Tensor | None]: ...


@dataclass(frozen=True)
class Hypothesis:
    """One caption of one picture.

    tokens: the words and, unless max_length cut it, the end token. log_probs: one per token.
    attention (len(tokens), h, w): each map sums to 1; None for a model without attention.
    """

    tokens: tuple[int, ...]
    log_probs: tuple[float, ...]
    attention: np.ndarray | None

    @property
    def score(self) -> float:
        """Log-probability of the whole caption, in nats."""
        return sum(self.log_probs)


def decode(model: Generator, features: Tensor, options: DecodingOptions) -> list[list[Hypothesis]]:
    """For each feature map of (B, D, h, w) its `num_captions` captions, best first.

    Beam search, whose captions all differ, gives fewer where the options allow no more.
    """
    with torch.inference_mode():
        if options.method == "beam":
            return _beam(model, features, options)
        return _rollout(model, features, options)


def choose_words(model: Generator, features: Tensor, options: DecodingOptions) -> Tensor:
    """The words alone, greedy or sampled, that `decode` would choose for each map of (B, D, h, w).

    Returns (B, N, T): a picture's captions in no order, each with its end token unless max_length
    cut it, padded with 0.
    """
    assert options.method != "beam"
    with torch.inference_mode():
        words = [tokens for tokens, _, _ in _choices(model, features, options)]
        return torch.stack(words, 1).unflatten(0, (len(features), -1))


# ---- greedy and sampling ------------------------------------------------------------------------


def _rollout(
    model: Generator, features: Tensor, options: DecodingOptions
) -> list[list[Hypothesis]]:
    words, log_probs, maps = [], [], []
    for tokens, scores, attention in _choices(model, features, options):
        words.append(tokens)
        log_probs.append(scores.log_softmax(-1).gather(1, tokens[:, None])[:, 0])
        maps.append(attention)
    hypotheses = _collect(torch.stack(words, 1), torch.stack(log_probs, 1), maps)
    firsts = range(0, len(hypotheses), options.num_captions)
    ranked = [hypotheses[i : i + options.num_captions] for i in firsts]
    return [sorted(group, key=lambda h: h.score, reverse=True) for group in ranked]


def _choices(
    model: Generator, features: Tensor, options: DecodingOptions
) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Step by step the word that each row chooses, never looking at the others: words (R,).

    With them the scores (R, V) that they were chosen from, and the maps (R, h, w).
    """
    pictures, per_picture = len(features), options.num_captions
    rows = pictures * per_picture
    memory, state = model.start(features, _reads(options, per_picture))
    state = {key: value.repeat_interleave(per_picture, 0) for key, value in state.items()}
    sampling = options.method == "sample"
    choose = _sampler(options, pictures, features.device) if sampling else _likeliest
    chosen = filters(options)
    words = torch.zeros(rows, options.max_length, dtype=torch.long, device=features.device)
    tokens = torch.full((rows,), START, device=features.device)
    ended = torch.zeros(rows, dtype=torch.bool, device=features.device)
    for t in range(options.max_length):
        scores, state, attention = model.step(tokens, state, memory)
        scores = apply_filters(chosen, scores, words[:, :t])
        tokens = choose(scores, t).masked_fill(ended, PAD)
        words[:, t] = tokens
        yield tokens, scores, attention
        ended = ended | (tokens == END)
        if _check_now(features, t) and ended.all():
            break


def _reads(options: DecodingOptions, hypotheses: int) -> int:
    """About how many words are drawn from each picture: most end half-way to max_length."""
    return hypotheses * max(options.min_length, options.max_length // 2)


def _check_now(features: Tensor, t: int) -> bool:
    """Whether to look if all is done: on a GPU a look waits for the device, so every 4th step."""
    return features.device.type == "cpu" or t % 4 == 3


def _likeliest(scores: Tensor, t: int) -> Tensor:
    return scores.argmax(-1)


def _sampler(
    options: DecodingOptions, pictures: int, device: torch.device
) -> Callable[[Tensor, int], Tensor]:
    """Draws by inverting the cumulative distribution at uniform numbers drawn beforehand.

    With a seed every picture gets the same numbers, so that its captions do not depend on the
    batch it is in; without one each row has its own, from torch's global generator.
    """
    steps, per_picture = options.max_length, options.num_captions
    if options.seed is None:
        uniform = torch.rand(steps, pictures * per_picture)
    else:
        generator = torch.Generator().manual_seed(options.seed)
        uniform = torch.rand(steps, per_picture, generator=generator).repeat(1, pictures)

    uniform = uniform.double().to(device)

    def choose(scores: Tensor, t: int) -> Tensor:
        cumulative = shape_draw(scores, options).double().softmax(-1).cumsum(-1)
        target = uniform[t, :, None] * cumulative[:, -1:]
        return torch.searchsorted(cumulative, target, right=True)[:, 0].clamp(
            max=scores.shape[1] - 1
        )

    return choose


# ---- beam search --------------------------------------------------------------------------------


def _beam(model: Generator, features: Tensor, options: DecodingOptions) -> list[list[Hypothesis]]:
    """Beam search for the whole batch at once.

    Each step takes the best 2K continuations of a picture: those that end and rank among the
    first K enter the K best finished ones, the K best others live on. Back-pointers are kept and
    followed once at the end. A picture is done when no live hypothesis can still beat the last
    of the finished ones that are asked for: log-probabilities only fall, so a live one is worth
    at most its sum over the longest length.
    """
    pictures, beams, longest = len(features), options.beams, options.max_length
    penalty, device = options.length_penalty, features.device
    memory, state = model.start(features, _reads(options, beams))
    state = {key: value.repeat_interleave(beams, 0) for key, value in state.items()}
    chosen = filters(options)
    first_row = torch.arange(pictures, device=device)[:, None] * beams  # (B, 1)
    tokens = torch.full((pictures * beams,), START, device=device)
    words = torch.zeros(pictures * beams, longest, dtype=torch.long, device=device)
    live = torch.full((pictures, beams), -torch.inf, device=device)
    live[:, 0] = 0  # copies of one hypothesis must not fill the beam
    trace = _Trace(pictures, beams, longest, device)
    finished = live.new_full((pictures, beams), -torch.inf), words.new_zeros(pictures, beams)
    for t in range(longest):
        log_probs, state, attention = model.step(tokens, state, memory)
        log_probs = apply_filters(chosen, log_probs, words[:, :t]).log_softmax(-1)  # (R, V)
        vocabulary = log_probs.shape[1]
        log_probs = log_probs.view(pictures, beams, vocabulary)
        totals = (live[..., None] + log_probs).flatten(1)  # (B, K*V)
        best, index = totals.topk(min(2 * beams, totals.shape[1]))  # (B, 2K)
        ends = index % vocabulary == END
        finished = _finish(finished, t, best / (t + 1) ** penalty, ends, index // vocabulary)
        live, keep = best.masked_fill(ends, -torch.inf).topk(beams)
        index = index.gather(1, keep)
        parents = index // vocabulary
        tokens = index - parents * vocabulary
        chosen_log_probs = log_probs.flatten(1).gather(1, index)
        trace.add(t, tokens, parents, chosen_log_probs, log_probs[..., END], attention)
        rows = (first_row + parents).flatten()
        tokens = tokens.flatten()
        state = {key: value.index_select(0, rows) for key, value in state.items()}
        if options.no_repeat_ngram:  # the other filters ask only how many words there are
            words = words.index_select(0, rows)
            words[:, t] = tokens
        if _check_now(features, t):
            bound = live[:, 0] / longest**penalty
            if (finished[0][:, options.num_captions - 1] >= bound).all():
                break
    return _backtrack(trace, t + 1, finished, live / (t + 1) ** penalty, options.num_captions)


Finished = tuple[Tensor, Tensor]


def _finish(
    finished: Finished, step: int, scores: Tensor, ends: Tensor, parents: Tensor
) -> Finished:
    """The K best ended hypotheses of each picture, best first: scores (B, K) and pointers (B, K).

    scores, ends, parents (B, 2K): the step's candidates, whether they end, and from which of the
    K hypotheses they come. A pointer is step * K + parent.
    """
    beams = finished[0].shape[1]
    scores = scores[:, :beams].masked_fill(~ends[:, :beams], -torch.inf)
    best, keep = torch.cat([finished[0], scores], dim=1).topk(beams)
    pointers = torch.cat([finished[1], step * beams + parents[:, :beams]], dim=1)
    return best, pointers.gather(1, keep)


class _Trace:
    """What each step chose for the live hypotheses, in buffers that are there from the start.

    tokens, parents, log_probs, end_log_probs (T, B, K): the word, the hypothesis it continues, its
    log-probability, and that of ending instead; attention: of each step (R, h, w), or None.
    """

    def __init__(self, pictures: int, beams: int, steps: int, device: torch.device) -> None:
        self.tokens = torch.zeros(steps, pictures, beams, dtype=torch.long, device=device)
        self.parents = torch.zeros_like(self.tokens)
        self.log_probs = torch.zeros(steps, pictures, beams, device=device)
        self.end_log_probs = torch.zeros_like(self.log_probs)
        self.attention: list[Tensor | None] = []

    def add(
        self,
        t: int,
        tokens: Tensor,
        parents: Tensor,
        log_probs: Tensor,
        end_log_probs: Tensor,
        attention: Tensor | None,
    ) -> None:
        self.tokens[t] = tokens
        self.parents[t] = parents
        self.log_probs[t] = log_probs
        self.end_log_probs[t] = end_log_probs
        self.attention.append(attention)


def _backtrack(
    trace: _Trace, steps: int, finished: Finished, live: Tensor, captions: int
) -> list[list[Hypothesis]]:
    """Follow the back-pointers of the best `captions` hypotheses of each picture.

    Where fewer have ended, the best live ones (scores `live`) fill up, after all that have.
    """
    pictures, beams = live.shape
    scores, pointers = finished
    rank = torch.cat([scores.double(), live.double() - 1e9], dim=1)  # (B, 2K)
    ranks, chosen = rank.topk(captions)  # (B, N)
    unended, slot = chosen >= beams, chosen % beams
    pointers = pointers.gather(1, slot)
    end_step = (pointers // beams).masked_fill(unended, steps)
    slot = torch.where(unended, slot, pointers % beams)
    first_row = torch.arange(pictures, device=live.device)[:, None] * beams
    tokens, log_probs, maps = [], [], []
    for t in reversed(range(steps)):
        ending, running = end_step == t, end_step > t
        words = torch.where(ending, END, trace.tokens[t].gather(1, slot))
        tokens.append(words.masked_fill(end_step < t, PAD).flatten())
        log_prob = trace.log_probs[t].gather(1, slot)
        end_log_prob = trace.end_log_probs[t].gather(1, slot)
        log_probs.append(torch.where(ending, end_log_prob, log_prob).flatten())
        slot = torch.where(running, trace.parents[t].gather(1, slot), slot)
        rows, attention = (first_row + slot).flatten(), trace.attention[t]
        maps.append(None if attention is None else attention.index_select(0, rows))
    hypotheses = _collect(torch.stack(tokens[::-1], 1), torch.stack(log_probs[::-1], 1), maps[::-1])
    exists = ranks.isfinite().sum(1).tolist()  # those that do not come last
    firsts = range(0, len(hypotheses), captions)
    return [hypotheses[i : i + count] for i, count in zip(firsts, exists, strict=True)]


def _collect(tokens: Tensor, log_probs: Tensor, maps: Sequence[Tensor | None]) -> list[Hypothesis]:
    """Rows of tokens (R, T), end and padding at the right, to Hypotheses; one copy to the host."""
    lengths = (tokens != PAD).sum(1).tolist()
    words, numbers = tokens.tolist(), log_probs.tolist()
    stacked = None
    if maps and maps[0] is not None:
        stacked = torch.stack([m for m in maps if m is not None], 1).float().cpu().numpy()
    return [
        Hypothesis(
            tuple(words[row][:length]),
            tuple(numbers[row][:length]),
            None if stacked is None else stacked[row, :length],
        )
        for row, length in enumerate(lengths)
    ]


# ---- scoring given captions ---------------------------------------------------------------------


def score_captions(
    model: Generator, features: Tensor, tokens: Tensor, options: DecodingOptions
) -> Tensor:
    """Log-probabilities of given words, by the very steps and filters that decode.

    features (B, D, h, w); tokens (B, K, 1 + T) from the start token on, padded with 0.
    Returns (B, K, T), 0 at padding and -inf for words that the options forbid.
    """
    with torch.inference_mode():
        memory, state = model.start(features, tokens[0, :, 1:].numel())
        state = {k: v.repeat_interleave(tokens.shape[1], 0) for k, v in state.items()}
        rows = tokens.flatten(0, 1)
        chosen = filters(options)
        log_probs = []
        for t in range(rows.shape[1] - 1):
            scores, state, _ = model.step(rows[:, t], state, memory)
            scores = apply_filters(chosen, scores, rows[:, 1 : t + 1])
            word = rows[:, t + 1]
            log_prob = scores.log_softmax(-1).gather(1, word[:, None])[:, 0]
            log_probs.append(log_prob.masked_fill(word == PAD, 0))
        return torch.stack(log_probs, 1).unflatten(0, tokens.shape[:2])
