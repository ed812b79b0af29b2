"""Show and Tell: the image is the first word. The contract is captioning.py's.

Nothing here searches, trains or reads files. Shapes: B images, C captions per image, T words,
V vocabulary, D feature channels, h, w grid, E embedding, H hidden, R rows, N real words of a batch.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...data.batches import Batch
from ...decoding.hypothesis import Memory, State
from ...vision.encoders import Encoder
from ..layers import Dropout, Standardize, lstm_cell
from ..losses import Loss
from .embedding import TiedEmbedding, scale_words
from .options import ModelOptions
from .scheduled_sampling import previous_words


class ShowAndTell(nn.Module):
    """Vinyals et al. 2015: the image's embedding is the LSTM's first input, then the words.

    The image also decides the state before that, which is zero in the paper: heard once only, it
    is soon forgotten.
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

    def calibrate(self, maps: Iterable[Tensor]) -> None:
        """Standardise feature maps by the statistics of these (B, D, h, w).

        Does nothing for an encoder that is learned from scratch, whose maps are not yet what they
        will be.
        """
        if self.encoder.frozen or self.encoder.pretrained:
            with torch.no_grad():
                self.standardize.measure(maps)

    def start(self, features: Tensor, expected_steps: int) -> tuple[Memory, State]:
        image, hidden, cell = self._see(features)
        hidden, cell = self._advance(self._input_gates(image), hidden, cell.float())
        memory = {}
        if expected_steps * features.shape[0] > len(self.words.weight):
            words = scale_words(self.words.weight)
            memory["word_gates"] = self._input_gates(words)  # (V, 4H)
        return memory, {"hidden": hidden, "cell": cell}

    def step(self, tokens: Tensor, state: State, memory: Memory) -> tuple[Tensor, State, None]:
        if "word_gates" in memory:
            gates = memory["word_gates"][tokens]
        else:
            gates = self._input_gates(scale_words(self.words(tokens)))
        hidden, cell = self._advance(gates, state["hidden"], state["cell"])
        scores = self.words.scores(self._output(hidden))
        return scores, {"hidden": hidden, "cell": cell}, None

    def _see(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The image as a word (B, E), and hidden state and cell (B, H) before it."""
        mean = self.standardize(features).mean((2, 3))
        hidden, cell = self.initial_hidden(mean), self.initial_cell(mean)
        return self.image_embedding(mean), torch.tanh(hidden), torch.tanh(cell)

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
        """One fused LSTM call over image and caption, one vocabulary product on real words."""
        features = batch.features_by(self.encoder)
        image, *initial = self._see(features)
        inputs, targets = previous_words(self, features, batch), batch.tokens[..., 1:]
        real = targets != 0
        words = scale_words(self.words(inputs))  # (B, C, T, E)
        first = image[:, None, None].expand(*words.shape[:2], 1, -1)
        sequence = self.dropout(torch.cat([first, words], dim=2))
        state = tuple(rows.repeat_interleave(inputs.shape[1], 0)[None] for rows in initial)
        hidden, _ = self.lstm(sequence.flatten(0, 1), state)  # (B*C, 1 + T, H)
        output = self._output(hidden[:, 1:][real.flatten(0, 1)])  # (N, E)

        def of_words(part: Tensor) -> Tensor:
            return part[real]

        smoothed, plain, _ = self.words.cross_entropy(
            output, targets[real], batch, of_words, self.options.label_smoothing
        )
        count = len(plain)
        parts = {"cross_entropy": plain.sum() / count, **batch.parts}
        return Loss(smoothed / count, count, parts)

    forward = loss
