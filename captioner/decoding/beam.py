"""Beam search for whole batches, on the device that the model is on.

Nothing here knows which model it is. Shapes: B images, K hypotheses per image, R = B*K rows,
N hypotheses asked for, T steps, V vocabulary, h, w grid.
"""

import torch
from torch import Tensor

from ..text.vocabulary import END, PAD, START
from .filters import apply_filters, filters
from .hypothesis import Generator, Hypothesis, collect, expected_steps, should_sync
from .options import DecodingOptions


def beam_search(
    model: Generator, features: Tensor, options: DecodingOptions
) -> list[list[Hypothesis]]:
    """For each feature map of (B, D, h, w) up to `num_captions` captions, best first.

    Each step takes the best 2K continuations of an image: those that end and rank among the
    first K enter the K best finished ones, the K best others live on. Back-pointers are kept and
    followed once at the end. An image is done when no live hypothesis can still beat the last
    of the finished ones that are asked for: log-probabilities only fall, so a live one is worth
    at most its sum over the longest length.
    """
    images, beams, longest = len(features), options.beams, options.max_length
    penalty, device = options.penalty, features.device
    memory, state = model.start(features, expected_steps(options, beams))
    state = {key: value.repeat_interleave(beams, 0) for key, value in state.items()}
    chosen = filters(options)
    first_row = torch.arange(images, device=device)[:, None] * beams  # (B, 1)
    tokens = torch.full((images * beams,), START, device=device)
    words = torch.zeros(images * beams, longest, dtype=torch.long, device=device)
    live = torch.full((images, beams), -torch.inf, device=device)
    live[:, 0] = 0  # copies of one hypothesis must not fill the beam
    trace = _Trace(images, beams, longest, device)
    finished = live.new_full((images, beams), -torch.inf), words.new_zeros(images, beams)
    for t in range(longest):
        scores, state, attention = model.step(tokens, state, memory)
        log_probs = apply_filters(chosen, scores, words[:, :t]).log_softmax(-1)  # (R, V)
        log_probs = log_probs.view(images, beams, log_probs.shape[1])
        live, index, finished = _continue(live, log_probs, finished, t, penalty)
        parents = index // log_probs.shape[2]
        tokens = index - parents * log_probs.shape[2]
        chosen_log_probs = log_probs.flatten(1).gather(1, index)
        trace.add(t, tokens, parents, chosen_log_probs, log_probs[..., END], attention)
        rows = (first_row + parents).flatten()
        tokens = tokens.flatten()
        state = {key: value.index_select(0, rows) for key, value in state.items()}
        if options.no_repeat_ngram:  # the other filters ask only how many words there are
            words = words.index_select(0, rows)
            words[:, t] = tokens
        if should_sync(features, t):
            bound = live[:, 0] / longest**penalty
            if (finished[0][:, options.num_captions - 1] >= bound).all():
                break
    return _backtrack(trace, t + 1, finished, live / (t + 1) ** penalty, options.num_captions)


Finished = tuple[Tensor, Tensor]


def _continue(
    live: Tensor, log_probs: Tensor, finished: Finished, step: int, penalty: float
) -> tuple[Tensor, Tensor, Finished]:
    """One word more: sums (B, K) of those that live on, their places among K*V, the finished.

    live (B, K): the sums so far. log_probs (B, K, V).
    """
    beams, vocabulary = log_probs.shape[1:]
    totals = (live[..., None] + log_probs).flatten(1)  # (B, K*V)
    best, index = totals.topk(min(2 * beams, totals.shape[1]))  # (B, 2K)
    ends = index % vocabulary == END
    finished = _finish(finished, step, best / (step + 1) ** penalty, ends, index // vocabulary)
    live, keep = best.masked_fill(ends, -torch.inf).topk(beams)
    return live, index.gather(1, keep), finished


def _finish(
    finished: Finished, step: int, scores: Tensor, ends: Tensor, parents: Tensor
) -> Finished:
    """The K best ended hypotheses of each image, best first: scores (B, K) and pointers (B, K).

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

    def __init__(self, images: int, beams: int, steps: int, device: torch.device) -> None:
        self.tokens = torch.zeros(steps, images, beams, dtype=torch.long, device=device)
        self.parents = torch.zeros_like(self.tokens)
        self.log_probs = torch.zeros(steps, images, beams, device=device)
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
    """Follow the back-pointers of the best `captions` hypotheses of each image.

    Where fewer have ended, the best live ones (scores `live`) fill up, after all that have.
    """
    images, beams = live.shape
    scores, pointers = finished
    rank = torch.cat([scores.double(), live.double() - 1e9], dim=1)  # (B, 2K)
    ranks, chosen = rank.topk(captions)  # (B, N)
    unended, slot = chosen >= beams, chosen % beams
    pointers = pointers.gather(1, slot)
    end_step = (pointers // beams).masked_fill(unended, steps)
    slot = torch.where(unended, slot, pointers % beams)
    first_row = torch.arange(images, device=live.device)[:, None] * beams
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
    hypotheses = collect(torch.stack(tokens[::-1], 1), torch.stack(log_probs[::-1], 1), maps[::-1])
    exists = ranks.isfinite().sum(1).tolist()  # those that do not come last
    firsts = range(0, len(hypotheses), captions)
    return [hypotheses[i : i + count] for i, count in zip(firsts, exists, strict=True)]
