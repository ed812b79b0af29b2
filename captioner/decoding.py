"""Search: from a model's `start` and `step` to captions with their log-probabilities and maps.

Nothing here knows which model it is, nor files or words. Shapes: B pictures, K hypotheses per
picture, R = B*K rows, N hypotheses asked for, T steps, V vocabulary, h, w grid.

"""

from collections.abc import Callable, Sequence
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

    def start(self, features: Tensor) -> tuple[Memory, State]: ...

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


# ---- greedy and sampling ------------------------------------------------------------------------


def _rollout(
    model: Generator, features: Tensor, options: DecodingOptions
) -> list[list[Hypothesis]]:
    """Every row chooses its own words, never looking at the others."""
    pictures, per_picture = len(features), options.num_captions
    rows = pictures * per_picture
    memory, state = model.start(features)
    state = {key: value.repeat_interleave(per_picture, 0) for key, value in state.items()}
    choose = _sampler(options, pictures) if options.method == "sample" else _likeliest
    chosen = filters(options)
    words = torch.empty(rows, 0, dtype=torch.long, device=features.device)
    tokens = torch.full((rows,), START, device=features.device)
    ended = torch.zeros(rows, dtype=torch.bool, device=features.device)
    log_probs, maps = [], []
    for t in range(options.max_length):
        scores, state, attention = model.step(tokens, state, memory)
        scores = apply_filters(chosen, scores, words)
        tokens = choose(scores, t).masked_fill(ended, PAD)
        log_probs.append(scores.gather(1, tokens[:, None])[:, 0] - scores.logsumexp(-1))
        maps.append(attention)
        words = torch.cat([words, tokens[:, None]], dim=1)
        ended = ended | (tokens == END)
        if _check_now(features, t) and ended.all():
            break
    hypotheses = _collect(words, torch.stack(log_probs, 1), maps)
    ranked = [hypotheses[i : i + per_picture] for i in range(0, rows, per_picture)]
    return [sorted(group, key=lambda h: h.score, reverse=True) for group in ranked]


def _check_now(features: Tensor, t: int) -> bool:
    """Whether to look if all is done: on a GPU a look waits for the device, so every 4th step."""
    return features.device.type == "cpu" or t % 4 == 3


def _likeliest(scores: Tensor, t: int) -> Tensor:
    return scores.argmax(-1)


def _sampler(options: DecodingOptions, pictures: int) -> Callable[[Tensor, int], Tensor]:
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

    def choose(scores: Tensor, t: int) -> Tensor:
        cumulative = shape_draw(scores, options).double().softmax(-1).cumsum(-1)
        target = uniform[t].to(scores.device).double()[:, None] * cumulative[:, -1:]
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
    pictures, beams, device = len(features), options.beams, features.device
    penalty = options.length_penalty
    memory, state = model.start(features)
    state = {key: value.repeat_interleave(beams, 0) for key, value in state.items()}
    chosen = filters(options)
    first_row = torch.arange(pictures, device=device)[:, None] * beams  # (B, 1)
    tokens = torch.full((pictures * beams,), START, device=device)
    words = torch.empty(pictures * beams, 0, dtype=torch.long, device=device)
    live = torch.full((pictures, beams), -torch.inf, device=device)
    live[:, 0] = 0  # copies of one hypothesis must not fill the beam
    finished = _Finished(pictures, beams, device)
    trace: list[_Step] = []
    for t in range(options.max_length):
        scores, state, attention = model.step(tokens, state, memory)
        scores = apply_filters(chosen, scores, words)
        each, each_words = scores.topk(min(2 * beams, scores.shape[1]))  # (R, M)
        each = (each - scores.logsumexp(-1, keepdim=True)).unflatten(0, (pictures, beams))
        totals = (live[..., None] + each).flatten(1)  # (B, K*M)
        best, index = totals.topk(min(2 * beams, totals.shape[1]))  # (B, 2K)
        log_probs = each.flatten(1).gather(1, index)
        parents = index // each.shape[-1]
        next_words = each_words.unflatten(0, (pictures, beams)).flatten(1).gather(1, index)
        ends = next_words == END
        among_first = torch.arange(best.shape[1], device=device) < beams
        finished.add(
            torch.where(ends & among_first, best / (t + 1) ** penalty, -torch.inf),
            t,
            parents,
            log_probs,
        )
        live, keep = best.masked_fill(ends, -torch.inf).topk(beams)
        step = _Step(
            next_words.gather(1, keep),
            parents.gather(1, keep),
            log_probs.gather(1, keep),
            attention,
        )
        trace.append(step)
        rows = (first_row + step.parents).flatten()
        tokens = step.tokens.flatten()
        state = {key: value.index_select(0, rows) for key, value in state.items()}
        if options.no_repeat_ngram:
            words = torch.cat([words.index_select(0, rows), tokens[:, None]], dim=1)
        else:  # the other filters ask only how many there are
            words = words.new_zeros(len(words), t + 1)
        if _check_now(features, t):
            bound = live.amax(-1) / options.max_length**penalty
            if (finished.scores[:, options.num_captions - 1] >= bound).all():
                break
    return _backtrack(trace, finished, live / len(trace) ** penalty, options.num_captions)


