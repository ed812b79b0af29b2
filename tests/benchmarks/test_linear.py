"""The benchmark of the linear map: how it flattens captions, and a map that must be found."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.linear import flatten, image_vectors, rank
from captioner.data.dataset import Example
from captioner.models.linking.linear import LinearOptions
from captioner.text.sentence_vectors import fit_counts

COLOURS = ("red", "green", "blue", "black")


def examples(texts):
    return [
        Example(number, Path(f"{number}.png"), tuple(captions), "train")
        for number, captions in enumerate(texts)
    ]


def test_captions_are_flattened_with_the_row_of_their_image():
    captions, image_of_caption = flatten(examples([["a", "b"], [], ["c"]]))
    assert captions == ["a", "b", "c"]
    assert image_of_caption.tolist() == [0, 0, 2]


def test_image_vectors_are_signed_roots_of_the_mean_with_unit_length():
    pooled = torch.tensor([[[9.0, -16.0], [7.0, 7.0]], [[0.0, 0.25], [1.0, 1.0]]])
    expected = torch.tensor([[0.6, -0.8], [0.0, 1.0]])
    torch.testing.assert_close(image_vectors(pooled.half()), expected)


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_linear_relation_is_found_and_held_out_captions_ranked(shuffled):
    """Images are noisy sums of a vector per colour; with captions of others nothing is found."""
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(len(COLOURS), 16))
    pairs = [(a, b) for a in range(4) for b in range(4) if a != b]

    def split(chosen):
        rows = np.stack([2 * vectors[a] + vectors[b] for a, b in chosen])
        noise = 0.01 * generator.normal(size=rows.shape)
        if shuffled:
            generator.shuffle(chosen)
        captions = [[f"{COLOURS[a]} {COLOURS[a]} {COLOURS[b]}"] for a, b in chosen]
        return torch.tensor(rows + noise).float(), examples(captions)

    train = split([pairs[i] for i in generator.integers(len(pairs), size=400)])
    other = split(list(pairs))  # each once, as equal captions of other images count as wrong
    encoder = fit_counts([c for example in train[1] for c in example.captions], 1)
    # Three dimensions: the counts of the four colours always sum to 3.
    scores = rank(encoder, LinearOptions(dimensions=3, ridge=0.01), train, other, "val")
    assert scores.protocol.startswith("val: 12 images, 12 texts")
    found = scores.numbers["i2t_R@1"], scores.numbers["t2i_R@1"]
    assert max(found) < 40 if shuffled else found == (100, 100)
