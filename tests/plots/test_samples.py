"""Sample sheets: each panel is the overlay of its word's map."""

import io

import numpy as np
import pytest
from PIL import Image

from captioner.plots import samples
from captioner.plots.overlays import overlay
from captioner.plots.samples import Sample, draw_sample, save_samples

WORDS = ["a", "red", "dog"]


def image(width=60, height=60, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def maps(count, seed=0):
    return np.random.default_rng(seed).random((count, 3, 4)).astype(np.float32)


def panel(sheet, number, top, size=(112, 112)):
    x = samples._MARGIN + number * (size[0] + samples._GAP)
    return np.asarray(sheet.crop((x, top, x + size[0], top + size[1])), dtype=int)


def test_panels_are_overlays_with_one_colour_scale(tmp_path):
    path, attention = tmp_path / "new" / "epoch-01.png", maps(3)
    sample = Sample(image(), WORDS, "a red dog", "the dog is red", attention)
    sheet = save_samples(path, [sample, sample], offset=0.25)
    assert np.array_equal(np.asarray(Image.open(path)), np.asarray(sheet))
    assert [each.name for each in path.parent.iterdir()] == ["epoch-01.png"]
    small = image().resize((112, 112), Image.Resampling.LANCZOS)
    top = samples._MARGIN + 48
    assert np.array_equal(panel(sheet, 0, top), np.asarray(small))
    for t in range(3):
        shown = overlay(small, attention[t], vmax=float(attention.max()), offset=0.25)
        expected = np.asarray(shown, dtype=int)
        assert abs(panel(sheet, t + 1, top) - expected).max() < 4
        assert np.array_equal(
            panel(sheet, t + 1, top), panel(sheet, t + 1, top + 200)
        )  # the second sample
    assert sheet.width == 2 * samples._MARGIN + 4 * (112 + samples._GAP)


def test_without_maps_only_the_image_is_drawn(tmp_path):
    sample = Sample(image(90, 40), WORDS, "a red dog", "the dog is red")
    sheet = save_samples(tmp_path / "a.png", [sample])
    assert sheet.height == 2 * samples._MARGIN + 48 + round(112 * (40 / 90) ** 0.5) + 20
    assert np.asarray(sheet.convert("L"))[:64].min() < 100  # the two texts


def test_long_captions_take_several_lines_of_panels(tmp_path):
    words = ["word"] * 30
    sample = Sample(image(), words, " ".join(words), "x " * 400, maps(30))
    sheet = save_samples(tmp_path / "a.png", [sample])
    assert sheet.width <= samples._WIDTH + 2 * samples._MARGIN
    lines = 4  # of ten panels, for the image and thirty words
    assert sheet.height == 2 * samples._MARGIN + 24 * 3 + lines * (112 + samples._WORD)


@pytest.mark.parametrize("size", [(400, 2), (2, 400), (1, 1)])
def test_extreme_images_and_empty_captions_are_drawn(tmp_path, size):
    empty = Sample(image(*size), [], "", "", np.zeros((0, 3, 4), np.float32))
    blank = Sample(image(*size), ["x" * 40], "x", "x", np.zeros((1, 3, 4), np.float32))
    sheet = save_samples(tmp_path / "a.png", [empty, blank])
    assert sheet.height < 700
    written = io.BytesIO()
    sheet.save(written, "PNG")
    assert (tmp_path / "a.png").stat().st_size == len(written.getvalue())


def test_a_single_sample_is_narrow():
    """It has the sheet's panels, three per line."""
    attention = maps(5)
    sample = Sample(
        image(), "a red dog on grass".split(), "a red dog on grass", "x " * 400, attention
    )
    drawn = draw_sample(sample, 0.25)
    texts = 24 * (1 + 4)  # the reference, cut to 160 characters, takes four lines
    assert drawn.size == (3 * (112 + samples._GAP), texts + 2 * (112 + samples._WORD))
    for t in range(5):
        shown = overlay(
            image().resize((112, 112), Image.Resampling.LANCZOS),
            attention[t],
            vmax=float(attention.max()),
            offset=0.25,
        )
        x, y = (t + 1) % 3 * 120, texts + (t + 1) // 3 * 132
        found = np.asarray(drawn.crop((x, y, x + 112, y + 112)), dtype=int)
        assert abs(found - np.asarray(shown, dtype=int)).max() < 4
