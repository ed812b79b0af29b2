"""Show, Attend and Tell: every word looks at the map anew. The contract is captioning.py's.

Nothing here searches, trains or reads files. Shapes: B images, C captions per image, T words,
V vocabulary, D feature channels, h, w grid, P = h*w positions, E embedding, H hidden, A attention,
K hypotheses or captions per image, R = B*K rows, N real words of a batch, S words of all steps.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...data.batches import Batch
from ...decoding.hypothesis import Memory, State
from ...vision.encoders import Encoder
from ..deferred_grad import Product, deferred_matmul
from ..layers import Dropout, lstm_cell
from ..losses import Loss, attention_coverage
from .attention import additive_energies
from .embedding import TiedEmbedding, scale_words
from .hard_attention import LocationSampler, first_baseline
from .options import ModelOptions
from .scheduled_sampling import previous_words

# What all steps of a loop share: keys (B, P, A), and how to read hidden state, map and context.
# These three go from (B, K, H) to query, gate and gates, from attention (B, K, P) to context, and
# from the context, once gated, to gates and output.
Shared = tuple[Tensor, Product, Product, Product]


class ShowAttendAndTell(nn.Module):
    """Xu et al. 2015 over the feature map, its attention soft (section 4.2) or hard (4.1).

    With hard attention a word looks in training where it is drawn to; when it is written, at what
    it may expect to see, as the authors' own code has it, which writes better than the likeliest
    place does.
    Its weights are kept doubly stochastic, too: they sum to the looks that a position may expect.
    """

    has_attention = True

    def __init__(self, encoder: Encoder, vocabulary_size: int, options: ModelOptions) -> None:
        super().__init__()
        annotation = options.annotation_size or encoder.channels
        hidden, embedding = options.hidden_size, options.embedding_size
        self.options = options
        self.encoder = encoder
        self.words = TiedEmbedding(vocabulary_size, embedding)
        if options.annotation_size:
            self.annotate = nn.Linear(encoder.channels, annotation)
        self.initial_hidden = nn.Linear(annotation, hidden)
        self.initial_cell = nn.Linear(annotation, hidden)
        self.key = nn.Linear(annotation, options.attention_size)
        self.energy = nn.Parameter(torch.empty(options.attention_size))
        nn.init.uniform_(self.energy, -(options.attention_size**-0.5), options.attention_size**-0.5)
        # The LSTM's four gates (input, forget, candidate, output) come in three parts: what the
        # words decide, known beforehand; what the hidden state decides, with the attention's
        # query and the gate on the context; what the context decides, with its part of the
        # output layer.
        self.word_gates = nn.Linear(embedding, 4 * hidden)
        self.of_hidden = (options.attention_size, annotation, 4 * hidden)
        self.read_hidden = nn.Linear(hidden, sum(self.of_hidden), bias=False)
        self.of_context = (4 * hidden, embedding)
        self.read_context = nn.Linear(annotation, sum(self.of_context), bias=False)
        self.output_hidden = nn.Linear(hidden, embedding)
        self.dropout = Dropout(options.dropout)
        if options.hard_attention:
            self.baseline: Tensor
            self.register_buffer("baseline", first_baseline(vocabulary_size))

    def calibrate(self, maps: Iterable[Tensor]) -> None:
        """Does nothing: attention over standardised maps overfits sooner."""

    def start(self, features: Tensor, expected_steps: int) -> tuple[Memory, State]:
        memory, state = self._start(features)
        if expected_steps * features.shape[0] > len(self.words.weight):
            words = scale_words(self.words.weight)
            memory["word_gates"] = self.word_gates(words)  # (V, 4H)
        return memory, state

    def _start(self, features: Tensor) -> tuple[Memory, State]:
        values = features.permute(0, 2, 3, 1)  # (B, h, w, D)
        if self.options.annotation_size:  # a frozen encoder's were not learned for this
            values = self.dropout(torch.relu(self.annotate(values)))
        mean = values.mean((1, 2))
        state = {
            "hidden": torch.tanh(self.initial_hidden(mean)),
            "cell": torch.tanh(self.initial_cell(mean)).float(),
        }
        keys = self.key(values).float().mul_(2)  # as additive_energies halves them
        # In the precision of the products: else autocast would convert the whole map at every step.
        return {"keys": keys, "values": values.to(state["hidden"].dtype)}, state

    def step(self, tokens: Tensor, state: State, memory: Memory) -> tuple[Tensor, State, Tensor]:
        images, h, w, _ = memory["keys"].shape
        words = self.words(tokens)
        if "word_gates" in memory:
            gates = memory["word_gates"][tokens]
        else:
            gates = self.word_gates(scale_words(words))
        gates, hidden, cell = (
            rows.unflatten(0, (images, -1)) for rows in (gates, state["hidden"], state["cell"])
        )
        shared = self._shared(memory)
        hidden, cell, context, attention = self._advance(gates, hidden, cell, *shared)
        hidden, cell, context = (part.flatten(0, 1) for part in (hidden, cell, context))
        scores = self.words.scores(self._output(words, hidden, context))
        return scores, {"hidden": hidden, "cell": cell}, attention.reshape(-1, h, w)

    def _shared(self, memory: Memory, draws: LocationSampler | None = None) -> Shared:
        keys, look = memory["keys"].flatten(1, 2), deferred_matmul(memory["values"].flatten(1, 2))
        read_hidden, read_context = (
            deferred_matmul(self.read_hidden),
            deferred_matmul(self.read_context),
        )
        if draws:
            return keys, read_hidden, lambda attention: look(draws(attention)), read_context
        return keys, read_hidden, look, read_context

    def _advance(
        self,
        word_gates: Tensor,
        hidden: Tensor,
        cell: Tensor,
        keys: Tensor,
        read_hidden: Product,
        look: Product,
        read_context: Product,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One LSTM step over the gated context; rows (B, K, ...); equations 1-6 and 13.

        The gate on the context is not the paper's one number but one for each channel.
        """
        queries, gate, hidden_gates = read_hidden(hidden).split(self.of_hidden, dim=-1)
        energies = additive_energies(2 * queries.float(), keys, self.energy)
        attention = torch.softmax(energies, dim=-1)  # (B, K, P)
        context = read_context(torch.sigmoid(gate) * look(attention))
        context_gates, context = context.split(self.of_context, dim=-1)
        hidden, cell = lstm_cell(word_gates + hidden_gates + context_gates, cell)
        return hidden, cell, context, attention

    def _output(self, words: Tensor, hidden: Tensor, context: Tensor) -> Tensor:
        """Deep output from previous word, hidden state and context (its part); equation 7."""
        return self.dropout(torch.tanh(words + self.output_hidden(self.dropout(hidden)) + context))

    def loss(self, batch: Batch) -> Loss:
        """Cross-entropy and coverage, and what hard attention adds for its draws."""
        features = batch.features_by(self.encoder)
        memory, state = self._start(features)
        draws = LocationSampler(batch) if self.options.hard_attention and self.training else None
        shared = self._shared(memory, draws)
        told, targets = previous_words(self, features, batch), batch.tokens[..., 1:]
        words = self.dropout(self.words(by_step(told, batch)))
        hidden, context, received = self._read_captions(words, state, shared, batch)

        def of_words(part: Tensor) -> Tensor:
            return by_step(part, batch)[real]

        answers = by_step(targets, batch)
        real = answers != 0
        output = self._output(words[real], hidden[real], context[real])
        smoothed, plain, each = self.words.cross_entropy(
            output, answers[real], batch, of_words, self.options.label_smoothing
        )
        coverage = _coverage(received, batch)
        count = len(plain)
        parts = {"cross_entropy": plain.sum() / count, "coverage": coverage.detach() / count}
        parts |= batch.parts
        value = smoothed + self.options.coverage_weight * coverage
        if draws:
            taught, entropy = draws.loss(-each, self.baseline)
            value, parts["entropy"] = value + taught, entropy / count
        return Loss(value / count, count, parts)

    forward = loss

    def _read_captions(
        self, words: Tensor, state: State, shared: Shared, batch: Batch
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Embedded words, by step, (S, E) -> hidden states (S, H), what the output layer reads of
        the contexts (S, E), and the attention each caption gave each place (B, C, P).

        What the words alone decide is computed before the loop, the vocabulary product after it.
        """
        images, captions, _ = batch.tokens.shape
        gates = self.word_gates(scale_words(words)).split(
            [images * c for c in batch.active_captions]
        )
        hidden, cell = (
            rows[:, None].expand(-1, captions, -1) for rows in (state["hidden"], state["cell"])
        )
        steps: list[tuple[Tensor, Tensor]] = []
        received = cell.new_zeros(())
        for t, running in enumerate(batch.active_captions):
            hidden, cell, context, attention = self._advance(
                gates[t].view(images, running, self.of_hidden[-1]),
                hidden[:, :running],
                cell[:, :running],
                *shared,
            )
            steps.append((hidden.flatten(0, 1), context.flatten(0, 1)))
            real = (batch.tokens[:, :running, t + 1] != 0)[..., None]
            received = received + F.pad(attention * real, (0, 0, 0, captions - running))
        hiddens, contexts = (torch.cat(rows) for rows in zip(*steps, strict=True))
        return hiddens, contexts, received


def by_step(words: Tensor, batch: Batch) -> Tensor:
    """Of the words (B, C, T, ...) those of the first step, then of the second, and so on: (S, ...).

    Captions come longest first, so that step t works on the first batch.columns[t] of them.
    """
    return torch.cat([words[:, :c, t].flatten(0, 1) for t, c in enumerate(batch.active_captions)])


def _coverage(received: Tensor, batch: Batch) -> Tensor:
    """That of the references, from attention received (B, C, P)."""
    given = batch.tokens[..., 1] != 0
    if batch.sampled is not None:
        given &= ~batch.sampled
    return attention_coverage(
        received[given], None if batch.weights is None else batch.weights[given]
    )
