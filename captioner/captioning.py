"""The two captioning models: what they learn (`loss`) and how they speak (`start`, `step`).

Nothing here searches, trains or reads files. Shapes: B pictures, C captions per picture, T words,
V vocabulary, D feature channels, h, w grid, P = h*w positions, E embedding, H hidden, A attention,
K hypotheses per picture, R = B*K rows, N real words of a batch.

Both models have the same three methods:

    loss(batch) -> Loss                               teacher-forced, for training
    start(features, reads) -> (memory, state)         features (B, D, h, w)
    step(tokens, state, memory) -> (scores, state, attention)

`reads` says about how many words will be drawn from each picture, over all its hypotheses.
`memory` holds what no word changes: what the picture alone decides, rows (B, ...), and under
"word_gates" what the words alone do, rows (V, ...), where more will be drawn than there are.
`state` is a dict of tensors with rows (R, ...), reordered by index_select, one row per picture at
the start.
`step` takes the previous words (R,), the K rows of one picture side by side, and returns raw
scores (R, V) and the attention (R, h, w), or None for a model without; `attends` tells which.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import additive_energies
from .batches import Batch
from .decoding import Memory, State
from .encoders import Encoder
from .errors import InputError
from .hoisting import Product, hoist
from .layers import Dropout, lstm_cell
from .locations import Draws, first_baseline, likeliest
from .losses import Loss, attention_coverage, caption_cross_entropy
from .options import check_at_least, check_share, option
from .scheduled import previous_words


@dataclass(frozen=True)
class ModelOptions:
    """Which of the two models, its sizes and its regularisation."""

    attention: bool = option(False, "Show, Attend and Tell instead of Show and Tell")
    hard_attention: bool = option(False, "attention to one place per word, drawn in training")
    embedding_size: int = option(300, "size of a word's embedding, shared with the output layer")
    hidden_size: int = option(512, "size of the LSTM")
    annotation_size: int = option(512, "size of what a place of the map becomes; 0: as it is")
    attention_size: int = option(256, "size of the attention's hidden layer")
    dropout: float = option(0.3, "dropout on embeddings, annotations and the output layer's input")
    label_smoothing: float = option(0.1, "share of each target spread over the vocabulary")
    coverage_weight: float = option(0.01, "weight of doubly stochastic attention")

    def __post_init__(self) -> None:
        check_at_least(self, 1, "embedding_size", "hidden_size", "attention_size")
        check_share(self, "dropout", "label_smoothing")
        check_at_least(self, 0, "annotation_size", "coverage_weight")

    @property
    def name(self) -> str:
        kind = "hard-attention" if self.hard_attention else "attention"
        return kind if self.attention else "show-and-tell"


class ShowAndTell(nn.Module):
    """Vinyals et al. 2015: the picture's embedding is the LSTM's first input, then the words."""

    attends = False

    def __init__(self, encoder: Encoder, vocabulary_size: int, options: ModelOptions) -> None:
        super().__init__()
        self.options = options
        self.encoder = encoder
        self.embedding = _embedding(vocabulary_size, options)
        self.picture = nn.Linear(encoder.channels, options.embedding_size)
        self.lstm = nn.LSTM(options.embedding_size, options.hidden_size, batch_first=True)
        self.project = nn.Linear(options.hidden_size, options.embedding_size)
        self.output_bias = nn.Parameter(torch.zeros(vocabulary_size))
        self.dropout = Dropout(options.dropout)

    def start(self, features: Tensor, reads: int) -> tuple[Memory, State]:
        picture = self.picture(features.mean((2, 3)))
        zeros = picture.new_zeros(len(picture), self.lstm.hidden_size)
        hidden, cell = self._advance(self._input_gates(picture), zeros, zeros.float())
        memory = {}
        if reads * len(features) > len(self.embedding.weight):
            words = scale_words(self.embedding.weight)
            memory["word_gates"] = self._input_gates(words)  # (V, 4H)
        return memory, {"hidden": hidden, "cell": cell}

    def step(self, tokens: Tensor, state: State, memory: Memory) -> tuple[Tensor, State, None]:
        if "word_gates" in memory:
            gates = memory["word_gates"][tokens]
        else:
            gates = self._input_gates(scale_words(self.embedding(tokens)))
        hidden, cell = self._advance(gates, state["hidden"], state["cell"])
        scores = word_scores(self, self._output(hidden))
        return scores, {"hidden": hidden, "cell": cell}, None

    def _input_gates(self, inputs: Tensor) -> Tensor:
        weight, _, bias, _ = self.lstm.all_weights[0]
        return F.linear(inputs, weight, bias)

    def _advance(self, gates: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """A step of `lstm`, which itself would arrange its weights anew at every step."""
        _, weight, _, bias = self.lstm.all_weights[0]
        return lstm_cell(gates + F.linear(hidden, weight, bias), cell)

    def _output(self, hidden: Tensor) -> Tensor:
        return self.dropout(torch.tanh(self.project(self.dropout(hidden))))

    def loss(self, batch: Batch) -> Loss:
        """One fused LSTM call over picture and caption, one vocabulary product on real words."""
        features = batch_features(self, batch)
        picture = self.picture(features.mean((2, 3)))
        inputs, targets = previous_words(self, features, batch), batch.tokens[..., 1:]
        real = targets != 0
        words = scale_words(self.embedding(inputs))  # (B, C, T, E)
        first = picture[:, None, None].expand(*words.shape[:2], 1, -1)
        sequence = self.dropout(torch.cat([first, words], dim=2))
        hidden, _ = self.lstm(sequence.flatten(0, 1))  # (B*C, 1 + T, H)
        output = self._output(hidden[:, 1:][real.flatten(0, 1)])  # (N, E)
        smoothed, plain, _ = cross_entropy(
            self, output, targets[real], batch, lambda each: each[..., None].expand_as(real)[real]
        )
        count = len(plain)
        parts = {"cross_entropy": plain.sum() / count, **batch.parts}
        return Loss(smoothed / count, count, parts)

    forward = loss


class ShowAttendAndTell(nn.Module):
    """Xu et al. 2015 over the feature map, its attention soft (section 4.2) or hard (4.1).

    With hard attention a word looks where it is likeliest to; in training, where it is drawn to.
    Its weights are kept doubly stochastic, too: they sum to the looks that a position may expect.
    """

    attends = True

    def __init__(self, encoder: Encoder, vocabulary_size: int, options: ModelOptions) -> None:
        super().__init__()
        annotation = options.annotation_size or encoder.channels
        hidden, embedding = options.hidden_size, options.embedding_size
        self.options = options
        self.encoder = encoder
        self.embedding = _embedding(vocabulary_size, options)
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
        self.output_bias = nn.Parameter(torch.zeros(vocabulary_size))
        self.dropout = Dropout(options.dropout)
        if options.hard_attention:
            self.baseline: Tensor
            self.register_buffer("baseline", first_baseline(vocabulary_size))

    def start(self, features: Tensor, reads: int) -> tuple[Memory, State]:
        memory, state = self._start(features)
        if reads * len(features) > len(self.embedding.weight):
            words = scale_words(self.embedding.weight)
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
        pictures, h, w, _ = memory["keys"].shape
        words = self.embedding(tokens)
        if "word_gates" in memory:
            gates = memory["word_gates"][tokens]
        else:
            gates = self.word_gates(scale_words(words))
        gates, hidden, cell = (
            rows.unflatten(0, (pictures, -1)) for rows in (gates, state["hidden"], state["cell"])
        )
        reads = self._reads(memory, likeliest)
        hidden, cell, context, attention = self._advance(gates, hidden, cell, *reads)
        hidden, cell, context = (part.flatten(0, 1) for part in (hidden, cell, context))
        scores = word_scores(self, self._output(words, hidden, context))
        return scores, {"hidden": hidden, "cell": cell}, attention.reshape(-1, h, w)

    def _reads(
        self, memory: Memory, choose: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Product, Product, Product]:
        """What all steps of a loop share: keys (B, P, A), and how to read hidden state, map, context.

        These three go from (B, K, H) to query, gate and gates, from attention (B, K, P) to context,
        and from the context, once gated, to gates and output. choose: from attention to where hard
        attention looks.
        """
        keys, look = memory["keys"].flatten(1, 2), hoist(memory["values"].flatten(1, 2))
        read_hidden, read_context = hoist(self.read_hidden), hoist(self.read_context)
        if self.options.hard_attention:
            return keys, read_hidden, lambda attention: look(choose(attention)), read_context
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
        """What the words alone decide is computed before the loop, the vocabulary product after.

        Captions come longest first, so that step t works on the first batch.columns[t] of them.
        """
        features = batch_features(self, batch)
        memory, state = self._start(features)
        pictures, captions, _ = batch.tokens.shape
        draws = Draws(batch) if self.options.hard_attention and self.training else None
        reads = self._reads(memory, draws or likeliest)
        inputs, targets = (  # of all steps below each other
            torch.cat([words[:, :c, t].flatten() for t, c in enumerate(batch.columns)])
            for words in (previous_words(self, features, batch), batch.tokens[..., 1:])
        )
        words = self.dropout(self.embedding(inputs))
        word_gates = self.word_gates(scale_words(words)).split(
            [pictures * c for c in batch.columns]
        )
        hidden = state["hidden"][:, None].expand(-1, captions, -1)
        cell = state["cell"][:, None].expand(-1, captions, -1)
        steps: list[tuple[Tensor, Tensor]] = []
        received = cell.new_zeros(())
        for t, running in enumerate(batch.columns):
            gates = word_gates[t].view(pictures, running, self.of_hidden[-1])
            hidden, cell, context, attention = self._advance(
                gates, hidden[:, :running], cell[:, :running], *reads
            )
            steps.append((hidden, context))
            real = (batch.tokens[:, :running, t + 1] != 0)[..., None]
            received = received + F.pad(attention * real, (0, 0, 0, captions - running))
        real_words = targets != 0
        rows = (
            torch.cat([part.flatten(0, 1) for part in parts]) for parts in zip(*steps, strict=True)
        )
        output = self._output(*(part[real_words] for part in (words, *rows)))
        smoothed, plain, each = cross_entropy(
            self,
            output,
            targets[real_words],
            batch,
            lambda part: torch.cat([part[:, :c].flatten() for c in batch.columns])[real_words],
        )
        given = batch.tokens[..., 1] != 0
        if batch.sampled is not None:
            given &= ~batch.sampled
        weights = None if batch.weights is None else batch.weights[given]
        coverage = attention_coverage(received[given], weights)
        count = len(plain)
        parts = {"cross_entropy": plain.sum() / count, "coverage": coverage.detach() / count}
        parts |= batch.parts
        value = smoothed + self.options.coverage_weight * coverage
        if draws:
            taught, entropy = draws.loss(-each, self.baseline)
            value, parts["entropy"] = value + taught, entropy / count
        return Loss(value / count, count, parts)

    forward = loss


CaptioningModel = ShowAndTell | ShowAttendAndTell


def build_model(encoder: Encoder, vocabulary_size: int, options: ModelOptions) -> CaptioningModel:
    """The model that the options ask for, around an encoder."""
    if vocabulary_size <= 4:
        raise InputError("the vocabulary is empty; lower --min-count or give more captions")
    return (ShowAttendAndTell if options.attention else ShowAndTell)(
        encoder, vocabulary_size, options
    )


def compile_steps(model: CaptioningModel) -> CaptioningModel:
    """Let torch.compile fuse the small operations of `step`, on CUDA into one graph; returns it.

    The first captions of each shape then take some seconds more. Needs a C++ compiler on a CPU.
    """
    step: Any = torch.compile(model.step)
    if model.output_bias.is_cuda:
        graph: Any = torch.compile(model.step, mode="reduce-overhead")

        def step(tokens: Tensor, state: State, memory: Memory) -> Any:
            """The next run of the graph writes to the same places."""
            scores, state, attention = graph(tokens, state, memory)
            state = {key: value.clone() for key, value in state.items()}
            return scores.clone(), state, None if attention is None else attention.clone()

    model.step = step  # type: ignore[method-assign]
    return model


def batch_features(model: CaptioningModel, batch: Batch) -> Tensor:
    """The batch's feature maps (B, D, h, w), by the encoder where it holds pictures."""
    if batch.features is not None:
        return batch.features.to(model.output_bias.dtype)
    assert batch.images is not None
    return model.encoder(batch.images)


