"""Animated heatmaps have a frame per word, one colour scale, and show the overlays."""

import numpy as np
import pytest
from PIL import Image

from captioner.plots import animations
from captioner.plots.heatmaps import save_heatmap
from captioner.plots.overlays import DIM, INK, overlay
from tests.support.drawing import WORDS, draw, maps


def frames(path):
    """All frames as RGB arrays, and their durations in milliseconds."""
    shown, durations = [], []
    with Image.open(path) as moving:
        for number in range(moving.n_frames):
            moving.seek(number)
            shown.append(np.asarray(moving.convert("RGB")).astype(int))
            durations.append(moving.info["duration"])
    return shown, durations


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_frames_are_the_image_and_each_words_overlay(tmp_path, ending):
    image, attention = draw(64, 64), maps(6)
    path = tmp_path / f"x.{ending}"
    save_heatmap(path, image, WORDS, attention, offset=-0.5)
    shown, durations = frames(path)
    assert len(shown) == 7
    assert [durations[1], durations[2], durations[4]] == [300, 900, 300]  # a, red, on
    assert durations[6] > 900
    left = animations._MARGIN
    panels = [frame[left : left + 320, left : left + 320] for frame in shown]
    large = image.resize((320, 320), Image.Resampling.LANCZOS)
    vmax = float(attention.max())
    overlays = [overlay(large, each, vmax=vmax, offset=-0.5) for each in attention]
    for panel, right in zip(panels, [large, *overlays], strict=True):
        errors = [abs(panel - np.asarray(other)).mean() for other in [right, *overlays]]
        assert errors[0] < 6
        assert errors[0] == min(errors)


@pytest.mark.parametrize("background", ["white", "black"])
def test_the_colour_bar_is_the_same_in_every_frame(tmp_path, background):
    save_heatmap(tmp_path / "x.gif", draw(background=background), WORDS, maps(6))
    shown, _ = frames(tmp_path / "x.gif")
    x = shown[0].shape[1] - animations._MARGIN - animations._BAR_TEXT - animations._BAR // 2
    bars = [frame[animations._MARGIN : animations._MARGIN + 200, x] for frame in shown]
    assert max(abs(bar - bars[0]).max() for bar in bars) <= 16
    light = bars[0].sum(-1)
    assert (np.diff(light) <= 12).all()
    assert light[0] > 600
    assert all((frame[0, 0] == 255).all() for frame in shown)  # the background does not flicker


def test_the_box_moves_from_word_to_word(tmp_path):
    save_heatmap(tmp_path / "x.webp", draw(), ["one", "two", "three"], maps(3))
    shown, _ = frames(tmp_path / "x.webp")
    middles = []
    for frame in shown[1:]:
        dark = frame[-animations._LINE :].max(-1) < 60
        dark[:, dark.sum(0) < 5] = False  # letters are thinner than the box around them
        middles.append(np.nonzero(dark)[1].mean())
    assert middles == sorted(middles)
    assert middles[2] - middles[0] > 40


def contrast(color):
    """Contrast with white as defined by WCAG 2.2."""
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in color / 255]
    return 1.05 / (np.dot(linear, [0.2126, 0.7152, 0.0722]) + 0.05)


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_function_words_are_dimmed_and_readable(tmp_path, ending):
    words = ["Among", "balls", "of", "wool"]
    save_heatmap(tmp_path / f"x.{ending}", draw(), words, maps(4))
    shown, _ = frames(tmp_path / f"x.{ending}")
    places, _ = animations.word_places(words, 1000)
    top = shown[0].shape[0] - animations._MARGIN - animations._LINE

    def darkest(frame, word):
        x = animations._MARGIN + places[word][0]
        inside = frame[top : top + animations._LINE, x : x + 20].reshape(-1, 3)
        return contrast(inside[inside.sum(1).argmin()])

    assert all(darkest(shown[0], word) > 15 for word in (0, 1, 3))
    assert 4.5 < darkest(shown[0], 2) < 7  # of
    box = shown[3][top + 5, animations._MARGIN + places[2][0] + 2]
    assert 4.5 < contrast(box) < 7
    assert contrast(shown[4][top + 5, -200]) == 1


def test_text_colours_have_the_contrast_that_their_comment_states():
    ink, dim = (contrast(np.array(list(bytes.fromhex(color[1:])))) for color in (INK, DIM))
    assert ink > 15
    assert dim == pytest.approx(4.9, abs=0.06)


@pytest.mark.parametrize("size", [(1, 1), (3000, 1), (1, 3000), (640, 360), (16, 400)])
def test_extreme_images_and_words_are_drawn(tmp_path, size):
    words = [r"$\frac$", "", "<unk>", "pneumonoultramicroscopicsilicovolcanoconiosis", "Straße"]
    save_heatmap(tmp_path / "x.gif", Image.new("L", size, 90), words, np.zeros((5, 14, 14)))
    shown, _ = frames(tmp_path / "x.gif")
    assert len(shown) == 6
    assert max(shown[0].shape) < 900


def test_long_captions_are_wrapped():
    places, lines = animations.word_places(["word"] * 20, 300)
    assert lines > 1
    assert max(x for x, _ in places) < 300
    assert [line for _, line in places] == sorted(line for _, line in places)
    assert animations.word_places(["word"] * 3, 300)[1] == 1
