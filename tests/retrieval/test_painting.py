"""Painted queries by hand, and their presets."""

import numpy as np
import pytest

from captioner.errors import InputError
from captioner.retrieval.painting import Layer, painted_scores, parse_layer, resample


def test_a_score_by_hand_on_nine_cells():
    dog = np.array([[0.9, 0.5, 0.1], [0.8, 0.4, 0.0], [0.7, 0.3, 0.2]])
    sky = np.array([[0.6, 0.6, 0.6], [0.1, 0.1, 0.1], [0.0, 0.0, 0.3]])
    layers = [
        Layer("dog", [[1, 0, -1], [1, 0, -1], [0, 0, 0]]),  # left and not right, in two rows
        Layer("sky", [[1, 1, 1], [0, 0, 0], [0, 0, 0]]),
    ]
    (score,) = painted_scores(np.stack([dog, sky])[None], layers)
    assert score == pytest.approx((0.9 + 0.8 - 0.1 - 0.0) / 4 + (0.6 * 3) / 3)


def test_halves_of_three_columns_share_the_middle_one():
    maps = np.array([[[[0.9, 0.5, 0.1]]]])
    assert painted_scores(maps, [parse_layer("dog=left")])[0] == pytest.approx(
        (0.9 + 0.5 * 0.5) / 1.5
    )
    assert painted_scores(maps, [parse_layer("-dog=right")])[0] == pytest.approx(
        -(0.1 + 0.5 * 0.5) / 1.5
    )


@pytest.mark.parametrize(("height", "width"), [(2, 3), (7, 7), (1, 5), (6, 9)])
def test_resampling_is_the_mean_over_a_fine_grid(height, width):
    grid = np.random.default_rng(0).normal(size=(3, 4))
    fine = np.kron(grid, np.ones((height * 10, width * 10)))
    rows, columns = (length // n for length, n in zip(fine.shape, (height, width), strict=True))
    expected = fine.reshape(height, rows, width, columns).mean((1, 3))
    np.testing.assert_allclose(resample(grid, (height, width)), expected)


def test_cells_outside_the_image_do_not_count():
    """With an offset of half a cell, the first cell covers only a quarter of the image."""
    np.testing.assert_allclose(resample(np.array([[1, 0, 0, 0]]), (1, 2), -0.5), [[1, 0]])
    np.testing.assert_allclose(resample(np.array([[0, 1, 1, 0]]), (1, 2), -0.5), [[0, 1]])


def test_presets_are_the_parts_of_an_image():
    grids = {
        name: resample(parse_layer(f"x={name}").grid, (4, 4))
        for name in ("left", "right", "top", "bottom", "centre")
    }
    np.testing.assert_array_equal(grids["left"] + grids["right"], np.ones((4, 4)))
    np.testing.assert_array_equal(grids["top"] + grids["bottom"], np.ones((4, 4)))
    assert grids["left"][0].tolist() == [1, 1, 0, 0]
    assert grids["top"][:, 0].tolist() == [1, 1, 0, 0]
    assert grids["centre"].sum() == 4


def test_words_and_signs_are_parsed():
    layer = parse_layer("-a black dog = Center")
    assert layer.word == "a black dog"
    assert layer.grid.sum() == -4
    assert parse_layer("t-shirt=top").word == "t-shirt"
    assert parse_layer("a=b=top").word == "a=b"


@pytest.mark.parametrize("text", ["dog", "dog=", "=left", "-=left", "dog=here", ""])
def test_other_texts_are_refused(text):
    with pytest.raises(InputError, match=r"WORD=PLACE or -WORD=PLACE with PLACE one of left, ri"):
        parse_layer(text)


def test_empty_paintings_are_refused():
    with pytest.raises(InputError, match="nothing is painted for 'dog'"):
        Layer("dog", np.zeros((3, 3)))
    with pytest.raises(InputError, match="nothing is painted; paint at least one word"):
        painted_scores(np.zeros((1, 0, 2, 2)), [])
    for grid in ([[1, 0], [1]], [["x"]], {}):
        with pytest.raises(InputError, match=r"'dog' must consist of numbers in rows of equal len"):
            Layer("dog", grid)
    for grid in (np.zeros((0, 2)), np.ones(3)):
        with pytest.raises(InputError, match="'dog' must have rows and columns, got shape"):
            Layer("dog", grid)
    with pytest.raises(InputError, match="'dog' must be finite, got NaN or infinity"):
        Layer("dog", [[np.nan]])
