"""Upsampled maps, overlays, and heatmap files, which are replaced atomically."""

import json
import os
import re
import sys

import numpy as np
import pytest
from PIL import Image

from captioner.errors import InputError
from captioner.plots import heatmaps
from captioner.plots.heatmaps import save_heatmap
from captioner.plots.overlays import DIM, overlay, upsample
from tests.support.drawing import WORDS, draw, maps


@pytest.mark.parametrize("grid", [(7, 7), (3, 5), (14, 14), (1, 4), (6, 1)])
@pytest.mark.parametrize("size", [(70, 98), (97, 61), (36, 128)])
def test_a_cell_covers_its_pixels(grid, size):
    for row in range(grid[0]):
        for column in range(grid[1]):
            attention = np.zeros(grid)
            attention[row, column] = 1
            large = upsample(attention, size)
            y, x = np.unravel_index(large.argmax(), size)
            assert row * size[0] / grid[0] <= y + 0.5 <= (row + 1) * size[0] / grid[0]
            assert column * size[1] / grid[1] <= x + 0.5 <= (column + 1) * size[1] / grid[1]
            outside = np.ones(size, bool)  # a cell reaches up to the centres of its neighbours
            reach = [
                slice(max(0, int((at - 0.5) * n / m)), int(np.ceil((at + 1.5) * n / m)))
                for at, n, m in zip((row, column), size, grid, strict=True)
            ]
            outside[tuple(reach)] = False
            assert (large[outside] == 0).all()


def test_cell_centres_keep_their_values():
    attention = maps(3, 5, 8)
    large = upsample(attention, (5 * 9, 8 * 11))
    np.testing.assert_allclose(large[:, 4::9, 5::11], attention, rtol=1e-6)
    np.testing.assert_allclose(upsample(attention, (5, 8)), attention, rtol=1e-6)


def test_an_offset_shifts_the_centres_by_that_many_cells():
    attention = maps(3, 5, 8)
    centred = upsample(attention, (5 * 20, 8 * 10))
    moved = upsample(attention, (5 * 20, 8 * 10), -0.5)  # up 10 pixels, left 5
    np.testing.assert_allclose(moved[:, :90, :75], centred[:, 10:, 5:], atol=1e-6)
    back = upsample(attention, (5 * 20, 8 * 10), 0.5)
    np.testing.assert_allclose(back[:, 10:, 5:], centred[:, :90, :75], atol=1e-6)
    with pytest.raises(InputError, match=r"offset must be between -0.5 and 0.5 cells, got 0.6"):
        upsample(attention, (10, 10), 0.6)


def test_a_linear_ramp_stays_linear_between_the_centres():
    ramp = np.add.outer(np.arange(6.0), 2 * np.arange(8.0))
    rows, columns = np.arange(60) / 10 - 0.45, np.arange(80) / 10 - 0.45
    inner = (slice(15, 45), slice(15, 65))  # the outermost cells level off
    expected = np.add.outer(rows, 2 * columns)[inner]
    np.testing.assert_allclose(upsample(ramp, (60, 80))[inner], expected, rtol=1e-12)


def test_values_stay_within_the_range_of_the_four_cells_around():
    attention = maps(20, 6, 6).astype(np.float64)
    large = upsample(attention, (60, 60))
    padded = np.pad(attention, ((0, 0), (1, 1), (1, 1)), mode="edge")
    corners = np.stack([padded[:, y : y + 7, x : x + 7] for y in (0, 1) for x in (0, 1)])
    inner = (np.arange(60) + 5) // 10  # the square between four centres that contains the pixel
    low, high = (part[:, inner][:, :, inner] for part in (corners.min(0), corners.max(0)))
    assert (large >= low - 1e-12).all()
    assert (large <= high + 1e-12).all()
    assert large.min() >= 0


