"""The two captioning models: what they learn (`loss`) and how they speak (`start`, `step`).

Nothing here searches, trains or reads files. Shapes: B pictures, C captions per picture, T words,
V vocabulary, D feature channels, h, w grid, P = h*w positions, E embedding, H hidden, A attention,
K hypotheses per picture, R = B*K rows, N real words of a batch.

Both models have the same three methods:

    loss(batch) -> Loss                               teacher-forced, for training
    start(features) -> (memory, state)                features (B, D, h, w)
    step(tokens, state, memory) -> (scores, state, attention)

`memory` holds what depends on the picture alone, rows (B, ...), and never changes; `state` is a
dict of tensors with rows (R, ...), reordered by index_select, one row per picture at the start.
`step` takes the previous words (R,), the K rows of one picture side by side, and returns raw
scores (R, V) and the attention (R, h, w), or None for a model without.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .batches import Batch
from .decoding import Memory, State
from .encoders import Encoder
from .errors import InputError
from .losses import Loss, attention_coverage, caption_cross_entropy
from .options import check_at_least, check_share, option


@dataclass(frozen=True)
class ModelOptions:
    """Which of the two models, its sizes and its regularisation."""

    attention: bool = option(False, "Show, Attend and Tell instead of Show and Tell")
    embedding_size: int = option(300, "size of a word's embedding, shared with the output layer")
    hidden_size: int = option(512, "size of the LSTM")
    attention_size: int = option(256, "size of the attention's hidden layer")
    dropout: float = option(0.5, "dropout on embeddings and on the output layer's input")
    label_smoothing: float = option(0.1, "share of each target spread over the vocabulary")
    coverage_weight: float = option(0.01, "weight of doubly stochastic attention")

    def __post_init__(self) -> None:
        check_at_least(self, 1, "embedding_size", "hidden_size", "attention_size")
        check_share(self, "dropout", "label_smoothing")
        check_at_least(self, 0, "coverage_weight")

    @property
    def name(self) -> str:
        return "attention" if self.attention else "show-and-tell"


class ShowAndTell(nn.Module):
    """Vinyals et al. 2015: the picture's embedding is the LSTM's first input, then the words."""

    def __init__(self, encoder: Encoder, vocabulary_size: int, options: ModelOptions) -> None:
        super().__init__()
        self.options = options
        self.encoder = encoder
        self.embedding = _embedding(vocabulary_size, options)
        self.picture = nn.Linear(encoder.channels, options.embedding_size)
        self.lstm = nn.LSTM(options.embedding_size, options.hidden_size, batch_first=True)
        self.project = nn.Linear(options.hidden_size, options.embedding_size)
        self.output_bias = nn.Parameter(torch.zeros(vocabulary_size))
        self.dropout = nn.Dropout(options.dropout)

    def start(self, features: Tensor) -> tuple[Memory, State]:
        picture = self.picture(features.mean((2, 3)))
        _, (hidden, cell) = self.lstm(self.dropout(picture)[:, None])
        return {}, {"hidden": hidden[0], "cell": cell[0]}

    def step(self, tokens: Tensor, state: State, memory: Memory) -> tuple[Tensor, State, None]:
        words = self.embedding(tokens)[:, None]
        _, (hidden, cell) = self.lstm(words, (state["hidden"][None], state["cell"][None]))
        return self._scores(hidden[0]), {"hidden": hidden[0], "cell": cell[0]}, None

    def _scores(self, hidden: Tensor) -> Tensor:
        output = self.dropout(torch.tanh(self.project(self.dropout(hidden))))
        return F.linear(output, self.embedding.weight, self.output_bias)

    def loss(self, batch: Batch) -> Loss:
        """One fused LSTM call over picture and caption, one vocabulary product on real words."""
        picture = self.picture(batch_features(self, batch).mean((2, 3)))
        inputs, targets = batch.tokens[..., :-1], batch.tokens[..., 1:]
        real = targets != 0
        words = self.embedding(inputs)  # (B, C, T, E)
        first = picture[:, None, None].expand(*words.shape[:2], 1, -1)
        sequence = self.dropout(torch.cat([first, words], dim=2))
        hidden, _ = self.lstm(sequence.flatten(0, 1))  # (B*C, 1 + T, H)
        scores = self._scores(hidden[:, 1:][real.flatten(0, 1)])  # (N, V)
        smoothed, plain = caption_cross_entropy(scores, targets[real], self.options.label_smoothing)
        count = len(scores)
        return Loss(smoothed / count, count, {"cross_entropy": plain.detach() / count})

    forward = loss


class ShowAttendAndTell(nn.Module):
    """Xu et al. 2015 with deterministic soft attention (section 4.2) over the feature map."""

    def __init__(self, encoder: Encoder, vocabulary_size: int, options: ModelOptions) -> None:
        super().__init__()
        channels, hidden = encoder.channels, options.hidden_size
        self.options = options
        self.encoder = encoder
        self.embedding = _embedding(vocabulary_size, options)
        self.initial_hidden = nn.Linear(channels, hidden)
        self.initial_cell = nn.Linear(channels, hidden)
        self.key = nn.Linear(channels, options.attention_size)
        self.query = nn.Linear(hidden, options.attention_size, bias=False)
        self.energy = nn.Linear(options.attention_size, 1, bias=False)
        self.gate = nn.Linear(hidden, 1)
        # The LSTM's four gates (input, forget, candidate, output), split by what they depend on:
        # the words are known beforehand, the rest comes step by step.
        self.word_gates = nn.Linear(options.embedding_size, 4 * hidden)
        self.recurrent_gates = nn.Linear(hidden + channels, 4 * hidden, bias=False)
        self.output_hidden = nn.Linear(hidden, options.embedding_size)
        self.output_context = nn.Linear(channels, options.embedding_size, bias=False)
        self.output_bias = nn.Parameter(torch.zeros(vocabulary_size))
        self.dropout = nn.Dropout(options.dropout)

    def start(self, features: Tensor) -> tuple[Memory, State]:
        values = features.permute(0, 2, 3, 1)  # (B, h, w, D)
        mean = values.mean((1, 2))
        state = {
            "hidden": torch.tanh(self.initial_hidden(mean)),
            "cell": torch.tanh(self.initial_cell(mean)),
        }
        keys = self.key(values)
        # In the keys' precision: under autocast every step would convert the whole map anew.
        return {"values": values.to(keys.dtype), "keys": keys}, state

    def step(self, tokens: Tensor, state: State, memory: Memory) -> tuple[Tensor, State, Tensor]:
        pictures, h, w, _ = memory["values"].shape
        words = self.embedding(tokens).unflatten(0, (pictures, -1))  # (B, K, E)
        hidden = state["hidden"].unflatten(0, (pictures, -1))
        cell = state["cell"].unflatten(0, (pictures, -1))
        hidden, cell, context, attention = self._advance(
            self.word_gates(words), hidden, cell, memory
        )
        scores = self._scores(words.flatten(0, 1), hidden.flatten(0, 1), context.flatten(0, 1))
        state = {"hidden": hidden.flatten(0, 1), "cell": cell.flatten(0, 1)}
        return scores, state, attention.reshape(-1, h, w)

    def _attend(self, hidden: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Queries (B, K, H) -> gated context (B, K, D), attention (B, K, P); equations 4-6, 13."""
        keys, values = memory["keys"].flatten(1, 2), memory["values"].flatten(1, 2)
        queries = self.query(hidden)[:, :, None]  # (B, K, 1, A)
        energy = self.energy(torch.tanh(keys[:, None] + queries)).squeeze(-1)  # (B, K, P)
        attention = torch.softmax(energy.float(), dim=-1)
        context = attention.to(values.dtype) @ values
        return torch.sigmoid(self.gate(hidden)) * context, attention

    def _advance(
        self, word_gates: Tensor, hidden: Tensor, cell: Tensor, memory: Memory
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One LSTM step over the context; rows (B, K, ...); equations 1-3."""
        context, attention = self._attend(hidden, memory)
        gates = word_gates + self.recurrent_gates(torch.cat([hidden, context], dim=-1))
        enter, forget, candidate, leave = gates.chunk(4, dim=-1)
        cell = torch.sigmoid(forget) * cell + torch.sigmoid(enter) * torch.tanh(candidate)
        return torch.sigmoid(leave) * torch.tanh(cell), cell, context, attention

    def _scores(self, words: Tensor, hidden: Tensor, context: Tensor) -> Tensor:
        """Deep output from hidden state, context and previous word; equation 7."""
        mixed = words + self.output_hidden(self.dropout(hidden)) + self.output_context(context)
        return F.linear(self.dropout(torch.tanh(mixed)), self.embedding.weight, self.output_bias)

    def loss(self, batch: Batch) -> Loss:
        """What the words alone decide is computed before the loop, the vocabulary product after.

        Captions come longest first, so that step t works on the first batch.columns[t] of them.
        """
        memory, state = self.start(batch_features(self, batch))
        inputs, targets = batch.tokens[..., :-1], batch.tokens[..., 1:]  # (B, C, T)
        words = self.dropout(self.embedding(inputs))
        # unbind, not an index at each step, whose gradient would be as large as all steps
        word_gates = self.word_gates(words).unbind(2)  # T of (B, C, 4H)
        words_at = words.unbind(2)
        captions = targets.shape[1]
        hidden = state["hidden"][:, None].expand(-1, captions, -1)
        cell = state["cell"][:, None].expand(-1, captions, -1)
        steps: list[tuple[Tensor, Tensor, Tensor]] = []
        received = hidden.new_zeros((), dtype=torch.float32)
        for t, running in enumerate(batch.columns):
            hidden, cell, context, attention = self._advance(
                word_gates[t][:, :running], hidden[:, :running], cell[:, :running], memory
            )
            steps.append((words_at[t][:, :running], hidden, context))
            real = (targets[:, :running, t] != 0)[..., None]
            received = received + F.pad(attention * real, (0, 0, 0, captions - running))
        answers = torch.cat([targets[:, :c, t].flatten() for t, c in enumerate(batch.columns)])
        real_words = answers != 0
        scores = self._scores(*(_join(parts)[real_words] for parts in zip(*steps, strict=True)))
        smoothed, plain = caption_cross_entropy(
            scores, answers[real_words], self.options.label_smoothing
        )
        coverage = attention_coverage(received[targets[..., 0] != 0])
        count = len(scores)
        parts = {"cross_entropy": plain.detach() / count, "coverage": coverage.detach() / count}
        return Loss((smoothed + self.options.coverage_weight * coverage) / count, count, parts)

    forward = loss


CaptioningModel = ShowAndTell | ShowAttendAndTell


def build_model(encoder: Encoder, vocabulary_size: int, options: ModelOptions) -> CaptioningModel:
    """The model that the options ask for, around an encoder."""
    if vocabulary_size <= 4:
        raise InputError("the vocabulary is empty; lower --min-count or give more captions")
    return (ShowAttendAndTell if options.attention else ShowAndTell)(
        encoder, vocabulary_size, options
    )


def batch_features(model: CaptioningModel, batch: Batch) -> Tensor:
    """The batch's feature maps (B, D, h, w), by the encoder where it holds pictures."""
    if batch.features is not None:
        return batch.features.to(model.output_bias.dtype)
    assert batch.images is not None
    return model.encoder(batch.images)


def _join(parts: Sequence[Tensor]) -> Tensor:
    """Steps of (B, C_t, ...) as rows below each other."""
    return torch.cat([part.flatten(0, 1) for part in parts])


def _embedding(vocabulary_size: int, options: ModelOptions) -> nn.Embedding:
    """Word embeddings that are also the output layer's weights (Press and Wolf 2017)."""
    embedding = nn.Embedding(vocabulary_size, options.embedding_size)
    nn.init.normal_(embedding.weight, std=options.embedding_size**-0.5)
    return embedding
