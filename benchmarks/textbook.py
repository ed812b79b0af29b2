"""Plain implementations of the models, as baselines for the library's speed.

The equations are the library's and the weights are copied from its models, so that the results can
be compared. They are computed as in well-known tutorials and early research code:

- in training every caption is a separate row, with its own copy of the image's features;
- the attention's keys are recomputed at every step;
- an `nn.LSTMCell` advances step by step, with the vocabulary product inside the loop and all its
  scores kept in one (rows, steps, V) buffer;
- beam search processes one image at a time, with its hypotheses in one batch and their words in
  Python lists.

This module must not import the library; `with_weights_of` only reads the weights of a model.
Shapes: R rows, T steps, V vocabulary, D channels, P positions, H hidden, A attention.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

START, END = 1, 2
State = tuple[Tensor, Tensor]


class Attention(nn.Module):
    """Additive attention; Xu et al. 2015, section 3.1.2."""

    def __init__(self, channels: int, hidden_size: int, attention_size: int) -> None:
        super().__init__()
        self.encoder_attention = nn.Linear(channels, attention_size)
        self.decoder_attention = nn.Linear(hidden_size, attention_size, bias=False)
        self.full_attention = nn.Linear(attention_size, 1, bias=False)

    def forward(self, features: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        keys = self.encoder_attention(features)  # (R, P, A)
        query = self.decoder_attention(hidden)  # (R, A)
        energy = self.full_attention(torch.tanh(keys + query.unsqueeze(1))).squeeze(2)
        alpha = F.softmax(energy, dim=1)  # (R, P)
        context = (features * alpha.unsqueeze(2)).sum(dim=1)  # (R, D)
        return context, alpha


class AttentionDecoder(nn.Module):
    """Show, Attend and Tell with soft attention, one LSTMCell step at a time."""

    def __init__(
        self,
        channels: int,
        hidden: int,
        embedding: int,
        annotation: int,
        attention: int,
        vocabulary: int,
    ) -> None:
        super().__init__()
        self.vocabulary_size = vocabulary
        self.annotate = nn.Linear(channels, annotation)
        self.attention = Attention(annotation, hidden, attention)
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.init_h = nn.Linear(annotation, hidden)
        self.init_c = nn.Linear(annotation, hidden)
        self.f_beta = nn.Linear(hidden, annotation, bias=False)
        self.decode_step = nn.LSTMCell(embedding + annotation, hidden)
        self.output_hidden = nn.Linear(hidden, embedding)
        self.output_context = nn.Linear(annotation, embedding, bias=False)
        self.fc = nn.Linear(embedding, vocabulary)
        self.dropout = nn.Dropout(0.5)

    def annotations(self, features: Tensor) -> Tensor:
        """Map features (R, P, D) to annotations (R, P, annotation)."""
        return self.dropout(torch.relu(self.annotate(features)))

    def init_hidden_state(self, features: Tensor) -> State:
        mean = features.mean(dim=1)
        return torch.tanh(self.init_h(mean)), torch.tanh(self.init_c(mean))

    def step(self, features: Tensor, words: Tensor, state: State) -> tuple[Tensor, State, Tensor]:
        """Map embedded words (R, E) to scores (R, V), state and attention (R, P)."""
        hidden, cell = state
        context, alpha = self.attention(features, hidden)
        context = torch.sigmoid(self.f_beta(hidden)) * context
        hidden, cell = self.decode_step(torch.cat([words, context], dim=1), (hidden, cell))
        mixed = words + self.output_hidden(self.dropout(hidden)) + self.output_context(context)
        return self.fc(self.dropout(torch.tanh(mixed))), (hidden, cell), alpha

    def forward(
        self, features: Tensor, captions: Tensor, lengths: list[int]
    ) -> tuple[Tensor, Tensor]:
        """Apply teacher forcing to captions sorted by decreasing length.

        features (R, P, D): one copy per caption. captions (R, 1 + T). Returns the scores
        (R, T, V) and the attention (R, T, P), zero where a caption has ended.
        """
        words = self.dropout(self.embedding(captions))
        features = self.annotations(features)
        hidden, cell = self.init_hidden_state(features)
        rows, steps = len(features), max(lengths)
        scores = torch.zeros(rows, steps, self.vocabulary_size, device=features.device)
        alphas = torch.zeros(rows, steps, features.shape[1], device=features.device)
        for t in range(steps):
            running = sum(length > t for length in lengths)
            scores[:running, t], (hidden, cell), alphas[:running, t] = self.step(
                features[:running], words[:running, t], (hidden[:running], cell[:running])
            )
        return scores, alphas


class PlainDecoder(nn.Module):
    """Show and Tell, one LSTMCell step at a time."""

    def __init__(self, channels: int, hidden: int, embedding: int, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary_size = vocabulary
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.image = nn.Linear(channels, embedding)
        self.init_h = nn.Linear(channels, hidden)
        self.init_c = nn.Linear(channels, hidden)
        self.decode_step = nn.LSTMCell(embedding, hidden)
        self.project = nn.Linear(hidden, embedding)
        self.fc = nn.Linear(embedding, vocabulary)
        self.dropout = nn.Dropout(0.5)

    def annotations(self, features: Tensor) -> Tensor:
        return features

    def init_hidden_state(self, features: Tensor) -> State:
        mean = features.mean(dim=1)
        state = torch.tanh(self.init_h(mean)), torch.tanh(self.init_c(mean))
        return self.decode_step(self.dropout(self.image(mean)), state)

    def step(self, _: Tensor, words: Tensor, state: State) -> tuple[Tensor, State, None]:
        hidden, cell = self.decode_step(words, state)
        output = torch.tanh(self.project(self.dropout(hidden)))
        return self.fc(self.dropout(output)), (hidden, cell), None

    def forward(
        self, features: Tensor, captions: Tensor, lengths: list[int]
    ) -> tuple[Tensor, None]:
        """Apply teacher forcing, as in AttentionDecoder.forward."""
        words = self.dropout(self.embedding(captions))
        hidden, cell = self.init_hidden_state(features)
        rows, steps = len(features), max(lengths)
        scores = torch.zeros(rows, steps, self.vocabulary_size, device=features.device)
        for t in range(steps):
            running = sum(length > t for length in lengths)
            scores[:running, t], (hidden, cell), _ = self.step(
                features[:running], words[:running, t], (hidden[:running], cell[:running])
            )
        return scores, None


Decoder = AttentionDecoder | PlainDecoder


def with_weights_of(model: Any) -> Decoder:
    """Build the textbook equivalent of a library model, with copies of its weights."""
    channels = (model.annotate if model.options.attention else model.image_embedding).in_features
    vocabulary, embedding = model.words.weight.shape
    sizes = (channels, model.options.hidden_size, embedding)
    decoder: Decoder
    if model.options.attention:
        options = model.options
        decoder = AttentionDecoder(
            *sizes, options.annotation_size, options.attention_size, vocabulary
        )
        weights = _attention_weights(model, embedding**0.5)
    else:
        decoder = PlainDecoder(*sizes, vocabulary)
        lstm = model.lstm.named_parameters()
        weights = {f"decode_step.{name.removesuffix('_l0')}": value for name, value in lstm}
        weights |= {"image": model.image_embedding, "project": model.project}
        weights |= {"init_h": model.initial_hidden, "init_c": model.initial_cell}
        weights |= {"embedding.weight": model.words.weight * embedding**0.5}
    weights |= {"fc.weight": model.words.weight, "fc.bias": model.words.bias}
    state: dict[str, Tensor] = {}
    for name, value in weights.items():  # a parameter or a layer
        parts = value.state_dict() if isinstance(value, nn.Module) else {"": value}
        state |= {f"{name}.{part}".rstrip("."): tensor.detach() for part, tensor in parts.items()}
    decoder.load_state_dict(state)
    decoder.dropout.p = model.dropout.p
    return decoder.to(model.words.bias.device).train(model.training)


def _attention_weights(model: Any, scale: float) -> dict[str, nn.Module | Tensor]:
    """Return weights by name; the LSTM's word weights include the factor the library applies."""
    word_gates = scale * model.word_gates.weight
    query, gate, hidden_gates = model.read_hidden.weight.split(model.hidden_parts)
    context_gates, output_context = model.read_context.weight.split(model.context_parts)
    return {
        "embedding.weight": model.words.weight,
        "annotate": model.annotate,
        "attention.encoder_attention": model.key,
        "attention.decoder_attention.weight": query,
        "attention.full_attention.weight": model.energy[None],
        "init_h": model.initial_hidden,
        "init_c": model.initial_cell,
        "f_beta.weight": gate,
        "decode_step.weight_ih": torch.cat([word_gates, context_gates], dim=1),
        "decode_step.weight_hh": hidden_gates,
        "decode_step.bias_ih": model.word_gates.bias,
        "decode_step.bias_hh": torch.zeros_like(model.word_gates.bias),
        "output_hidden": model.output_hidden,
        "output_context.weight": output_context,
    }


