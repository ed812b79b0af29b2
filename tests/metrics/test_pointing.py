"""Pointing accuracy of hand-made maps."""

import math

import numpy as np
import pytest

from captioner.data.demo.shapes import DrawnShape
from captioner.metrics.pointing import Pointing, mentions, pointing

SHAPES = [
    DrawnShape("circle", "red", "small", "striped", (0, 0, 32, 32)),
    DrawnShape("circle", "red", "large", "solid", (64, 64, 110, 110)),
    DrawnShape("cross", "blue", "large", "dotted", (96, 0, 128, 40)),
]


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a small striped red circle", [(4, [0])]),
        ("two red circles above a blue cross", [(2, [0, 1]), (6, [2])]),
        ("a large circle and crosses", [(2, [1]), (4, [2])]),
        ("a green circle below a large striped red circle", [(2, []), (8, [])]),
        ("a red blue circle", [(3, [])]),
        ("blue and cross", [(2, [2])]),
        ("a picture of nothing", []),
    ],
)
def test_mentions_are_the_shapes_that_match_the_phrase(caption, expected):
    expected = [(t, [SHAPES[i].box for i in shapes]) for t, shapes in expected]
    assert mentions(caption.split(), SHAPES) == expected


def peaked(cells, size=4):
    """Maps (T, size, size) with their maximum at the given cells."""
    attention = np.full((len(cells), size, size), 0.01)
    for t, (row, column) in enumerate(cells):
        attention[t, row, column] = 0.5
    return attention


def test_pointing_on_constructed_maps():
    words = "a small red circle below a blue cross".split()
    # Cells of 32 pixels: the small circle fills 1 of 16; the cross, 40 pixels high, touches 2.
    chance = 1 / 16 + 2 / 16
    right = peaked([(3, 0)] * 3 + [(0, 0)] + [(3, 0)] * 3 + [(1, 3)])
    assert pointing(words, right, SHAPES) == Pointing(2, chance, 2)
    wrong = peaked([(0, 0)] * 3 + [(0, 1)] + [(0, 0)] * 3 + [(3, 1)])  # (3, 1) is (1, 3) transposed
    assert pointing(words, wrong, SHAPES) == Pointing(0, chance, 2)
    total = pointing(words, right, SHAPES) + pointing(words, wrong, SHAPES)
    assert total == Pointing(2, 2 * chance, 4)
    assert total.accuracy == 50
    assert total.chance_level == pytest.approx(100 * 3 / 32)


def test_any_of_the_boxes_counts_in_images_of_any_size():
    words = ["red", "circles"]  # one cell, and four from 64 to 110 in both directions
    for cell, hits in (((0, 0), 1), ((2, 3), 1), ((1, 1), 0)):
        assert pointing(words, peaked([(0, 0), cell]), SHAPES) == Pointing(hits, 5 / 16, 1)
    shape = DrawnShape("star", "red", "small", "solid", (100, 0, 150, 25))
    # An image of 200 x 100 under a grid of 4 x 4: cells of 50 x 25 pixels.
    assert pointing(["star"], peaked([(0, 2)]), [shape], (200, 100)) == Pointing(1, 1 / 16, 1)


def test_a_hit_is_a_cell_whose_centre_lies_in_the_widened_box():
    rng = np.random.default_rng(0)
    for _ in range(50):
        x0, y0 = rng.integers(0, 90, 2).tolist()
        box = (x0, y0, x0 + rng.integers(5, 38).item(), y0 + rng.integers(5, 38).item())
        attention = rng.random((1, 5, 7))
        row, column = np.unravel_index(attention[0].argmax(), (5, 7))
        dx, dy = 128 / 7, 128 / 5
        offset = rng.uniform(-0.5, 0.5)
        x, y = (column + 0.5 + offset) * dx, (row + 0.5 + offset) * dy
        hit = box[0] - dx / 2 < x < box[2] + dx / 2 and box[1] - dy / 2 < y < box[3] + dy / 2
        shape = DrawnShape("star", "red", "small", "solid", box)
        assert pointing(["stars"], attention, [shape], offset=offset).hits == hit


def test_a_mention_without_a_matching_shape_is_a_miss():
    assert pointing(["green", "heart"], peaked([(0, 0)] * 2), SHAPES) == Pointing(0, 0.0, 1)


def test_without_mentions_accuracy_is_nan():
    empty = pointing(["nothing"], peaked([(0, 0)]), SHAPES)
    assert empty == Pointing()
    assert math.isnan(empty.accuracy)
    assert math.isnan(empty.chance_level)


@pytest.mark.parametrize("shape", [(1, 4, 4), (2, 16)])
def test_a_map_is_needed_for_every_word(shape):
    with pytest.raises(ValueError, match=r"attention must have a map \(h, w\) for each of 2 words"):
        pointing(["red", "circle"], np.zeros(shape), SHAPES)