def test_the_strongest_cell_stays_the_strongest():
    """A single strong cell stays above a broad but weaker hill; a blur would reverse the two."""
    attention = np.zeros((8, 8))
    attention[1:5, 1:5] = 0.05
    attention[6, 6] = 0.08
    y, x = np.unravel_index(upsample(attention, (240, 320)).argmax(), (240, 320))
    assert (y // 30, x // 40) == (6, 6)
    for each in maps(50):
        y, x = np.unravel_index(upsample(each, (210, 140)).argmax(), (210, 140))
        assert (y // 30, x // 20) == np.unravel_index(each.argmax(), (7, 7))


def test_upsampling_is_symmetric_and_linear_in_scale():
    attention = maps(4, 6, 9).astype(np.float64)
    large = upsample(attention, (50, 70))
    np.testing.assert_allclose(upsample(attention[:, ::-1], (50, 70)), large[:, ::-1], atol=1e-12)
    np.testing.assert_allclose(
        upsample(attention[..., ::-1], (50, 70)), large[..., ::-1], atol=1e-12
    )
    np.testing.assert_allclose(upsample(3 * attention, (50, 70)), 3 * large, atol=1e-12)
    np.testing.assert_allclose(upsample(np.full((7, 7), 0.02), (33, 44)), 0.02, atol=1e-12)
    one = np.zeros((7, 7))
    one[3, 2] = 1
    np.testing.assert_allclose(upsample(one, (70, 140)).sum(), 10 * 20, rtol=0.01)
    np.testing.assert_allclose(large.mean((1, 2)), attention.mean((1, 2)), rtol=0.15)


def test_upsample_accepts_leading_axes_and_any_dtype():
    attention = maps(6).reshape(2, 3, 7, 7)
    large = upsample(attention, (20, 30))
    assert large.shape == (2, 3, 20, 30)
    assert large.dtype == np.float32
    np.testing.assert_array_equal(large[1, 2], upsample(attention[1, 2], (20, 30)))
    assert upsample(np.eye(3, dtype=int), (9, 9)).dtype == np.float64
    assert upsample(attention.astype(np.float16), (3, 1)).shape == (2, 3, 3, 1)


@pytest.mark.parametrize("background", ["white", "black", "green"])
def test_the_overlay_colours_the_strongest_place(background):
    image = draw(140, 70, background)
    attention = np.full((7, 7), 0.004)
    attention[5, 1] = 0.8
    shown = np.asarray(overlay(image, attention)).astype(float)
    cold = np.asarray(overlay(image, np.zeros((7, 7)))).astype(float)
    assert shown.shape == (70, 140, 3)
    change = abs(shown - cold).sum(-1)
    hot = np.zeros((70, 140), bool)
    hot[50:60, 20:40] = True
    assert change[hot].mean() > 10 * change[:, 80:].mean()
    assert change[hot].mean() > 60
    y, x = np.unravel_index(change.argmax(), change.shape)
    assert hot[y, x]
    assert np.ptp(cold, axis=-1).max() < 8  # without attention the image is grey


def test_overlay_scales_by_vmax_or_the_maps_maximum():
    image, attention = draw(), maps(1)[0]
    own = np.asarray(overlay(image, attention))
    same = np.asarray(overlay(image, attention, vmax=float(attention.max())))
    weak = np.asarray(overlay(image, attention, vmax=50 * float(attention.max())))
    assert (own == same).all()
    assert (own != weak).any()
    assert (np.asarray(overlay(image, 5 * attention)) == own).mean() > 0.999
    assert overlay(image.convert("L"), attention).mode == "RGB"
    before = image.copy()
    overlay(image, attention)
    assert image == before


@pytest.mark.parametrize(
    ("attention", "options", "message"),
    [
        (np.ones(49), {}, r"must have shape \(h, w\) with at least one cell, got \(49,\)"),
        (np.ones((0, 7)), {}, r"shape \(h, w\) with at least one cell, got \(0, 7\)"),
        (-np.ones((7, 7)), {}, "finite and non-negative"),
        (np.full((7, 7), np.nan), {}, "finite and non-negative"),
        (np.ones((7, 7)), {"vmax": 0}, "vmax must be finite and above 0, got 0"),
        (np.ones((7, 7)), {"vmax": np.inf}, "vmax must be finite and above 0, got inf"),
        (np.ones((7, 7)), {"vmax": np.nan}, "vmax must be finite and above 0, got nan"),
    ],
)
def test_overlay_refuses_other_maps(attention, options, message):
    with pytest.raises(InputError, match=message):
        overlay(draw(), attention, **options)


def test_long_captions_take_several_rows_of_panels(tmp_path):
    sizes = {}
    for count in (1, 6, 7, 20):
        path = tmp_path / f"{count}.png"
        save_heatmap(path, draw(128, 128), ["word"] * count, maps(count))
        with Image.open(path) as figure:
            figure.load()
            sizes[count] = figure.size
    panel = heatmaps._SIDE + heatmaps._GAP
    assert sizes[6][0] - sizes[1][0] == pytest.approx(5 * panel, abs=2)  # one row of 7
    assert sizes[6][1] == sizes[1][1]
    assert sizes[7][0] < sizes[6][0]
    assert sizes[20][0] == sizes[6][0]  # 21 panels: 3 rows of 7
    row = sizes[7][1] - sizes[6][1]
    assert sizes[20][1] - sizes[6][1] == pytest.approx(2 * row, abs=2)


def test_a_figure_shows_the_image_and_the_maps(tmp_path):
    attention = np.zeros((2, 7, 7))
    attention[0, 1, 1] = attention[1, 5, 5] = 1
    save_heatmap(tmp_path / "x.png", Image.new("RGB", (50, 50), "blue"), ["a", "b"], attention)
    with Image.open(tmp_path / "x.png") as figure:
        shown = np.asarray(figure.convert("RGB")).astype(int)
    side, step = heatmaps._SIDE, heatmaps._SIDE + heatmaps._GAP
    top, left = heatmaps._MARGIN + heatmaps._WORD, heatmaps._MARGIN
    panels = [shown[top : top + side, left + k * step :][:, :side] for k in range(3)]
    assert (panels[0] == [0, 0, 255]).mean() > 0.99
    for panel, cell in zip(panels[1:], (1, 5), strict=True):
        y, x = np.unravel_index(panel.sum(-1).argmax(), (side, side))
        assert (y * 7 // side, x * 7 // side) == (cell, cell)


@pytest.mark.parametrize("ending", heatmaps.ENDINGS)
def test_every_ending_is_written(tmp_path, ending):
    path = tmp_path / "new" / "directory" / f"x.{ending.upper()}"
    save_heatmap(str(path), draw(), WORDS, maps(6), title="a red ball on the grass")
    head = path.read_bytes()[:1000]
    if ending == "npy":
        assert sorted(os.listdir(path.parent)) == ["x.NPY", "x.json"]
        return
    assert os.listdir(path.parent) == [path.name]
    if ending == "pdf":
        assert head.startswith(b"%PDF")
    elif ending == "svg":
        assert b"<svg" in head
    else:
        with Image.open(path) as figure:
            figure.load()


def test_npy_holds_the_maps_and_json_the_words(tmp_path):
    words = ["<unk>", "Straße"]
    save_heatmap(tmp_path / "x.npy", draw(), words, maps(2), offset=-0.5)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), maps(2))
    description = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))
    assert description == {"words": words, "offset": -0.5}


