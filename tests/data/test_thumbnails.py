"""Thumbnails: their values, order and shape."""

import numpy as np
import pytest
from PIL import Image

from captioner.data.thumbnails import load_thumbnails


@pytest.mark.parametrize("workers", [0, 2])
def test_thumbnails_are_block_means_in_order(tmp_path, workers):
    generator = np.random.default_rng(0)
    paths, expected = [], []
    for number in range(70):  # more than are loaded at once
        pixels = generator.integers(0, 256, (8, 12, 3), np.uint8)
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(pixels).save(paths[-1])
        expected.append(pixels.reshape(4, 2, 4, 3, 3).mean((1, 3)))
    found = load_thumbnails(paths, 4, workers)
    assert (tuple(found.shape), str(found.dtype)) == ((70, 3, 4, 4), "torch.uint8")
    difference = found.permute(0, 2, 3, 1).numpy() - np.stack(expected)
    assert np.abs(difference).max() <= 1
