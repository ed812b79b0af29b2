"""Show and Tell: an LSTM whose first input is the image.

Shapes: B images, C captions per image, T words, V vocabulary, D feature channels, (h, w) grid,
E embedding size, H hidden size, R rows, N real words (no padding) of a batch.
"""

from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...data.batches import Batch
from ...decoding.hypothesis import Memory, State
from ...products import KeptTable, layer_product, product
from ...text.vocabulary import PAD
from ...vision.encoders import Encoder
from ..layers import Dropout, Standardize, call_lstm, lstm_cell, tanh
from ..losses import Loss
from .embedding import TiedEmbedding, scale_embeddings
from .options import ModelOptions
from .scheduled_sampling import previous_words
from .targets import build_targets


class ShowAndTell(nn.Module):
    """Vinyals et al. 2015: the LSTM reads the image's embedding, then the words.

    Unlike in the paper, the image also determines the LSTM's initial state, because an image that
    is read only once is soon forgotten.
    """

    has_attention = False

    def __init__(self, encoder: Encoder, vocabulary_size: int, options: ModelOptions) -> None:
        super().__init__()
        self.options = options
        self.encoder = encoder
        self.standardize = Standardize(encoder.channels)
        self.words = TiedEmbedding(vocabulary_size, options.embedding_size)
        self.image_embedding = nn.Linear(encoder.channels, options.embedding_size)
        self.initial_hidden = nn.Linear(encoder.channels, options.hidden_size)
        self.initial_cell = nn.Linear(encoder.channels, options.hidden_size)
        self.lstm = nn.LSTM(options.embedding_size, options.hidden_size, batch_first=True)
        self.project = nn.Linear(options.hidden_size, options.embedding_size)
        self.dropout = Dropout(options.dropout)
        self._gate_table = KeptTable()

    def calibrate(self, maps: Iterable[Tensor]) -> None:
        """Measure the channel statistics with which feature maps are standardised.

        maps: iterable of feature maps (B, D, h, w). Does nothing if the encoder is trained from
        scratch, because its feature maps change during training.
        """
        if self.encoder.frozen or self.encoder.pretrained:
            with torch.no_grad():
                self.standardize.measure(maps)

    def start(self, features: Tensor, expected_steps: int) -> tuple[Memory, State]:
        image, hidden, cell = self._image_inputs(features)
        hidden, cell = self._advance(self._input_gates(image), hidden, cell.float())
        embeddings = self.words.weight
        table = self._gate_table.get(
            expected_steps * features.shape[0],
            embeddings,
            (cast(Tensor, self.lstm.weight_ih_l0), cast(Tensor, self.lstm.bias_ih_l0)),
            lambda: self._input_gates(scale_embeddings(embeddings)),
        )
        memory = {} if table is None else {"word_gates": table}  # (V, 4H)
        return memory, {"hidden": hidden, "cell": cell}

    def step(self, tokens: Tensor, state: State, memory: Memory) -> tuple[Tensor, State, None]:
        if "word_gates" in memory:
            gates = F.embedding(tokens, memory["word_gates"])
        else:
            gates = self._input_gates(scale_embeddings(self.words(tokens)))
        hidden, cell = self._advance(gates, state["hidden"], state["cell"])
        scores = self.words.scores(self._output(hidden))
        return scores, {"hidden": hidden, "cell": cell}, None

    def _image_inputs(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the first input (B, E), and the initial hidden state and cell (B, H)."""
        mean = self.standardize(features).mean((2, 3))
        hidden, cell = (
            layer_product(mean, layer) for layer in (self.initial_hidden, self.initial_cell)
        )
        return layer_product(mean, self.image_embedding), torch.tanh(hidden), torch.tanh(cell)

    def _input_gates(self, inputs: Tensor) -> Tensor:
        """Compute the input-dependent part of the LSTM's gates, (..., E) -> (..., 4H)."""
        weight, bias = self.lstm.weight_ih_l0, self.lstm.bias_ih_l0
        return product(inputs, cast(Tensor, weight), cast(Tensor, bias))

    def _advance(self, gates: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Run one step of `lstm`; calling the module would repack its weights at every step."""
        weight, bias = self.lstm.weight_hh_l0, self.lstm.bias_hh_l0
        recurrent = product(hidden, cast(Tensor, weight), cast(Tensor, bias))
        return lstm_cell(gates + recurrent, cell)

    def _output(self, hidden: Tensor) -> Tensor:
        projected = layer_product(self.dropout(hidden), self.project)
        output: Tensor = self.dropout(tanh(projected))
        return output

    def loss(self, batch: Batch) -> Loss:
        """Compute the loss with one fused LSTM call and one projection of all real tokens."""
        features = batch.features_by(self.encoder)
        image, *initial = self._image_inputs(features)
        inputs = previous_words(self, features, batch)
        real = batch.tokens[..., 1:] != PAD
        words = scale_embeddings(self.words(inputs))  # (B, C, T, E)
        first = image[:, None, None].expand(*words.shape[:2], 1, -1)
        sequence = self.dropout(torch.cat([first, words], dim=2))
        state = tuple(rows.repeat_interleave(inputs.shape[1], 0)[None] for rows in initial)
        hidden, _ = call_lstm(self.lstm, sequence.flatten(0, 1), state)  # (B*C, 1 + T, H)
        output = self._output(hidden[:, 1:][real.flatten(0, 1)])  # (N, E)
        order = real.flatten().nonzero()[:, 0]
        targets = build_targets(batch, order, self.options.label_smoothing)
        value, word_losses = self.words.cross_entropy(output, targets)
        word_losses = targets.of_references(word_losses)
        count = len(word_losses)
        parts = {"cross_entropy": word_losses.sum() / count}
        return Loss(value / count, count, parts)

    forward = loss