@pytest.mark.parametrize("size", [(1, 1), (3000, 1), (1, 3000), (640, 360), (16, 400)])
def test_extreme_images_and_words_are_drawn(tmp_path, size):
    words = [r"$\frac$", "", "<unk>", "pneumonoultramicroscopicsilicovolcanoconiosis", "%s {} \\n"]
    path = tmp_path / "x.png"
    save_heatmap(path, Image.new("L", size, 90), words, maps(5, 14, 14), title=r"$\frac$ " * 60)
    with Image.open(path) as figure:
        assert figure.width < 2200
        assert figure.height < 2200


def test_a_map_of_zeros_is_drawn(tmp_path):
    save_heatmap(tmp_path / "x.png", draw(), ["none"], np.zeros((1, 7, 7)))
    assert (tmp_path / "x.png").exists()


def test_the_file_of_a_long_caption_is_small(tmp_path):
    noise = np.random.default_rng(0).normal(128, 25, (224, 224, 3)).clip(0, 255)
    image = Image.fromarray(noise.astype(np.uint8)).resize((300, 300), Image.Resampling.BICUBIC)
    save_heatmap(tmp_path / "x.png", image, WORDS * 2, maps(12))
    assert (tmp_path / "x.png").stat().st_size < 1_000_000  # noise; photographs take half as much