def loss(
    decoder: Decoder,
    features: Tensor,
    captions: Tensor,
    lengths: list[int],
    label_smoothing: float,
    coverage_weight: float,
) -> Tensor:
    """Compute cross-entropy per word plus doubly stochastic attention, as the library does."""
    scores, alphas = decoder(features, captions, lengths)
    targets = captions[:, 1:]
    packed = nn.utils.rnn.pack_padded_sequence(scores, torch.tensor(lengths), batch_first=True).data
    answers = nn.utils.rnn.pack_padded_sequence(
        targets, torch.tensor(lengths), batch_first=True
    ).data
    value = F.cross_entropy(packed, answers, label_smoothing=label_smoothing)
    if alphas is not None:
        value = value + coverage_weight * ((1 - alphas.sum(dim=1)) ** 2).sum() / sum(lengths)
    return value


def train_step(
    decoder: Decoder,
    optimizer: torch.optim.Optimizer,
    features: Tensor,
    captions: Tensor,
    lengths: list[int],
    label_smoothing: float,
    coverage_weight: float,
    clip: float,
) -> float:
    value = loss(decoder, features, captions, lengths, label_smoothing, coverage_weight)
    optimizer.zero_grad()
    value.backward()
    nn.utils.clip_grad_norm_(decoder.parameters(), clip)
    optimizer.step()
    return value.item()


