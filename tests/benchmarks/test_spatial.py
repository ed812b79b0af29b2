"""The benchmark of spatial models: pairs, composites, halves, and a whole table on two halves."""

import numpy as np
import pytest
from PIL import Image

from benchmarks import spatial as benchmark
from captioner.data.demo.shapes import DrawnShape
from tests.support import spatial


def test_pairs_use_all_images_before_any_twice():
    pairs = benchmark.pair_up(10, 12)
    assert len(pairs) == 12
    assert all(a != b for a, b in pairs)
    assert sorted(i for pair in pairs[:5] for i in pair) == list(range(10))


def test_composites_have_one_image_on_each_side():
    red, blue = Image.new("RGB", (9, 5), "red"), Image.new("RGB", (4, 8), "blue")
    pixels = np.asarray(benchmark.squeeze(red, blue, 8))
    assert (pixels[:, :4] == (255, 0, 0)).all()
    assert (pixels[:, 4:] == (0, 0, 255)).all()


def test_columns_of_halves():
    left, right = benchmark.columns_of(4, 0.0)
    assert (left.tolist(), right.tolist()) == (
        [True, True, False, False],
        [False, False, True, True],
    )
    left, right = benchmark.columns_of(3, 0.0)
    assert (left.sum(), right.sum()) == (1, 1)  # the middle column is on neither side


def test_painting_a_half_by_hand():
    """Ten composites with the label on the left, ten on the right, with perfect maps."""
    one_sided = np.zeros((2, 20, 1), bool)
    one_sided[0, :10], one_sided[1, 10:] = True, True
    maps = np.zeros((20, 1, 1, 2))
    maps[:10, ..., 0] = maps[10:, ..., 1] = 0.9
    scores = np.where(np.arange(20) % 2, 0.9, 0.8)[:, None]
    found = benchmark.paint_halves(maps, scores, one_sided, ["dog"], 0.0)
    assert found["painted queries"] == 2
    assert found["P@5, painted half"] == found["P@5, painted half and not the other"] == 1
    # Ties are ranked against the query: irrelevant composites with the same score come first.
    assert found["P@5, label only"] == 0
    assert found["gain, painted half, low"] == 1


def test_shapes_are_in_halves():
    shapes = [DrawnShape("star", "red", "small", "solid", (0, 90, 30, 120))]
    places = [place for place in benchmark.OPPOSITE if benchmark.is_at(shapes, "star", place)]
    assert places == ["left", "bottom"]
    assert benchmark.is_at(shapes, "red", "left")
    assert not benchmark.is_at(shapes, "blue", "left")


@pytest.mark.slow
def test_the_table_of_a_run(tmp_path_factory, tmp_path, capsys):
    run, data = spatial.run(tmp_path_factory), spatial.data(tmp_path_factory)
    words = ["--checkpoint", str(run), "--data", str(data), "--pairs", "40"]
    benchmark.main([*words, "--cache", str(tmp_path / "cache")])
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if "|" in line]
    numbers = {row[0].strip("| "): row[1] for row in rows[2:]}
    assert float(numbers["label's half is hotter"]) > 0.8
    assert float(numbers["bytes per image"]) > 0
    assert float(numbers["seconds for 1,000 x 100 maps"]) > 0
