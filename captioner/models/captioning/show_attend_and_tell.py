"""Show, Attend and Tell: an LSTM that attends to the image at every word.

Shapes: B images, C captions per image, T words, V vocabulary, D feature channels, (h, w) grid,
P = h*w positions, E embedding size, H hidden size, A attention size, K hypotheses or captions per
image, R = B*K rows, N real words (no padding) of a batch, n captions with a word at a step.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...data.batches import Batch
from ...decoding.hypothesis import Memory, State
from ...products import KeptTable, layer_product, product_in_blocks
from ...vision.encoders import Encoder
from ..deferred_grad import Product, deferred_matmul
from ..layers import Dropout, lstm_cell, tanh
from ..losses import Loss, attention_coverage
from .attention import additive_energies, decay
from .embedding import TiedEmbedding, scale_embeddings
from .hard_attention import LocationSampler, initial_baseline, update_baseline
from .options import ModelOptions
from .packing import PackedCaptions, Step
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
            gates = F.embedding(tokens, memory["word_gates"])
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
        packed = PackedCaptions(batch.tokens)
        words = self.dropout(self.words(packed.pick(previous_words(self, features, batch))))
        hidden, context, received = self._read_captions(words, state, invariants, packed)
        output = self._output(words, hidden, context)  # (N, E)
        targets = build_targets(batch, packed.words, self.options.label_smoothing)
        cross_entropy, word_losses = self.words.cross_entropy(output, targets)
        coverage = _coverage(received, batch, packed)
        own_losses = targets.of_references(word_losses)
        count = len(own_losses)
        parts = {"cross_entropy": own_losses.sum() / count, "coverage": coverage.detach() / count}
        value, statistics = cross_entropy + self.options.coverage_weight * coverage, None
        if sampler:
            log_probs = packed.unpack(-word_losses, batch.tokens[..., 1:])
            sampler_loss, entropy, statistics = sampler.loss(log_probs, self.baseline)
            value, parts["entropy"] = value + sampler_loss, entropy / count
        return Loss(value / count, count, parts, statistics)

    forward = loss

    def update_statistics(self, sums: Tensor) -> None:
        """Update hard attention's baseline with a batch's statistics, summed over all processes."""
        update_baseline(self.baseline, sums)

    def _read_captions(
        self, words: Tensor, state: State, invariants: LoopInvariants, packed: PackedCaptions
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run the LSTM over embedded words (N, E), which are in the order of `packed`.

        Returns the hidden states (N, H), the contribution of the contexts to the output layer
        (N, E), and the attention received by each position in each caption with words (n, P). The
        contribution of the words to the gates is computed before the loop, and the output
        projection after it.
        """
        gates = torch.split(layer_product(scale_embeddings(words), self.word_gates), packed.counts)
        image = packed.order // packed.captions
        hidden, cell = (state[name].index_select(0, image) for name in ("hidden", "cell"))
        hiddens, contexts = [], []
        received = cell.new_zeros(())
        for word_gates, step in zip(gates, packed.steps(), strict=True):
            count = len(word_gates)
            hidden, cell, context, attention = self._advance(
                word_gates, hidden[:count], cell[:count], _by_image(invariants, step)
            )
            hiddens.append(hidden)
            contexts.append(context)
            attention = F.pad(step.rows_of(attention), (0, 0, 0, packed.counts[0] - count))
            received = received + attention
        return torch.cat(hiddens), torch.cat(contexts), received


def _by_image(invariants: LoopInvariants, step: Step) -> LoopInvariants:
    """Let the attention of a step's captions read rows (n, ...) instead of (B, K, ...)."""
    return replace(
        invariants,
        energies=lambda queries: invariants.energies(step.by_image(queries)),
        attend=lambda attention: step.rows_of(invariants.attend(attention)),
    )


def _coverage(received: Tensor, batch: Batch, packed: PackedCaptions) -> Tensor:
    """Compute the coverage loss of the reference captions; received (n, P), in packed order."""
    if batch.rollouts is None:
        return attention_coverage(received)
    captions = packed.order[: len(received)]
    captions, received = (
        rows[~batch.rollouts.sampled.flatten()[captions]] for rows in (captions, received)
    )
    return attention_coverage(received, batch.rollouts.weights.flatten()[captions])
