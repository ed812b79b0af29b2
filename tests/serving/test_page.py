"""The web page in Chromium: images in, captions and maps out, by mouse and by keyboard.

Skipped without Playwright or Chromium, neither of which `captioner serve` needs.
"""

import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from captioner.caption import Caption
from captioner.data.images import Transform
from captioner.serving.access import Access
from captioner.serving.schemas import Limits
from tests.support.service import png, served

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not on the PATH"),
]
FLAGS = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]


RATIOS = """() => {
  const light = (text) => text.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (e) => { for (; e; e = e.parentElement) {
    const colour = getComputedStyle(e).backgroundColor;
    if (!/, 0\\)$/.test(colour)) return colour; } };
  return [...document.querySelectorAll("h1, h2, p, button, label, legend, output, span, a")]
    .filter((e) => e.checkVisibility() && e.innerText && !e.closest(".off")).map((e) => {
      const [a, b] = [getComputedStyle(e).color, ground(e)].map(light);
      return [e.innerText, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)]; });
}"""


class Painter:
    """A captioner of two words on a 4 x 4 grid that looks at one corner, then at the opposite."""

    transform, model = Transform(8), SimpleNamespace(has_attention=True)

    def __init__(self):
        self.requests = []

    def caption(self, images, *, batch_size, **options):  # noqa: ARG002
        self.requests.append(options)
        maps = np.full((2, 4, 4), 0.01, np.float32)
        maps[0, 0, 3] = maps[1, 3, 0] = 0.85
        colour = "red" if images[0].getpixel((0, 0))[0] > 128 else "green"
        alternatives = ((("blue", -3.0), ("", -9.0)), (("sun", -1.0),))
        best = Caption(
            f"{colour} sky", (colour, "sky"), -0.5, (-0.1, -0.4), maps, (), None, 0.0, alternatives
        )
        other = replace(best, text=f"{colour} sea", words=(colour, "sea"), score=-2.0)
        return [replace(best, alternatives=(other, best)[: options["num_captions"] - 1])]


@pytest.fixture(scope="module")
def painter():
    return Painter()


@pytest.fixture(scope="module")
def address(painter):
    with served(painter, Limits(max_bytes=100_000)) as client:
        yield str(client.base_url)


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, address, painter):
    """A freshly opened page, which must report no error and load from the service alone."""
    painter.requests.clear()
    opened = browser.new_page(viewport={"width": 1100, "height": 800}, reduced_motion="reduce")
    opened.set_default_timeout(15_000)
    errors, urls = [], []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    opened.on("request", lambda request: urls.append(request.url))
    opened.goto(address)
    yield opened
    opened.close()
    assert [each for each in errors if "Failed to load" not in each] == []
    assert all(url.startswith((address, "blob:", "data:")) for url in urls)


def choose(page, content, name="a.png"):
    page.set_input_files("#file", {"name": name, "mimeType": "image/png", "buffer": content})


def words(page):
    page.wait_for_selector("#caption button")
    return page.locator("#caption button").all_inner_texts()


def brightest(page):
    """The position of the map's strongest colour, as fractions of its width and height."""
    return page.evaluate("""() => {
      const map = document.getElementById("map");
      const pixels = map.getContext("2d").getImageData(0, 0, map.width, map.height).data;
      let peak = 3;
      for (let i = 3; i < pixels.length; i += 4) if (pixels[i] > pixels[peak]) peak = i;
      const at = (peak - 3) / 4;
      return [(at % map.width) / map.width, Math.floor(at / map.width) / map.height];
    }""")


def test_choosing_an_image_shows_its_caption_and_maps(page, painter):
    assert page.locator("#waiting").inner_text() == "The caption will appear here."
    choose(page, png((200, 0, 0), (60, 40)))
    assert words(page) == ["red", "sky"]
    assert (
        page.locator("#status").inner_text() == "Caption: red sky"
    )  # read aloud by screen readers
    assert [(each["beam_size"], each["num_captions"]) for each in painter.requests] == [(5, 5)]
    page.hover("#caption li:nth-child(1) button")
    detail = "red: probability 90 %, looked mostly at the upper right. Other words here:"
    assert page.locator("#detail").inner_text() == detail
    across, down = brightest(page)
    assert across > 0.75
    assert down < 0.25
    page.hover("#caption li:nth-child(2) button")
    across, down = brightest(page)
    assert across < 0.25
    assert down > 0.75
    frame = page.locator("#frame")
    assert "mapped" in frame.get_attribute("class")
    image, canvas = page.locator("#image").bounding_box(), page.locator("#map").bounding_box()
    assert image == canvas
    assert image["width"] / image["height"] == pytest.approx(1.5, 0.02)
    page.mouse.move(5, 5)
    assert "mapped" not in (frame.get_attribute("class") or "")
    assert page.locator("#most").inner_text() == "85 %"