@pytest.mark.parametrize(
    ("name", "words", "attention", "message"),
    [
        ("x.bmpp", WORDS, maps(6), r"x\.bmpp' has an unknown extension; choose one of png, jpg"),
        ("x", WORDS, maps(6), "has an unknown extension; choose one of"),
        ("x.png", WORDS, maps(5), "one map for each word, got 6 words and 5 maps"),
        ("x.png", [], maps(0), "a heatmap needs at least one word, got none"),
        ("x.png", [], maps(1), "one map for each word, got 0 words and 1 maps"),
        ("x.png", WORDS, maps(6)[0], r"shape \(T, h, w\) with at least one cell, got \(7, 7\)"),
        ("x.png", WORDS, np.full((6, 7, 7), np.inf), "finite and non-negative"),
    ],
)
def test_invalid_arguments_are_refused_and_write_nothing(tmp_path, name, words, attention, message):
    with pytest.raises(InputError, match=message):
        save_heatmap(tmp_path / "new" / name, draw(), words, attention)
    assert not os.listdir(tmp_path)


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.png"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(InputError, match=r"x\.png' cannot be written: .*No space left"):
        save_heatmap(path, draw(), WORDS, maps(6))
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x.png"]


def test_a_failed_drawing_keeps_the_old_file(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    path = tmp_path / "x.png"
    path.write_bytes(b"old")

    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(KeyboardInterrupt):
        save_heatmap(path, draw(), WORDS, maps(6))
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x.png"]


def test_a_path_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "directory.png").mkdir()
    for path in (tmp_path / "file" / "x.png", tmp_path / "directory.png"):
        with pytest.raises(InputError, match="cannot be written"):
            save_heatmap(path, draw(), WORDS, maps(6))
    assert sorted(os.listdir(tmp_path)) == ["directory.png", "file"]


def test_files_have_default_permissions(tmp_path):
    save_heatmap(tmp_path / "x.png", draw(), WORDS, maps(6))
    (tmp_path / "plain").write_text("x")
    assert (tmp_path / "x.png").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_matplotlibs_backend_and_settings_stay_unset(tmp_path, monkeypatch):
    import matplotlib

    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    before = list(dict.items(matplotlib.rcParams))  # a lookup by key would choose a backend
    save_heatmap(tmp_path / "x.png", draw(), WORDS, maps(6))
    assert "matplotlib.pyplot" not in sys.modules
    assert list(dict.items(matplotlib.rcParams)) == before


def test_function_words_are_dimmed(tmp_path):
    save_heatmap(tmp_path / "x.svg", draw(), ["Of", "wool"], maps(2))
    drawn = (tmp_path / "x.svg").read_text()
    assert re.search(rf'<!-- Of -->\s*<g style="fill: {DIM}', drawn)
    assert re.search(r"<!-- wool -->\s*<g (?!style)", drawn)


def test_the_old_module_name_warns():
    sys.modules.pop("captioner.heatmaps", None)
    with pytest.warns(DeprecationWarning, match="use captioner.plots.heatmaps"):
        from captioner.heatmaps import save_heatmap as old
    assert old is save_heatmap
