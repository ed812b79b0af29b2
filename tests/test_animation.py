"""The moving heatmap has a frame for each word, in one scale, and shows what the overlay shows."""

import numpy as np
import pytest
from PIL import Image
from test_heatmaps import WORDS, draw, maps

from captioner.figures import animation
from captioner.figures.overlays import overlay
from captioner.heatmaps import save_heatmap


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
def test_the_picture_and_then_each_words_overlay(tmp_path, ending):
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


@pytest.mark.parametrize("size", [(1, 1), (3000, 1), (1, 3000), (640, 360), (16, 400)])
def test_any_picture_and_any_words(tmp_path, size):
    words = [r"$\frac$", "", "<unk>", "pneumonoultramicroscopicsilicovolcanoconiosis", "Straße"]
    save_heatmap(tmp_path / "x.gif", Image.new("L", size, 90), words, np.zeros((5, 14, 14)))
    shown, _ = frames(tmp_path / "x.gif")
    assert len(shown) == 6 and max(shown[0].shape) < 900


def test_long_captions_go_over_several_lines():
    places, lines = animation._places(["word"] * 20, 300)
    assert lines > 1 and max(x for x, _ in places) < 300
    assert [line for _, line in places] == sorted(line for _, line in places)
    assert animation._places(["word"] * 3, 300)[1] == 1
