"""Beam search for batches of images.

Shapes: B images, K hypotheses per image, R = B*K rows, N requested captions, T steps,
V vocabulary, (h, w) grid.
"""

import torch
from torch import Tensor

from ..text.vocabulary import END, PAD, START
from .filters import apply_filters, build_filters
from .hypothesis import Generator, Hypothesis, collect_hypotheses, expected_steps, should_sync
from .options import DecodingOptions
from .top import top

Finished = tuple[Tensor, Tensor]  # scores (B, K), best first, and pointers (B, K) into the trace


def beam_search(
    model: Generator, features: Tensor, options: DecodingOptions
) -> list[list[Hypothesis]]:
    """Return at most `num_captions` captions per image of `features` (B, D, h, w), best first.

    Each step takes the best 2K continuations of an image. Those that end and rank among the
    first K compete for the K finished slots; the best K of the others remain live. The
    back-pointers are followed once, after the last step. Decoding stops when, for every image, no
    live hypothesis can overtake the last requested finished one: log-probabilities are at most 0,
    so the score of a live hypothesis is at most its current sum / max_length ** length_penalty.
    """
    images, beams, max_length = len(features), options.beams, options.max_length
    penalty, device = options.penalty, features.device
    memory, state = model.start(features, expected_steps(options, beams))
    state = {name: rows.repeat_interleave(beams, 0) for name, rows in state.items()}
    filters = build_filters(options)
    first_row = torch.arange(images, device=device)[:, None] * beams  # (B, 1)
    tokens = torch.full((images * beams,), START, device=device)
    words = torch.zeros(images * beams, max_length, dtype=torch.long, device=device)
    live = torch.full((images, beams), -torch.inf, device=device)
    live[:, 0] = 0  # start with one hypothesis: identical copies would fill the beam
    trace = _Trace(images, beams, max_length, device)
    finished = live.new_full((images, beams), -torch.inf), words.new_zeros(images, beams)
    for t in range(max_length):
        scores, state, attention = model.step(tokens, state, memory)
        log_probs = apply_filters(filters, scores, words[:, :t]).log_softmax(-1)  # (R, V)
        log_probs = log_probs.view(images, beams, log_probs.shape[1])
        live, index, finished = _extend(live, log_probs, finished, t, penalty)
        parents = index // log_probs.shape[2]
        tokens = index - parents * log_probs.shape[2]
        token_log_probs = log_probs.flatten(1).gather(1, index)
        trace.add(t, tokens, parents, token_log_probs, log_probs[..., END], attention)
        rows = (first_row + parents).flatten()
        tokens = tokens.flatten()
        state = {name: value.index_select(0, rows) for name, value in state.items()}
        if options.no_repeat_ngram:  # the only filter that uses the words, not just their number
            words = words.index_select(0, rows)
            words[:, t] = tokens
        if should_sync(features, t):
            bound = live[:, 0] / max_length**penalty
            if (finished[0][:, options.num_captions - 1] >= bound).all():
                break
    return _backtrack(trace, t + 1, finished, live / (t + 1) ** penalty, options.num_captions)


def _extend(
    live: Tensor, log_probs: Tensor, finished: Finished, step: int, penalty: float
) -> tuple[Tensor, Tensor, Finished]:
    """Extend the live hypotheses by one token.

    live (B, K): log-probability of each hypothesis so far. log_probs (B, K, V): log-probability of
    each next token. step: number of earlier steps. penalty: exponent of the length in scores.
    Returns the new live sums (B, K), the indices (B, K) of their last tokens in K*V, and the
    updated finished hypotheses.
    """
    beams, vocabulary = log_probs.shape[1:]
    totals = (live[..., None] + log_probs).flatten(1)  # (B, K*V)
    best, index = top(totals, min(2 * beams, totals.shape[1]))  # (B, 2K)
    ends = index % vocabulary == END
    finished = _finish(finished, step, best / (step + 1) ** penalty, ends, index // vocabulary)
    live, keep = best.masked_fill(ends, -torch.inf).topk(beams)
    return live, index.gather(1, keep), finished


def _finish(
    finished: Finished, step: int, scores: Tensor, ends: Tensor, parents: Tensor
) -> Finished:
    """Merge the hypotheses that end at this step into the K best finished ones of each image.

    scores, ends, parents (B, 2K): score of each candidate of the step, whether it ends, and the
    index of the live hypothesis that it continues. A pointer is step * K + parent.
    """
    beams = finished[0].shape[1]
    scores = scores[:, :beams].masked_fill(~ends[:, :beams], -torch.inf)
    best, keep = torch.cat([finished[0], scores], dim=1).topk(beams)
    pointers = torch.cat([finished[1], step * beams + parents[:, :beams]], dim=1)
    return best, pointers.gather(1, keep)


class _Trace:
    """The tokens chosen at every step for the live hypotheses, in buffers allocated once.

    tokens, parents, log_probs (T, B, K): each token, the index of the hypothesis it continues, and
    its log-probability. end_log_probs (T, B, K): log-probability of the end token after each
    hypothesis that was live before the step. attention: maps (R, h, w) of each step, or None.
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

    live (B, K): scores of the live hypotheses, which are added if fewer than `captions` hypotheses
    of an image have ended.
    """
    images, beams = live.shape
    scores, pointers = finished
    # Subtracting 1e9 ranks live hypotheses after all finished ones; float64 preserves their order.
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
    hypotheses = collect_hypotheses(
        torch.stack(tokens[::-1], 1), torch.stack(log_probs[::-1], 1), maps[::-1]
    )
    counts = ranks.isfinite().sum(1).tolist()  # a rank of -inf marks an empty slot
    firsts = range(0, len(hypotheses), captions)
    return [hypotheses[i : i + count] for i, count in zip(firsts, counts, strict=True)]
