"""Show, Attend and Tell: an LSTM that attends to the image at every word.

Shapes: B images, C captions per image, T words, V vocabulary, D feature channels, (h, w) grid,
P = h*w positions, E embedding size, H hidden size, A attention size, K hypotheses or captions per
image, R = B*K rows, N real words (no padding) of a batch, S input words of all steps.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...data.batches import Batch
from ...decoding.hypothesis import Memory, State
from ...products import KeptTable, layer_product, product_in_blocks
from ...text.vocabulary import PAD
from ...vision.encoders import Encoder
from ..deferred_grad import Product, deferred_matmul
from ..layers import Dropout, lstm_cell, tanh
from ..losses import Loss, attention_coverage
from .attention import additive_energies, decay
from .embedding import TiedEmbedding, scale_embeddings
from .hard_attention import LocationSampler, initial_baseline, update_baseline
from .options import ModelOptions
from .scheduled_sampling import previous_words
from .targets import build_targets


@dataclass(frozen=True)
class LoopInvariants:
    """Tensors and functions shared by the steps of one forward pass.

    energies: function from queries (B, K, A) to energies (B, K, P). read_hidden: function from the
    hidden state (B, K, H) to query, gate and LSTM gates, concatenated. attend: function from
    attention (B, K, P) to context (B, K, D), where D is the annotation size if the feature map is
    projected. read_context: function from the gated context to LSTM gates and output, concatenated.
    """

    energies: Product
    read_hidden: Product
    attend: Product
    read_context: Product


class ShowAttendAndTell(nn.Module):
    """The model of Xu et al. 2015, with soft (section 4.2) or hard attention (section 4.1).

    Hard attention samples positions in training only. Decoding uses the expected context under the
    full weights, as the authors' code does: this yields better captions than attending only to the
    most likely position. Doubly stochastic regularisation applies in both cases; with hard
    attention, a position's weights sum to the expected number of times that it is sampled.
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
        # The LSTM's four gates (input, forget, candidate, output) are sums of three parts. The
        # words' part is computed before the loop, the hidden state's part in one product with the
        # attention's query and the gate on the context, and the context's part in one product with
        # the context's part of the output layer.
        self.word_gates = nn.Linear(embedding, 4 * hidden)
        self.hidden_parts = [options.attention_size, annotation, 4 * hidden]
        self.read_hidden = nn.Linear(hidden, sum(self.hidden_parts), bias=False)
        self.context_parts = [4 * hidden, embedding]
        self.read_context = nn.Linear(annotation, sum(self.context_parts), bias=False)
        self.output_hidden = nn.Linear(hidden, embedding)
        self.dropout = Dropout(options.dropout)
        self._gate_table = KeptTable()
        if options.hard_attention:
            self.baseline: Tensor
            self.register_buffer("baseline", initial_baseline(vocabulary_size))

    def calibrate(self, maps: Iterable[Tensor]) -> None:
        """Do nothing, because attention over standardised maps overfits sooner."""

    def start(self, features: Tensor, expected_steps: int) -> tuple[Memory, State]:
        memory, state = self._start(features)
        if not torch.is_grad_enabled():
            del memory["keys"]
        embeddings, layer = self.words.weight, self.word_gates
        table = self._gate_table.get(
            expected_steps * features.shape[0],
            embeddings,
            (layer.weight, layer.bias),
            lambda: layer_product(scale_embeddings(embeddings), layer),
        )
        if table is not None:
            memory["word_gates"] = table  # (V, 4H)
        return memory, state

    def _start(self, features: Tensor) -> tuple[Memory, State]:
        values = features.permute(0, 2, 3, 1)  # (B, h, w, D)
        if self.options.annotation_size:  # adapts an encoder trained for another task
            values = self.dropout(torch.relu(product_in_blocks(values, self.annotate)))
        mean = values.mean((1, 2))
        state = {
            "hidden": torch.tanh(layer_product(mean, self.initial_hidden)),
            "cell": torch.tanh(layer_product(mean, self.initial_cell)).float(),
        }
        keys = product_in_blocks(values, self.key)
        keys = keys.float().mul_(2)  # additive_energies halves its arguments
        # Convert the map to the dtype of the products once; autocast would do so at every step.
        values = values.to(state["hidden"].dtype)
        return {"keys": keys, "decayed_keys": decay(keys.detach()), "values": values}, state

    def step(self, tokens: Tensor, state: State, memory: Memory) -> tuple[Tensor, State, Tensor]:
        images, h, w, _ = memory["decayed_keys"].shape
        words = self.words(tokens)
        if "word_gates" in memory:
            gates = memory["word_gates"][tokens]
        else:
            gates = layer_product(scale_embeddings(words), self.word_gates)
        gates, hidden, cell = (
            torch.unflatten(rows, 0, (images, -1))
            for rows in (gates, state["hidden"], state["cell"])
        )
        hidden, cell, context, attention = self._advance(
            gates, hidden, cell, self._invariants(memory)
        )
        hidden, cell, context = (part.flatten(0, 1) for part in (hidden, cell, context))
        scores = self.words.scores(self._output(words, hidden, context))
        return scores, {"hidden": hidden, "cell": cell}, attention.reshape(-1, h, w)

    def _invariants(self, memory: Memory, sampler: LocationSampler | None = None) -> LoopInvariants:
        """Build the loop invariants; `sampler` is None for soft attention."""
        weighted_sum = deferred_matmul(memory["values"].flatten(1, 2))

        def attend(attention: Tensor) -> Tensor:
            return weighted_sum(attention if sampler is None else sampler(attention))

        decayed_keys = memory["decayed_keys"].flatten(1, 2)
        keys = memory["keys"].flatten(1, 2) if "keys" in memory else None

        def energies(queries: Tensor) -> Tensor:
            return additive_energies(2 * queries.float(), decayed_keys, self.energy, keys)

        return LoopInvariants(
            energies=energies,
            read_hidden=deferred_matmul(self.read_hidden),
            attend=attend,
            read_context=deferred_matmul(self.read_context),
        )

    def _advance(
        self, word_gates: Tensor, hidden: Tensor, cell: Tensor, invariants: LoopInvariants
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Run one LSTM step over the gated context, on rows (B, K, ...); equations 1-6 and 13.

        Returns hidden state, cell, the context's part of the output layer (B, K, E) and the
        attention (B, K, P). The gate on the context has one value per channel; in the paper it is
        a scalar.
        """
        read = invariants.read_hidden(hidden)
        queries, gate, hidden_gates = torch.split(read, self.hidden_parts, dim=-1)
        attention = torch.softmax(invariants.energies(queries), dim=-1)  # (B, K, P)
        context = invariants.read_context(torch.sigmoid(gate) * invariants.attend(attention))
        context_gates, context_output = torch.split(context, self.context_parts, dim=-1)
        hidden, cell = lstm_cell(word_gates + hidden_gates + context_gates, cell)
        return hidden, cell, context_output, attention

    def _output(self, words: Tensor, hidden: Tensor, context: Tensor) -> Tensor:
        """Compute the deep output from the previous word, hidden state and context; equation 7."""
        mixed = words + layer_product(self.dropout(hidden), self.output_hidden) + context
        output: Tensor = self.dropout(tanh(mixed))
        return output

    def loss(self, batch: Batch, sampler: LocationSampler | None = None) -> Loss:
        """Compute cross-entropy, coverage and, with hard attention, the sampled positions' loss.

        sampler: sampler of hard attention's positions; None uses a random one in training and soft
        attention in evaluation.
        """
        features = batch.features_by(self.encoder)
        memory, state = self._start(features)
        if sampler is None and self.options.hard_attention and self.training:
            sampler = LocationSampler(batch)
        invariants = self._invariants(memory, sampler)
        inputs = previous_words(self, features, batch)
        words = self.dropout(self.words(by_step(inputs, batch)))  # (S, E)
        hidden, context, received = self._read_captions(words, state, invariants, batch)
        real, order = _real_words(batch)
        output = self._output(words[real], hidden[real], context[real])  # (N, E)
        targets = build_targets(batch, order, self.options.label_smoothing)
        cross_entropy, word_losses = self.words.cross_entropy(output, targets)
        coverage = _coverage(received, batch)
        own_losses = targets.of_references(word_losses)
        count = len(own_losses)
        parts = {"cross_entropy": own_losses.sum() / count, "coverage": coverage.detach() / count}
        value, statistics = cross_entropy + self.options.coverage_weight * coverage, None
        if sampler:
            sampler_loss, entropy, statistics = sampler.loss(-word_losses, self.baseline)
            value, parts["entropy"] = value + sampler_loss, entropy / count
        return Loss(value / count, count, parts, statistics)

    forward = loss

    def update_statistics(self, sums: Tensor) -> None:
        """Update hard attention's baseline with a batch's statistics, summed over all processes."""
        update_baseline(self.baseline, sums)

    def _read_captions(
        self, words: Tensor, state: State, invariants: LoopInvariants, batch: Batch
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run the LSTM over embedded words (S, E), which are in the order of `by_step`.

        Returns the hidden states (S, H), the contribution of the contexts to the output layer
        (S, E), and the attention received by each position in each caption (B, C, P). The
        contribution of the words to the gates is computed before the loop, and the output
        projection after it.
        """
        images, captions, _ = batch.tokens.shape
        sizes = [images * active for active in batch.active_captions]
        gates = torch.split(layer_product(scale_embeddings(words), self.word_gates), sizes)
        hidden, cell = (
            rows[:, None].expand(-1, captions, -1) for rows in (state["hidden"], state["cell"])
        )
        steps: list[tuple[Tensor, Tensor]] = []
        attention_received = cell.new_zeros(())
        for t, active in enumerate(batch.active_captions):
            hidden, cell, context, attention = self._advance(
                gates[t].view(images, active, self.hidden_parts[-1]),
                hidden[:, :active],
                cell[:, :active],
                invariants,
            )
            steps.append((hidden.flatten(0, 1), context.flatten(0, 1)))
            real = (batch.tokens[:, :active, t + 1] != PAD)[..., None]
            padding = (0, 0, 0, captions - active)
            attention_received = attention_received + F.pad(attention * real, padding)
        hiddens, contexts = (torch.cat(rows) for rows in zip(*steps, strict=True))
        return hiddens, contexts, attention_received


def by_step(values: Tensor, batch: Batch) -> Tensor:
    """Flatten values (B, C, T, ...) to (S, ...): all first words, then all second words, etc.

    Captions are sorted longest first, so that step t covers only the first `active_captions[t]`.
    """
    return torch.cat([values[:, :c, t].flatten(0, 1) for t, c in enumerate(batch.active_captions)])


def _real_words(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return a mask (S,) of real words, and their indices (N,) in the flattened batch."""
    words = batch.tokens[..., 1:]
    real = by_step(words, batch) != PAD
    positions = torch.arange(words.numel(), device=words.device).view_as(words)
    return real, by_step(positions, batch)[real]


def _coverage(attention_received: Tensor, batch: Batch) -> Tensor:
    """Compute the coverage loss of the reference captions; attention_received (B, C, P)."""
    counted = batch.tokens[..., 1] != PAD
    if batch.rollouts is None:
        return attention_coverage(attention_received[counted])
    counted &= ~batch.rollouts.sampled
    return attention_coverage(attention_received[counted], batch.rollouts.weights[counted])
