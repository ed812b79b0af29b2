"""The page of search results: complete, escaped, small."""

import base64
import io
import re
from html.parser import HTMLParser

from PIL import Image

from captioner.plots.hits import SIDE, hits_page, texts_page

PHOTO = Image.effect_noise((900, 600), 60).convert("RGB")


def test_text_is_escaped():
    page = hits_page('"<b>" & more', "<note>", [("<a>.jpg", 0.25, PHOTO), ("<b>.jpg", -0.5, None)])
    texts = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag, attributes):
            assert tag not in ("a", "b", "note", "script", "link")
            texts.extend(value for name, value in attributes if name == "alt")

        def handle_data(self, data):
            texts.append(data.strip())

    Parser().feed(page)
    shown = [text for text in texts if text and "{" not in text]
    title = '"<b>" & more'
    missing = "the image cannot be read"
    hits = ["<a>.jpg", "1. <a>.jpg", "0.250", missing, "2. <b>.jpg", "-0.500"]
    assert shown == [title, title, "<note>", *hits]


def test_images_are_thumbnails():
    page = hits_page("dog", "", [("a.jpg", 0.5, PHOTO)])
    (content,) = re.findall(r"base64,([^\"]*)", page)
    image = Image.open(io.BytesIO(base64.b64decode(content)))
    assert (image.format, image.size) == ("JPEG", (SIDE, SIDE * 2 // 3))


def test_texts_below_the_images_of_the_query():
    queried = [("my <dog>.jpg", PHOTO), ("gone.jpg", None)]
    page = texts_page("image:a + b", "note", [("a <b> c", 0.5), ("d", -0.25)], queried)
    assert page.count("<img ") == 1
    assert "<figcaption>my &lt;dog&gt;.jpg</figcaption>" in page
    assert page.count("the image cannot be read") == 1
    found = re.findall(r'class="score">([^<]*)</span><span class="name">([^<]*)<', page)
    assert found == [("0.500", "a &lt;b&gt; c"), ("-0.250", "d")]
    assert page.index("<figure>") < page.index("<ol")
    assert "<figure>" not in texts_page("a", "note", [("b", 1)])