def test_pointing_at_a_word_shows_its_alternatives(page, painter):
    choose(page, png((200, 0, 0)))
    words(page)
    assert painter.requests[-1]["word_alternatives"] == 6
    alternatives, below = page.locator("#alternatives"), page.locator("#nbest-title")
    before = below.bounding_box()
    assert alternatives.inner_text() == ""
    page.hover("#caption li:nth-child(1) button")
    others = alternatives.locator("li").all_inner_texts()
    assert [text.split("\n") for text in others] == [["blue", "5.0 %"], ["(the end)", "< 0.1 %"]]
    bar, item = (alternatives.locator(part).first.bounding_box()["width"] for part in ("i", "li"))
    assert bar / item == pytest.approx(0.05, abs=0.01)
    assert below.bounding_box() == before  # nothing moves
    page.mouse.move(5, 5)
    assert alternatives.inner_text() == ""


def test_the_other_captions_are_listed_with_their_probabilities(page):
    choose(page, png((0, 200, 0)))
    words(page)
    others = page.locator("#nbest button")
    texts = [re.sub(r"\s+", " ", text) for text in others.all_inner_texts()]
    assert texts == ["green sky 61 %", "green sea 14 %"]  # duplicates are listed once
    others.nth(1).click()
    assert words(page) == ["green", "sea"]
    assert others.nth(1).get_attribute("aria-pressed") == "true"
    assert others.nth(0).get_attribute("aria-pressed") == "false"


def test_everything_works_with_the_keyboard(page):
    choose(page, png((200, 0, 0)))
    words(page)
    order = []
    for _ in range(9):
        page.keyboard.press("Tab")
        order.append(page.evaluate("document.activeElement.id || document.activeElement.innerText"))
        width = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
        assert width == "3px", order[-1]  # the focus is visible
    assert order[:4] == ["choose", "photograph", "red", "sky"]
    assert [text.split("\n")[0] for text in order[4:6]] == ["red sky", "red sea"]
    assert order[7:9] == ["beam_size", "max_length"]
    page.focus("#caption button")
    page.keyboard.press("ArrowRight")
    assert (
        page.locator("#detail")
        .inner_text()
        .startswith("sky: probability 67 %, looked mostly at the l")
    )
    label = page.locator("#caption button").nth(1).get_attribute("aria-label")
    assert label == "sky: probability 67 %, looked mostly at the lower left; other words: sun 37 %"
    page.keyboard.press("Escape")
    assert "mapped" not in (page.locator("#frame").get_attribute("class") or "")


def test_settings_change_the_request(page, painter):
    choose(page, png())
    words(page)
    assert page.locator("#temperature").is_disabled()
    page.locator("#beam_size").focus()
    with page.expect_response("**/api/caption*"):
        page.keyboard.press("ArrowLeft")
    words(page)
    assert painter.requests[-1]["beam_size"] == 4
    with page.expect_response("**/api/caption*"):
        page.get_by_label("Random (sampling)").check()
    words(page)
    assert painter.requests[-1]["method"] == "sample"
    assert page.locator("#beam_size").is_disabled()
    page.locator("#temperature").focus()
    with page.expect_response("**/api/caption*"):
        page.keyboard.press("ArrowRight")
    assert painter.requests[-1]["temperature"] == 1.1
    with page.expect_response("**/api/caption*"):
        page.get_by_text("Sample again").click()
    assert page.locator("#max_length").get_attribute("max") == "50"


def test_images_can_be_dropped_and_pasted(page):
    send = """([name, type, bytes]) => {
      const data = new DataTransfer();
      if (bytes) data.items.add(new File([new Uint8Array(bytes)], "a.png", { type: "image/png" }));
      document.dispatchEvent(name === "drop" ? new DragEvent(name, { dataTransfer: data })
        : new ClipboardEvent(name, { clipboardData: data }));
    }"""
    page.evaluate(send, ["drop", "", list(png((200, 0, 0)))])
    assert words(page) == ["red", "sky"]
    with page.expect_response("**/api/caption*"):
        page.evaluate(send, ["paste", "", list(png((0, 200, 0)))])
    assert words(page) == ["green", "sky"]
    page.evaluate(send, ["paste", "", None])
    assert "That does not contain an image." in page.get_by_role("alert").inner_text()


