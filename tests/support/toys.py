"""A toy model whose captions can all be enumerated: the oracle of the decoding tests."""

import pytest
import torch

from captioner.decoding.options import DecodingOptions

START, END = 1, 2


class Toy:
    """A recurrent model of 7 tokens whose scores and maps depend on the image and all words."""

    def __init__(self, seed, end=0.0):
        generator = torch.Generator().manual_seed(seed)

        def weights(*shape):
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        self.words, self.recurrent, self.image = weights(7, 5), weights(5, 5), weights(6, 5)
        self.output, self.map = weights(5, 7) * 1.5, weights(5, 6)
        self.bias = torch.tensor([0, 0, end, 0, 0, 0, 0], dtype=torch.float64)
        self.steps = 0

    def start(self, features, _expected_steps):
        images = features.flatten(1).double() @ self.image
        return {"images": images}, {"hidden": torch.zeros_like(images)}

    def step(self, tokens, state, memory):
        self.steps += 1
        rows = len(tokens) // len(memory["images"])
        images = memory["images"].repeat_interleave(rows, 0)
        hidden = torch.tanh(state["hidden"] @ self.recurrent + self.words[tokens] + images)
        attention = (hidden @ self.map).softmax(-1).view(-1, 2, 3)
        return hidden @ self.output + self.bias, {"hidden": hidden}, attention


def toy_features(images, seed=0):
    return torch.randn(images, 1, 2, 3, generator=torch.Generator().manual_seed(seed))


def all_captions(after, max_length):
    """Two dicts {caption: log-probability}: captions that end, and captions that are cut."""
    ended, live = {}, {(): 0.0}
    for _ in range(max_length):
        longer = {}
        for words, total in live.items():
            for word, log_prob in after(words).items():
                (ended if word == END else longer)[*words, word] = total + log_prob
        live = longer
    return ended, live


def ranked(captions, penalty):
    """(caption, log-probability) of all captions, best first under the length penalty."""
    order = sorted(captions.items(), key=lambda item: item[1] / len(item[0]) ** penalty)
    return [(words, pytest.approx(total, abs=1e-4)) for words, total in order[::-1]]


def found(hypotheses):
    """(caption, log-probability) of the hypotheses."""
    return [(hypothesis.tokens, hypothesis.score) for hypothesis in hypotheses]


METHODS = [
    DecodingOptions("greedy", max_length=8),
    DecodingOptions("greedy", max_length=8, no_repeat_ngram=1),
    DecodingOptions("beam", max_length=8, beam_size=4, num_captions=4),
    DecodingOptions("beam", max_length=8, beam_size=3, length_penalty=1.0, no_repeat_ngram=2),
    DecodingOptions("beam", max_length=8, beam_size=4, num_captions=2, consensus=9),
    DecodingOptions("sample", max_length=8, num_captions=3, seed=1),
    DecodingOptions("sample", max_length=8, temperature=2.0, top_p=0.9, min_length=3, seed=2),
]
