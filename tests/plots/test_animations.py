"""The moving heatmap has a frame for each word, in one scale, and shows what the overlay shows."""

import numpy as np
import pytest
from PIL import Image

from captioner.plots import animations as animation
from captioner.plots.heatmaps import save_heatmap
from captioner.plots.overlays import DIM, INK, overlay
from tests.support.drawing import WORDS, draw, maps


def frames(path):
    """All frames as RGB arrays, and how long each stays."""
    shown, stay = [], []
    with Image.open(path) as moving:
        for number in range(moving.n_frames):
            moving.seek(number)
            shown.append(np.asarray(moving.convert("RGB")).astype(int))
            stay.append(moving.info["duration"])
    return shown, stay


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_the_image_and_then_each_words_overlay(tmp_path, ending):
    image, attention = draw(64, 64), maps(6)
    path = tmp_path / f"x.{ending}"
    save_heatmap(path, image, WORDS, attention, offset=-0.5)
    shown, stay = frames(path)
    assert len(shown) == 7
    assert [stay[1], stay[2], stay[4]] == [300, 900, 300]  # a, red, on
    assert stay[6] > 900
    left = animation._MARGIN
    panels = [frame[left : left + 320, left : left + 320] for frame in shown]
    large = image.resize((320, 320), Image.Resampling.LANCZOS)
    vmax = float(attention.max())
    wanted = [overlay(large, each, vmax=vmax, offset=-0.5) for each in attention]
    for panel, right in zip(panels, [large, *wanted], strict=True):
        errors = [abs(panel - np.asarray(other)).mean() for other in [right, *wanted]]
        assert errors[0] < 6 and errors[0] == min(errors)


@pytest.mark.parametrize("background", ["white", "black"])
def test_the_scale_is_the_same_in_every_frame(tmp_path, background):
    save_heatmap(tmp_path / "x.gif", draw(background=background), WORDS, maps(6))
    shown, _ = frames(tmp_path / "x.gif")
    x = shown[0].shape[1] - animation._MARGIN - animation._BAR_TEXT - animation._BAR // 2
    bars = [frame[animation._MARGIN : animation._MARGIN + 200, x] for frame in shown]
    assert max(abs(bar - bars[0]).max() for bar in bars) <= 16
    light = bars[0].sum(-1)
    assert (np.diff(light) <= 12).all() and light[0] > 600  # brightest at the top
    assert all((frame[0, 0] == 255).all() for frame in shown)  # the paper does not flicker


def test_the_box_moves_from_word_to_word(tmp_path):
    save_heatmap(tmp_path / "x.webp", draw(), ["one", "two", "three"], maps(3))
    shown, _ = frames(tmp_path / "x.webp")
    middles = []
    for frame in shown[1:]:
        dark = frame[-animation._LINE :].max(-1) < 60
        dark[:, dark.sum(0) < 5] = False  # letters are thinner than the box around them
        middles.append(np.nonzero(dark)[1].mean())
    assert middles == sorted(middles) and middles[2] - middles[0] > 40


def contrast(color):
    """With white, as WCAG 2.2 defines it."""
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in color / 255]
    return 1.05 / (np.dot(linear, [0.2126, 0.7152, 0.0722]) + 0.05)


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_function_words_are_dimmed_and_readable(tmp_path, ending):
    words = ["Among", "balls", "of", "wool"]
    save_heatmap(tmp_path / f"x.{ending}", draw(), words, maps(4))
    shown, _ = frames(tmp_path / f"x.{ending}")
    places, _ = animation._places(words, 1000)
    top = shown[0].shape[0] - animation._MARGIN - animation._LINE

    def darkest(frame, word):
        x = animation._MARGIN + places[word][0]
        inside = frame[top : top + animation._LINE, x : x + 20].reshape(-1, 3)
        return contrast(inside[inside.sum(1).argmin()])

    assert all(darkest(shown[0], word) > 15 for word in (0, 1, 3))
    assert 4.5 < darkest(shown[0], 2) < 7  # of
    box = shown[3][top + 5, animation._MARGIN + places[2][0] + 2]
    assert 4.5 < contrast(box) < 7 and contrast(shown[4][top + 5, -200]) == 1


def test_ink_and_dim_are_what_is_said_of_them():
    ink, dim = (contrast(np.array(list(bytes.fromhex(color[1:])))) for color in (INK, DIM))
    assert ink > 15 and dim == pytest.approx(4.9, abs=0.06)


@pytest.mark.parametrize("size", [(1, 1), (3000, 1), (1, 3000), (640, 360), (16, 400)])
def test_any_image_and_any_words(tmp_path, size):
    words = [r"$\frac$", "", "<unk>", "pneumonoultramicroscopicsilicovolcanoconiosis", "Straße"]
    save_heatmap(tmp_path / "x.gif", Image.new("L", size, 90), words, np.zeros((5, 14, 14)))
    shown, _ = frames(tmp_path / "x.gif")
    assert len(shown) == 6 and max(shown[0].shape) < 900


def test_long_captions_go_over_several_lines():
    places, lines = animation._places(["word"] * 20, 300)
    assert lines > 1 and max(x for x, _ in places) < 300
    assert [line for _, line in places] == sorted(line for _, line in places)
    assert animation._places(["word"] * 3, 300)[1] == 1
