"""The page of images and captions with their best answers."""

import re

from PIL import Image

from captioner.plots.matches import CaptionMatches, ImageMatches, Picture, matches_page


def tiny_page():
    red, missing = Picture("a<b>.png", Image.new("RGB", (8, 4), "red")), Picture("lost.png", None)
    images = [ImageMatches(red, [("all red & <i>more</i>", 0.75, True), ("blue", 0.5, False)])]
    captions = [CaptionMatches("blue 'sky'", [(red, 0.5, False), (missing, -0.25, True)])]
    return matches_page("run: images", "R@1 50.0\nrsum 3", images, captions)


def test_names_and_captions_are_escaped():
    page = tiny_page()
    assert 'alt="a&lt;b&gt;.png"' in page
    assert "all red &amp; &lt;i&gt;more&lt;/i&gt;" in page
    assert "blue &#x27;sky&#x27;" in page
    assert "R@1 50.0\nrsum 3" in page
    assert "<script" not in page


def test_correct_answers_are_marked_and_scores_shown():
    page = tiny_page()
    assert re.findall(r'<li( class="own")?>', page) == [' class="own"', ""]
    assert re.findall(r'<figure( class="own")?>', page) == ["", ' class="own"']
    assert re.findall(r'<span class="score">([^<]*)<', page) == [
        *("0.750 (own)", "0.500"),
        *("0.500", "-0.250 (own)"),
    ]
    assert page.count("the image cannot be read") == 1
    assert page.count("data:image/jpeg;base64,") == 2