def test_a_photo_can_be_taken(page):
    page.click("#photograph")
    ready = "view => new Promise((go) => view.videoWidth ? go() : view.onloadeddata = () => go())"
    page.locator("#view").evaluate(ready)
    page.click("#shoot")
    assert words(page)[1] == "sky"
    assert not page.locator("#camera").is_visible()
    assert page.evaluate("document.getElementById('view').srcObject") is None  # the camera is off


def test_errors_are_shown(page):
    choose(page, b"nothing")
    alert = page.get_by_role("alert")
    alert.wait_for()
    assert alert.inner_text().startswith("The file: not an image in any of the form")
    choose(page, b"x" * 100_001)
    page.get_by_text("This image is 0.1 MB; the limit is 0.1 MB.").wait_for()
    page.route("**/api/caption*", lambda route: route.abort())
    choose(page, png())
    page.get_by_text("The service does not respond. Is it still running?").wait_for()
    page.unroute("**/api/caption*")
    choose(page, png())
    words(page)
    assert not alert.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_control_has_a_name_and_every_text_enough_contrast(page, scheme):
    page.emulate_media(color_scheme=scheme)
    choose(page, png())
    words(page)
    for box in page.locator("input:visible, button:visible").all():
        assert box.evaluate("e => e.labels?.length || e.innerText || e.ariaLabel"), box
    ratios = page.evaluate(RATIOS)
    assert len(ratios) > 15
    assert [each for each in ratios if each[1] < 4.5] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_function_words_are_dimmed_and_readable(browser, scheme):
    painter = Painter()
    caption = painter.caption
    painter.caption = lambda images, **options: [
        replace(each, words=("The", "sky"), alternatives=()) for each in caption(images, **options)
    ]
    with served(painter) as client:
        page = browser.new_page(color_scheme=scheme, reduced_motion="reduce")
        page.goto(str(client.base_url))
        choose(page, png())
        assert words(page) == ["The", "sky"]
        elsewhere, box = (5, 5), page.locator("#caption button").first.bounding_box()
        for position in (elsewhere, (box["x"] + 5, box["y"] + 5)):
            page.mouse.move(*position)
            ratios = dict(page.evaluate(RATIOS))
            assert 4.5 < ratios["The"] < ratios["sky"] - 3
        page.close()


@pytest.mark.parametrize("width", [320, 1100])
def test_the_page_fits_the_width_of_the_window(page, width):
    page.set_viewport_size({"width": width, "height": 700})
    choose(page, png(size=(300, 100)))
    words(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_api_documentation(page, address):
    page.goto(f"{address}/docs")
    page.get_by_role("heading", name="POST /api/caption").wait_for()
    for text in (
        "beam_size",
        "integer, at least 1, at most 10",
        "number, above 0, at most 1",
        "the request queue is full",
        "GET /metrics",
    ):
        assert page.get_by_text(text).first.is_visible()


def test_a_model_without_attention_has_no_maps(browser):
    plain = Painter()
    plain.model = SimpleNamespace(has_attention=False)
    caption = plain.caption
    plain.caption = lambda images, **options: [
        replace(each, attention=None, alternatives=()) for each in caption(images, **options)
    ]
    with served(plain) as client:
        opened = browser.new_page()
        opened.goto(str(client.base_url))
        choose(opened, png((200, 0, 0)))
        assert words(opened) == ["red", "sky"]
        assert "there are no maps for individual words" in opened.locator("#detail").inner_text()
        assert opened.locator("#about").inner_text() == "Describes your image in a sentence."
        opened.hover("#caption button")
        assert opened.locator("#detail").inner_text().startswith("red: probability 90 %. ")
        opened.close()


def test_the_page_asks_for_the_token(browser):
    with served(Painter(), access=Access(token="the-right-token" * 2)) as client:
        opened = browser.new_page(reduced_motion="reduce")
        opened.set_default_timeout(15_000)
        opened.goto(str(client.base_url))
        choose(opened, png((200, 0, 0)))
        opened.get_by_role("textbox").fill("wrong-token-of-length")
        opened.keyboard.press("Enter")
        opened.wait_for_function("document.getElementById('token').value === ''")
        opened.locator("#access").wait_for()
        opened.keyboard.press("Escape")
        assert opened.get_by_role("alert").inner_text().startswith("The token is wrong; send the")
        choose(opened, png((0, 200, 0)))
        opened.get_by_role("textbox").fill("the-right-token" * 2)
        opened.get_by_role("button", name="Continue").click()
        assert words(opened) == ["green", "sky"]
        opened.reload()
        choose(opened, png((200, 0, 0)))
        assert words(opened) == ["red", "sky"]  # the token is kept in this tab
        opened.close()
