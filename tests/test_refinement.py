"""Refinement of label maps: what follows edges, and what stays."""

import numpy as np
import pytest
from PIL import Image

from captioner.refinement import refine
from captioner.regions import segment


def image_of(inside, side=48):
    """A dark image with a bright object, whose pixels `inside` marks, and a little noise."""
    noise = np.random.default_rng(0).normal(0, 4, (side, side, 3))
    pixels = np.where(inside[..., None], (230, 60, 50), (60, 70, 80)) + noise
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture
def square():
    inside = np.zeros((48, 48), bool)
    inside[14:34, 10:30] = True
    return inside


def iou(mask, inside):
    return (mask & inside).sum() / (mask | inside).sum()


def test_a_coarse_map_takes_the_shape_of_the_object(square):
    maps = np.zeros((1, 6, 6), np.float32)
    maps[0, 2:5, 2:5] = 0.9  # too far to the right, and over the edge below
    refined = refine(maps, image_of(square))
    plain = np.kron(maps[0], np.ones((8, 8))) >= 0.5
    assert iou(plain, square) < 0.55
    assert iou(segment(refined, 0.5) == 1, square) > 0.9
    assert refined.shape == (1, 48, 48)
    assert refined.max() == pytest.approx(0.9, abs=0.02)


def test_maps_keep_their_maxima_and_do_not_mix(square):
    maps = np.zeros((3, 6, 6), np.float32)
    maps[0] = 0.7
    maps[1, 2:4, 1:3] = 0.02  # an absent label stays dark
    refined = refine(maps, image_of(square))
    np.testing.assert_allclose(refined[0], 0.7, rtol=1e-4)
    assert refined[1].max() == pytest.approx(0.02, abs=1e-3)
    assert not refined[2].any()


def test_the_image_may_have_any_size(square):
    wide = image_of(square).resize((200, 90))
    maps = np.random.default_rng(1).random((2, 5, 7)).astype(np.float32)
    refined = refine(maps, wide, offset=-0.25)
    assert refined.shape == (2, 90, 200)
    assert refined.min() >= 0
    assert refined.max() <= 1
    assert refine(maps, Image.new("RGB", (1, 3))).shape == (2, 3, 1)
