"""The papers' equations, written as plain loops: the oracle of both models."""

import torch

# Different numbers of captions and words; tokens 4 to 14 of the tiny vocabulary.
CAPTIONS = [
    [[4, 5, 8, 10], [4, 6, 9], [14]],
    [[4, 7, 9, 11, 12, 13, 14]],
    [[5, 5], [6]],
]
WORDS = sum(len(caption) + 1 for texts in CAPTIONS for caption in texts)  # with end tokens


def lstm_cell(gates, cell):
    """New hidden state and cell from the gates in the order input, forget, candidate, output."""
    size = len(cell)
    input_gate, forget_gate, candidate, output_gate = (
        gates[i * size : (i + 1) * size] for i in range(4)
    )
    cell = torch.sigmoid(forget_gate) * cell + torch.sigmoid(input_gate) * torch.tanh(candidate)
    return torch.sigmoid(output_gate) * torch.tanh(cell), cell


def show_and_tell(model, features, caption):
    """Vinyals et al. 2015, equations 4-12, with an initial state from the image.

    Returns the log-probabilities (V,) at each word, and None for the maps.
    """
    lstm = model.lstm

    def advance(word, hidden, cell):
        gates = lstm.weight_ih_l0 @ word + lstm.bias_ih_l0
        return lstm_cell(gates + lstm.weight_hh_l0 @ hidden + lstm.bias_hh_l0, cell)

    mean = features.mean((1, 2))
    hidden = torch.tanh(model.initial_hidden.weight @ mean + model.initial_hidden.bias)
    cell = torch.tanh(model.initial_cell.weight @ mean + model.initial_cell.bias)
    image = model.image_embedding.weight @ mean + model.image_embedding.bias
    hidden, cell = advance(image, hidden, cell)
    rows = []
    for word in [1, *caption]:
        embedded = model.words.weight[word]
        hidden, cell = advance(len(embedded) ** 0.5 * embedded, hidden, cell)
        output = torch.tanh(model.project.weight @ hidden + model.project.bias)
        scores = model.words.weight @ output + model.words.bias
        rows.append(torch.log_softmax(scores, 0))
    return rows, None


def show_attend_and_tell(model, features, caption, look=lambda _, attention: attention):
    """Xu et al. 2015, equations 1-7 and 13: log-probabilities (V,) and maps (P,) at each word.

    look: function (t, attention) -> weights of the context of word t.
    """
    positions = list(features.flatten(1).T)
    if model.options.annotation_size:
        annotate = model.annotate
        positions = [torch.relu(annotate.weight @ place + annotate.bias) for place in positions]
    mean = sum(positions) / len(positions)
    hidden = torch.tanh(model.initial_hidden.weight @ mean + model.initial_hidden.bias)
    cell = torch.tanh(model.initial_cell.weight @ mean + model.initial_cell.bias)
    rows, maps = [], []
    for t, word in enumerate([1, *caption]):
        query, gate, gates = (model.read_hidden.weight @ hidden).split(model.hidden_parts)
        keys = [model.key.weight @ position + model.key.bias for position in positions]
        energies = [model.energy @ torch.tanh(key + query) for key in keys]
        attention = torch.softmax(torch.stack(energies), 0)
        weights = look(t, attention)
        context = sum(a * position for a, position in zip(weights, positions, strict=True))
        context_gates, context_output = (
            model.read_context.weight @ (torch.sigmoid(gate) * context)
        ).split(model.context_parts)
        embedded = model.words.weight[word]
        word_gates = model.word_gates.weight @ (len(embedded) ** 0.5 * embedded)
        gates = gates + context_gates + word_gates + model.word_gates.bias
        hidden, cell = lstm_cell(gates, cell)
        mixed = embedded + model.output_hidden.weight @ hidden + model.output_hidden.bias
        output = torch.tanh(mixed + context_output)
        scores = model.words.weight @ output + model.words.bias
        rows.append(torch.log_softmax(scores, 0))
        maps.append(attention)
    return rows, maps
