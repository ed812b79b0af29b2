"""The search page in Chromium: queries, results, images of one's own, by mouse and by keyboard.

Skipped without Playwright or Chromium, neither of which `captioner serve` needs.
"""

import shutil

import pytest
from PIL import Image

from captioner.serving.access import Access
from captioner.serving.schemas import Limits
from tests.serving.test_page import CHROMIUM, RATIOS, Painter
from tests.support import collections
from tests.support.service import png, served

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not on the PATH"),
]
MANY = 3000


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with images, an index of them and an index of many rows."""
    directory = tmp_path_factory.mktemp("search-page")
    images = collections.copy_images(tmp_path_factory, directory / "photos")
    collections.write_index(tmp_path_factory, images, directory)
    collections.write_many(tmp_path_factory, images, directory, MANY)
    return directory


@pytest.fixture(scope="module")
def address(place, tmp_path_factory):
    opened = [
        collections.collect(tmp_path_factory, place / name) for name in ("val.index", "many.index")
    ]
    with served(Painter(), Limits(max_bytes=100_000), collections=opened) as client:
        yield str(client.base_url)


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser, address):
    """Open the page at an address; it must report no error and load from the service alone."""
    opened, errors, urls = [], [], []

    def build(path="/", **options):
        options = {"viewport": {"width": 1100, "height": 800}, "reduced_motion": "reduce"} | options
        page = browser.new_page(**options)
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
        page.on("request", lambda request: urls.append(request.url))
        page.goto(address + path)
        opened.append(page)
        page.wait_for_selector("#hits li .signs, #problem:not([hidden])")
        return page

    yield build
    for page in opened:
        page.close()
    assert [each for each in errors if "Failed to load" not in each] == []
    assert all(url.startswith((address, "blob:", "data:")) for url in urls)


@pytest.fixture
def page(open_page):
    return open_page()


def ask(page, query):
    """Type a query and wait for its hits or an error."""
    with page.expect_response("**/api/search?*"):
        page.fill("#query", query)
        page.keyboard.press("Enter")
    settle(page)


def settle(page):
    page.wait_for_function("() => document.getElementById('busy').hidden")


def hits(page):
    return page.locator("#hits .name").all_inner_texts()


def terms(page):
    return page.locator("#terms li").evaluate_all(
        "list => list.map((e) => [e.querySelector('b')?.innerText ?? '',"
        " e.querySelector('span').innerText].join(' ').trim())"
    )


def choose(page, content, name="a.png"):
    with page.expect_response("**/api/search?*"):
        page.set_input_files("#file", {"name": name, "mimeType": "image/png", "buffer": content})
    settle(page)


def test_a_query_shows_images_with_scores_and_how_it_was_understood(page):
    assert hits(page) == [f"{100 + i}.png" for i in range(7)]  # all, before there is a query
    assert page.locator("#summary").inner_text() == "7 images in val.index"
    assert page.locator("#hits .score").first.inner_text() == ""
    ask(page, "red +  2*blue- black")
    assert set(hits(page)[:2]) == {"100.png", "102.png"}
    assert terms(page) == ["+ red", "+ 2*blue", "− black"]
    scores = [float(text) for text in page.locator("#hits .score").all_inner_texts()]
    assert scores == sorted(scores, reverse=True)
    assert page.locator("#summary").inner_text() == "7 images, best first"  # read aloud
    first = page.locator("#hits img").first
    page.wait_for_function("image => image.naturalWidth", arg=first.element_handle())
    assert first.get_attribute("alt") in ("100.png", "102.png")
    page.get_by_role("button", name="Remove + 2*blue").click()
    settle(page)
    assert page.input_value("#query") == "red - black"
    assert terms(page) == ["+ red", "− black"]


def test_unknown_words_come_with_suggestions(page):
    ask(page, "rde - bule")
    alert = page.get_by_role("alert")
    assert alert.inner_text().startswith("The query contains unknown words: 'rde' (similar: red), ")
    assert hits(page) == []
    page.get_by_role("button", name="Replace rde with red").click()
    page.get_by_role("button", name="Replace bule with blue").click()
    page.wait_for_selector("#hits li .signs")
    assert page.input_value("#query") == "red - blue"
    assert not alert.is_visible()
    assert not page.locator("#suggestions").is_visible()
    ask(page, "red +")
    assert "has nothing to add or subtract after a +" in alert.inner_text()


def test_suggestions_replace_whole_words_in_any_case(page):
    query = "Rde - rdes + BULE - bules"
    ask(page, query)
    page.get_by_role("button", name="Replace rde with red").click()
    settle(page)
    assert page.input_value("#query") == query.replace("Rde", "red")
    page.get_by_role("button", name="Replace bule with blue").click()
    settle(page)
    assert page.input_value("#query") == "red - rdes + blue - bules"
    cases = [
        ("été - étés", "été", "rot", "rot - étés"),
        ("ETE\u0301 - ete", "ete", "rot", "ETE\u0301 - rot"),
        ('a.b axb - image:"a.b c" + A.B', "a.b", "$&", '$& axb - image:"a.b c" + $&'),
        ("Rde - image:rde.png", "rde", "red", "red - image:rde.png"),
        ("t-shrit", "shrit", "shirt", "t-shirt"),
    ]
    for before, word, other, after in cases:
        assert page.evaluate("each => replaceWord(...each)", [before, word, other]) == after


def test_results_are_added_and_subtracted_by_click(page):
    ask(page, "red")
    with page.expect_response("**/api/search?*"):
        page.get_by_role("button", name="Subtract 102.png from the query").click()
    settle(page)
    assert page.input_value("#query") == "red - image:102.png"
    assert terms(page) == ["+ red", "− 102.png"]
    assert hits(page)[-1] == "102.png"
    assert page.locator("#terms img").get_attribute("src").startswith("api/thumbnails/")
    with page.expect_response("**/api/search?*"):
        page.locator("#hits img[alt='103.png']").click()
    settle(page)
    assert page.input_value("#query") == "red - image:102.png + image:103.png"
    ask(page, "")
    with page.expect_response("**/api/search?*"):
        page.get_by_role("button", name="Add 104.png to the query").click()
    settle(page)
    assert page.input_value("#query") == "image:104.png"
    assert hits(page)[0] == "104.png"


def test_everything_works_with_the_keyboard(open_page):
    page = open_page("/?index=many.index")
    order = []
    for _ in range(12):
        page.keyboard.press("Tab")
        order.append(
            page.evaluate(
                "document.activeElement.ariaLabel || document.activeElement.id"
                " || document.activeElement.innerText"
            )
        )
        assert page.evaluate("getComputedStyle(document.activeElement).outlineWidth") == "3px"
        if order[-1].startswith("Subtract"):
            break
    assert order[-6:] == [
        *("query", "Search", "choose", "index"),
        *("Add 000000.png to the query", "Subtract 000000.png from the query"),
    ]

    def focused():
        return page.evaluate("document.activeElement.ariaLabel")

    page.keyboard.press("ArrowRight")
    assert focused() == "Subtract 000001.png from the query"
    page.keyboard.press("Shift+Tab")
    assert focused() == "Add 000001.png to the query"
    columns = page.evaluate("columns")
    page.keyboard.press("ArrowDown")
    assert focused() == f"Add {columns + 1:06}.png to the query"
    page.keyboard.press("End")
    page.wait_for_function(f"() => document.activeElement.ariaLabel?.includes('{MANY - 1:06}.png')")
    page.keyboard.press("Home")
    page.wait_for_function("() => document.activeElement.ariaLabel?.includes('000000.png')")
    for _ in range(30):  # further than what is drawn at first
        page.keyboard.press("ArrowDown")
    page.wait_for_function(
        f"() => document.activeElement.ariaLabel?.includes('{30 * columns:06}.png')"
    )
    assert page.evaluate("document.activeElement.getBoundingClientRect().top") < 800
    with page.expect_response("**/api/search?*"):
        page.keyboard.press("-")
    settle(page)
    assert page.input_value("#query") == f"- image:{30 * columns:06}.png"
    page.wait_for_function("() => document.activeElement.ariaLabel?.startsWith('Subtract')")
    assert page.evaluate("document.activeElement.closest('li').ariaPosInSet") == "1"
    page.get_by_role("button", name=f"Remove − {30 * columns:06}.png").focus()
    with page.expect_response("**/api/search?*"):
        page.keyboard.press("Enter")
    settle(page)
    assert page.input_value("#query") == ""
    assert page.evaluate("document.activeElement.id") == "query"


def scroll(page, position):
    """Scroll to a position, and wait until the results there are drawn and have arrived."""
    page.evaluate(f"scrollTo(0, {position})")
    # The page draws in the frame after the scroll; until then, the old results are complete.
    page.evaluate(
        "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
    )
    page.wait_for_function("() => !document.querySelector('#hits li.waiting')")


def test_only_results_near_the_window_exist(open_page):
    page = open_page("/?index=many.index&query=red")
    requests = []
    page.on("request", lambda each: requests.append(each.url))
    total = page.evaluate("document.documentElement.scrollHeight")
    assert total > 100_000
    most = 0
    for position in (0, 0.2, 0.5, 0.8, 1):
        scroll(page, position * total)
        most = max(most, page.locator("#hits li").count())
    assert most < 80
    assert page.locator("#hits li").last.get_attribute("aria-posinset") == str(MANY)
    numbers = page.locator("#hits li").evaluate_all("list => list.map((e) => +e.ariaPosInSet)")
    assert numbers == sorted(numbers)
    searches = [url for url in requests if "/api/search" in url]
    assert len(searches) < 12  # pages between the positions are skipped
    for position in range(15):
        scroll(page, position / 20 * total)
        assert page.evaluate("pages.size") <= 10
    page.evaluate("scrollTo(0, 1e9)")
    box = page.locator("#query").bounding_box()
    assert 0 <= box["y"] < 100  # the query stays visible


def test_an_image_shows_its_neighbours_and_captions(page, place):
    choose(page, (place / "photos/103.png").read_bytes())
    assert hits(page)[0] == "103.png"
    assert terms(page) == ["your image"]
    assert page.locator("#preview").is_visible()
    page.locator("#captions li").first.wait_for()
    captions = page.locator("#captions li").all_inner_texts()
    assert [text.split("\n") for text in captions] == [["red sky", "61 %"], ["red sea", "14 %"]]
    assert not page.locator("#nearest").is_visible()
    ask(page, "- yellow")
    assert terms(page) == ["your image", "− yellow"]
    assert hits(page)[0] != "103.png"
    page.get_by_role("button", name="Remove your image").click()
    settle(page)
    assert terms(page) == ["− yellow"]
    assert not page.locator("#upload").is_visible()


def test_captions_of_an_image_are_requested_again_after_an_error(page, place):
    page.route("**/api/caption?*", lambda route: route.abort())
    choose(page, (place / "photos/103.png").read_bytes())
    page.get_by_text("The service does not respond.").wait_for()
    page.unroute("**/api/caption?*")
    ask(page, "- yellow")
    page.locator("#captions").get_by_text("red sky").wait_for()
    requests = []
    page.on("request", lambda each: requests.append(each.url))
    ask(page, "- red")
    page.locator("#captions").get_by_text("red sky").wait_for()
    assert not any("/api/caption" in url for url in requests)  # known


def test_images_can_be_dropped_and_pasted(page, place):
    send = """([name, bytes]) => {
      const data = new DataTransfer();
      if (bytes) data.items.add(new File([new Uint8Array(bytes)], "a.png", { type: "image/png" }));
      document.dispatchEvent(name === "drop" ? new DragEvent(name, { dataTransfer: data })
        : new ClipboardEvent(name, { clipboardData: data }));
    }"""
    for event, name in (("drop", "101.png"), ("paste", "104.png")):
        with page.expect_response("**/api/search?*"):
            page.evaluate(send, [event, list((place / "photos" / name).read_bytes())])
        settle(page)
        assert hits(page)[0] == name
    page.evaluate(send, ["drop", None])
    assert "That does not contain an image." in page.get_by_role("alert").inner_text()
    choose_large = {"name": "a.png", "mimeType": "image/png", "buffer": b"x" * 100_001}
    page.set_input_files("#file", choose_large)
    page.get_by_text("This image is 0.1 MB; the limit is 0.1 MB.").wait_for()
    choose(page, b"nothing")
    assert page.get_by_role("alert").inner_text().startswith("The file: not an image in any of")


def test_the_address_holds_the_query(open_page, place):
    page = open_page("/search?query=red+-+blue")
    assert page.input_value("#query") == "red - blue"
    assert hits(page)[0] == "100.png"
    ask(page, "green")
    choose(page, (place / "photos/103.png").read_bytes())
    ask(page, "- yellow")
    with page.expect_response("**/api/search?*"):
        page.go_back()
    settle(page)
    assert (terms(page), hits(page)[0]) == (["your image"], "103.png")
    assert page.locator("#preview").is_visible()
    with page.expect_response("**/api/search?*"):
        page.go_back()
    settle(page)
    assert (terms(page), hits(page)[0]) == (["+ green"], "101.png")
    assert not page.locator("#upload").is_visible()
    with page.expect_response("**/api/search?*"):
        page.go_forward()
    settle(page)
    assert hits(page)[0] == "103.png"
    page.reload()
    page.wait_for_selector("#hits li .signs")
    assert (terms(page), hits(page)[0]) == (["your image"], "103.png")


def test_the_position_is_restored(open_page):
    page = open_page("/?index=many.index")
    drawn = page.evaluate_handle("tiles.keys().next().value")
    page.evaluate("scrollTo(0, 20000)")
    page.wait_for_function(
        "(first) => !tiles.has(first) && !document.querySelector('#hits li.waiting')", arg=drawn
    )
    before = hits(page)
    ask(page, "red")
    assert page.evaluate("scrollY") < 500
    page.go_back()
    page.wait_for_function("() => scrollY === 20000 && !document.querySelector('#hits li.waiting')")
    assert hits(page) == before


def test_the_index_can_be_chosen(page, place):
    choose(page, (place / "photos/103.png").read_bytes())
    with page.expect_response("**/api/search?*"):
        page.get_by_label("Index").select_option("many.index")
    settle(page)
    assert page.locator("#summary").inner_text() == "3,000 images, best first"
    assert terms(page) == ["your image"]
    assert "index=many.index" in page.url
    assert page.get_by_label("Index").input_value() == "many.index"


def test_the_chosen_index_follows_the_back_button(page):
    assert page.get_by_label("Index").input_value() == "val.index"
    with page.expect_response("**/api/search?*"):
        page.get_by_label("Index").select_option("many.index")
    settle(page)
    with page.expect_response("**/api/search?*"):
        page.go_back()
    settle(page)
    assert page.locator("#summary").inner_text() == "7 images in val.index"
    assert page.get_by_label("Index").input_value() == "val.index"


def test_errors_of_the_service_are_shown(page):
    page.route("**/api/search*", lambda route: route.abort())
    page.fill("#query", "red")
    page.keyboard.press("Enter")
    page.get_by_text("The service does not respond. Is it still running?").wait_for()
    page.unroute("**/api/search*")
    page.keyboard.press("Enter")
    page.wait_for_selector("#hits li .signs")
    assert not page.get_by_role("alert").is_visible()


def test_images_that_cannot_be_read_have_a_reason(browser, tmp_path, tmp_path_factory):
    images = collections.copy_images(tmp_path_factory, tmp_path / "photos")
    index = collections.write_index(tmp_path_factory, images, tmp_path)
    images[0].unlink()
    images[1].write_bytes(b"GIF89a")
    with served(None, collections=[collections.collect(tmp_path_factory, index)]) as client:
        page = browser.new_page()
        page.goto(str(client.base_url))
        page.get_by_text("100.png cannot be read.").wait_for()
        page.get_by_text("101.png cannot be read.").wait_for()
        assert page.locator("#hits img").count() == 5
        assert page.get_by_role("button", name="Add 100.png to the query").is_visible()
        assert not page.get_by_role("link", name="Captions").is_visible()
        page.close()


def test_an_index_that_is_written_meanwhile(browser, tmp_path, tmp_path_factory):
    images = collections.copy_images(tmp_path_factory, tmp_path / "photos")
    index = collections.write_many(tmp_path_factory, images, tmp_path, 600)
    with served(None, collections=[collections.collect(tmp_path_factory, index)]) as client:
        page = browser.new_page()
        page.goto(str(client.base_url))
        page.wait_for_selector("#hits li .signs")
        shutil.rmtree(index)
        shutil.rmtree(tmp_path / "many")
        collections.write_many(tmp_path_factory, images, tmp_path, 500)
        page.evaluate("scrollTo(0, 1e6)")
        page.get_by_text("500 images in many.index").wait_for()
        page.get_by_text("000499.png").wait_for()
        page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_control_has_a_name_and_every_text_enough_contrast(open_page, scheme):
    page = open_page(color_scheme=scheme)
    choose(page, png((200, 0, 0)))
    page.locator("#captions li").first.wait_for()
    ask(page, "red")
    for box in page.locator("input:visible, button:visible, select:visible, img").all():
        named = "e => e.labels?.length || e.innerText || e.ariaLabel || e.alt !== null"
        assert box.evaluate(named), box
    ratios = page.evaluate(RATIOS)
    assert len(ratios) > 30
    assert [each for each in ratios if each[1] < 4.5] == []
    ask(page, "rde")
    ratios = page.evaluate(RATIOS)
    assert [each for each in ratios if each[1] < 4.5] == []
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("width", [320, 1100])
def test_the_page_fits_the_width_of_the_window(open_page, width):
    page = open_page(
        "/?index=many.index&query=red+-+image:000001.png",
        viewport={"width": width, "height": 700},
    )
    choose(page, png(size=(300, 100)))
    page.locator("#captions li").first.wait_for()  # moves the results
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    columns = page.evaluate("columns")
    assert columns == (2 if width == 320 else 5)
    boxes = [page.locator("#hits li").nth(number).bounding_box() for number in range(columns)]
    assert len({box["y"] for box in boxes}) == 1
    assert boxes[-1]["x"] + boxes[-1]["width"] <= width


def test_the_page_asks_for_the_token(browser, place, tmp_path_factory):
    token = "the-right-token" * 2
    opened = [collections.collect(tmp_path_factory, place / "val.index")]
    with served(None, access=Access(token=token), collections=opened) as client:
        page = browser.new_page(reduced_motion="reduce")
        page.set_default_timeout(15_000)
        page.goto(f"{client.base_url}?query=red")
        page.evaluate(
            "document.getElementById('token').dispatchEvent(new ClipboardEvent('paste', "
            "{ clipboardData: new DataTransfer(), bubbles: true }))"
        )
        assert "image" not in page.locator("#problem").inner_text()
        page.get_by_role("textbox", name="This service").fill("wrong-token-of-length")
        page.keyboard.press("Enter")
        page.wait_for_function("() => document.getElementById('token').value === ''")
        page.locator("#access").wait_for()
        page.get_by_role("textbox", name="This service").fill(token)
        page.get_by_role("button", name="Continue").click()
        page.wait_for_selector("#hits li .signs")
        assert hits(page)[0] == "100.png"
        image = page.locator("#hits img").first
        page.wait_for_function("image => image.naturalWidth", arg=image.element_handle())
        page.reload()
        page.wait_for_selector("#hits li .signs")  # the token is kept in this tab
        page.close()


def test_the_pages_lead_to_each_other(open_page):
    page = open_page()
    page.get_by_role("link", name="Captions").click()
    page.get_by_text("The caption will appear here.").wait_for()
    page.get_by_role("link", name="Search").click()
    page.wait_for_selector("#hits li .signs")
    page.get_by_role("link", name="API").click()
    page.get_by_role("heading", name="GET /api/search").wait_for()
    for text in (
        "cosine similarity to the query, from -1 to 1",
        "integer, at least 1, at most 200",
    ):
        assert page.get_by_text(text).first.is_visible()


def test_a_large_image_is_shown_whole(browser, tmp_path, tmp_path_factory):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (1200, 300), "red").save(tmp_path / "photos/a.png")
    index = collections.write_index(tmp_path_factory, [tmp_path / "photos"], tmp_path)
    with served(None, collections=[collections.collect(tmp_path_factory, index)]) as client:
        page = browser.new_page()
        page.goto(str(client.base_url))
        image = page.locator("#hits img")
        page.wait_for_function("image => image.naturalWidth", arg=image.element_handle())
        assert image.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [320, 80]
        assert image.evaluate("image => getComputedStyle(image).objectFit") == "contain"
        page.close()