@torch.no_grad()
def beam_search(
    decoder: Decoder, features: Tensor, beam_size: int, min_length: int, max_length: int
) -> tuple[list[int], float]:
    """Return the best caption of one image with features (P, D), and its log-probability.

    The beam shrinks by one with every finished hypothesis, as in tutorials.
    """
    k = beam_size
    features = decoder.annotations(features.unsqueeze(0))
    hidden, cell = decoder.init_hidden_state(features)
    features = features.expand(k, -1, -1)
    hidden, cell = hidden.expand(k, -1), cell.expand(k, -1)
    hypotheses = [([START], 0.0)] * k
    complete: list[tuple[list[int], float]] = []
    for t in range(max_length):
        words = torch.tensor([tokens[-1] for tokens, _ in hypotheses], device=features.device)
        scores, (hidden, cell), _ = decoder.step(
            features[:k], decoder.embedding(words), (hidden, cell)
        )
        scores[:, [0, 1, 3]] = -torch.inf  # padding, start, unknown
        if t < min_length:
            scores[:, END] = -torch.inf
        log_probs = F.log_softmax(scores, dim=1)
        so_far = torch.tensor([score for _, score in hypotheses], device=features.device)
        totals = so_far.unsqueeze(1) + log_probs
        if t == 0:
            totals = totals[:1]  # all hypotheses are still the same
        best, index = totals.flatten().topk(k)
        vocabulary = scores.shape[1]
        parents, kept = [], []
        for score, i in zip(best.tolist(), index.tolist(), strict=True):
            tokens = [*hypotheses[i // vocabulary][0], i % vocabulary]
            if tokens[-1] == END:
                complete.append((tokens, score))
            else:
                parents.append(i // vocabulary)
                kept.append((tokens, score))
        k = len(kept)
        if k == 0:
            break
        hypotheses = kept
        hidden, cell = hidden[parents], cell[parents]
    tokens, score = max(complete or hypotheses, key=lambda hypothesis: hypothesis[1])
    return tokens[1:], score