def scale_words(words: Tensor) -> Tensor:
    """Embeddings (..., E) as the LSTM takes them, of about unit variance where training starts.

    As output weights they are shorter by sqrt(E); without the factor the LSTM would hardly hear
    the words at first. Vaswani et al. 2017, section 3.4.
    """
    return words * words.shape[-1] ** 0.5


def word_scores(model: CaptioningModel, output: Tensor) -> Tensor:
    """Raw scores (R, V) of the words after an output (R, E)."""
    return F.linear(output, model.embedding.weight, model.output_bias)


def cross_entropy(
    model: CaptioningModel,
    output: Tensor,
    targets: Tensor,
    batch: Batch,
    of_words: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """Cross-entropy of the words (N,) after an output (N, E): smoothed the sum, plain of each.

    of_words: from what there is of each caption (B, C) to the same of each word (N,). In a weighted
    batch nothing is smoothed, as a weight below 0 would drive the rest of the vocabulary without
    bound; and the words of sampled captions are left out of the plain ones, which come again with
    them.
    """
    layer, smoothing = (model.embedding.weight, model.output_bias), model.options.label_smoothing
    if batch.weights is None or batch.sampled is None:
        smoothed, plain = caption_cross_entropy(output, *layer, targets, smoothing)
        return smoothed, plain, plain
    weights, sampled = of_words(batch.weights), of_words(batch.sampled)
    weighted, each = caption_cross_entropy(output, *layer, targets, word_weights=weights)
    return weighted, each[~sampled], each


def _embedding(vocabulary_size: int, options: ModelOptions) -> nn.Embedding:
    """Word embeddings that are also the output layer's weights (Press and Wolf 2017)."""
    embedding = nn.Embedding(vocabulary_size, options.embedding_size)
    nn.init.normal_(embedding.weight, std=options.embedding_size**-0.5)
    return embedding