@dataclass(frozen=True)
class _Step:
    """What one step chose for the live hypotheses, (B, K) each, and its attention (R, h, w)."""

    tokens: Tensor
    parents: Tensor
    log_probs: Tensor
    attention: Tensor | None


class _Finished:
    """The K best ended hypotheses of each picture, best first, as pointers into the trace.

    (B, K) each: scores by which they rank, the step of the end token, the row it came from
    and the end token's log-probability.
    """

    def __init__(self, pictures: int, beams: int, device: torch.device) -> None:
        self.scores = torch.full((pictures, beams), -torch.inf, device=device)
        self.steps = torch.zeros(pictures, beams, dtype=torch.long, device=device)
        self.parents = torch.zeros_like(self.steps)
        self.log_probs = torch.zeros_like(self.scores)

    def add(self, scores: Tensor, step: int, parents: Tensor, log_probs: Tensor) -> None:
        beams = self.scores.shape[1]
        self.scores, keep = torch.cat([self.scores, scores], dim=1).topk(beams)
        steps = torch.cat([self.steps, torch.full_like(parents, step)], dim=1)
        self.steps = steps.gather(1, keep)
        self.parents = torch.cat([self.parents, parents], dim=1).gather(1, keep)
        self.log_probs = torch.cat([self.log_probs, log_probs], dim=1).gather(1, keep)


def _backtrack(
    trace: list[_Step], finished: _Finished, live: Tensor, captions: int
) -> list[list[Hypothesis]]:
    """Follow the back-pointers of the best `captions` hypotheses of each picture.

    Where fewer have ended, the best live ones (scores `live`) fill up, after all that have.
    """
    pictures, beams = live.shape
    rank = torch.cat([finished.scores.double(), live.double() - 1e9], dim=1)  # (B, 2K)
    ranks, chosen = rank.topk(captions)  # (B, N)
    unended = chosen >= beams
    slot = chosen % beams
    end_step = finished.steps.gather(1, slot).masked_fill(unended, len(trace))
    end_log_probs = finished.log_probs.gather(1, slot)
    slot = torch.where(unended, slot, finished.parents.gather(1, slot))
    first_row = torch.arange(pictures, device=live.device)[:, None] * beams
    tokens, log_probs, maps = [], [], []
    for t in reversed(range(len(trace))):
        step, ending, running = trace[t], end_step == t, end_step > t
        words = torch.where(ending, END, step.tokens.gather(1, slot))
        tokens.append(torch.where(ending | running, words, PAD).flatten())
        word_log_probs = step.log_probs.gather(1, slot)
        log_probs.append(torch.where(ending, end_log_probs, word_log_probs).flatten())
        slot = torch.where(running, step.parents.gather(1, slot), slot)
        rows = (first_row + slot).flatten()
        maps.append(None if step.attention is None else step.attention.index_select(0, rows))
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
        memory, state = model.start(features)
        state = {k: v.repeat_interleave(tokens.shape[1], 0) for k, v in state.items()}
        rows = tokens.flatten(0, 1)
        chosen = filters(options)
        log_probs = []
        for t in range(rows.shape[1] - 1):
            scores, state, _ = model.step(rows[:, t], state, memory)
            scores = apply_filters(chosen, scores, rows[:, 1 : t + 1])
            word = scores.gather(1, rows[:, t + 1, None])[:, 0] - scores.logsumexp(-1)
            log_probs.append(word.masked_fill(rows[:, t + 1] == PAD, 0))
        return torch.stack(log_probs, 1).unflatten(0, tokens.shape[:2])
