"""Mosaics: each thumbnail in the free cell closest to its point, and what is refused."""

import itertools

import numpy as np
import pytest
from PIL import Image

from captioner.errors import InputError
from captioner.plots.mosaics import cells, cells_per_side, draw_mosaic

CORNERS = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 5.0], [10.0, 5.0]])  # counterclockwise from left
COLORS = ["red", "lime", "blue", "yellow"]


def test_points_at_the_corners_take_the_corner_cells():
    count = cells_per_side(4)
    assert count == 3  # 4 of 9 cells
    assert cells(CORNERS).tolist() == [[0, 2], [2, 2], [0, 0], [2, 0]]


def test_no_two_points_share_a_cell_even_if_they_are_equal():
    found = cells(np.ones((50, 2)))
    assert len({*map(tuple, found.tolist())}) == 50
    assert 0 <= found.min() <= found.max() < cells_per_side(50)


def test_each_point_takes_the_closest_free_cell():
    """A plain loop over all cells, in the order of the distances from the mean."""
    points = np.random.default_rng(0).normal(size=(30, 2))
    count = cells_per_side(30)
    low, high = points.min(0), points.max(0)
    places = (points - low) / (high - low) * count - 0.5
    places[:, 1] = count - 1 - places[:, 1]
    free, expected = set(itertools.product(range(count), repeat=2)), {}
    for i in sorted(range(30), key=lambda i: np.linalg.norm(places[i] - places.mean(0))):
        best = min(free, key=lambda cell: (np.hypot(*(places[i] - cell)), cell[1], cell[0]))
        free.remove(best)
        expected[i] = best
    assert [tuple(cell) for cell in cells(points).tolist()] == [expected[i] for i in range(30)]


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_thumbnails_lie_at_their_points(tmp_path, suffix):
    images = [Image.new("RGB", (40, 90), color) for color in COLORS]
    path = tmp_path / "new" / f"mosaic{suffix}"
    assert draw_mosaic(path, CORNERS, lambda i: images[i], 100) == []
    with Image.open(path) as mosaic:
        assert mosaic.size == (100, 100)
        corners = [(10, 90), (90, 90), (10, 10), (90, 10)]
        for place, color in zip(corners, COLORS, strict=True):
            expected = Image.new("RGB", (1, 1), color).getpixel((0, 0))
            np.testing.assert_allclose(mosaic.getpixel(place), expected, atol=3)
        np.testing.assert_allclose(mosaic.getpixel((50, 50)), 255, atol=3)  # a free cell


def test_the_centre_of_an_image_is_shown(tmp_path):
    image = Image.new("RGB", (300, 100), "black")
    image.paste("white", (80, 0, 220, 100))
    draw_mosaic(tmp_path / "a.png", CORNERS, lambda _: image, 90)
    with Image.open(tmp_path / "a.png") as mosaic:
        assert mosaic.convert("L").getextrema() == (255, 255)


def test_an_image_that_cannot_be_read_is_grey_and_named(tmp_path):
    image = Image.new("RGB", (9, 9), "red")
    assert draw_mosaic(tmp_path / "a.png", CORNERS, lambda i: image if i else None, 90) == [0]
    with Image.open(tmp_path / "a.png") as mosaic:
        assert mosaic.getpixel((10, 80)) == (204, 204, 204)


@pytest.mark.parametrize(
    ("points", "side", "message"),
    [
        (CORNERS, 47, "of 4 images needs at least 48 pixels per side, got 47; draw fewer images"),
        (CORNERS, 20_001, "^a mosaic may have at most 20,000 pixels per side, got 20,001; draw a"),
        (np.full((4, 2), np.nan), 900, "points must be finite"),
        (np.ones((4, 3)), 900, r"must have shape \(N, 2\), got \(4, 3\)"),
    ],
)
def test_mistakes(tmp_path, points, side, message):
    with pytest.raises(InputError, match=message):
        draw_mosaic(tmp_path / "a.png", points, lambda _: None, side)
    assert not list(tmp_path.iterdir())
