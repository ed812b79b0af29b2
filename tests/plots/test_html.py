"""A caption as HTML: one map per word, escaped text, no script."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from captioner.plots.html import caption_html, thumbnail
from captioner.plots.overlays import overlay
from tests.support.drawing import draw, maps


def images(html):
    """The images embedded in a page."""
    encoded = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', html)
    return [Image.open(io.BytesIO(base64.b64decode(each))) for each in encoded]


def test_html_has_the_image_and_a_map_for_each_word():
    image, attention = draw(640, 480), maps(3)
    html = caption_html(image, ["a", "<b>red", "ball"], np.log([0.5, 0.25, 1, 0.1]), attention, 0.5)
    plain, *shown = images(html)
    small = image.resize((320, 240), Image.Resampling.LANCZOS)
    assert plain.size == (320, 240)
    assert len(shown) == 3
    for drawn, each in zip(shown, attention, strict=True):
        expected = overlay(small, each, vmax=float(attention.max()), offset=0.5)
        assert abs(np.asarray(drawn).astype(int) - np.asarray(expected)).mean() < 4
    assert re.findall(r'title="(\d+%)"', html) == ["50%", "25%", "100%"]
    assert html.count('class="dim"') == 1
    assert 'class="dim">a<' in html
    assert "&lt;b&gt;red" in html
    assert "<b>red" not in html
    assert "<script" not in html


def test_html_without_attention_has_no_maps():
    html = caption_html(draw(), ["a", "ball"], [-1.0, -1.0, -1.0], None, 0.0)
    assert len(images(html)) == 1
    assert html.count("<b tabindex") == 2


def test_html_of_an_empty_caption():
    assert len(images(caption_html(draw(), [], [-1.0], maps(0), 0.0))) == 1


@pytest.mark.parametrize(
    ("size", "small"), [((640, 480), (100, 75)), ((50, 20), (50, 20)), ((3000, 1), (100, 1))]
)
def test_thumbnails_are_never_enlarged(size, small):
    assert thumbnail(Image.new("RGB", size), 100).size == small
