"""Painting and labels on the search page in Chromium, by mouse, by touch and by keyboard.

Skipped without Playwright or Chromium, neither of which `captioner serve` needs.
"""

import pytest

from captioner.serving.access import Access
from captioner.serving.collections import Collection
from tests.serving.test_page import CHROMIUM, RATIOS
from tests.support import collections, spatial
from tests.support.service import served

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not on the PATH"),
]
SIDE = 8  # cells


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with an index of halves, and one of plain colours without regions."""
    directory = tmp_path_factory.mktemp("painting-page")
    colours = collections.copy_images(tmp_path_factory, directory / "colours")
    collections.write_index(tmp_path_factory, colours, directory)
    halves = collections.copy_halves(tmp_path_factory, directory / "halves")
    collections.collect_halves(tmp_path_factory, halves, directory)
    return directory


@pytest.fixture(scope="module")
def opened(place, tmp_path_factory):
    linker, weights = collections.load(spatial.run(tmp_path_factory))
    halves = Collection("halves.index", place / "halves.index", linker, weights)
    return [halves, collections.collect(tmp_path_factory, place / "val.index")]


@pytest.fixture(scope="module")
def address(opened):
    with served(None, collections=opened) as client:
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
    pages, errors, urls = [], [], []

    def build(path="/", **options):
        options = {"viewport": {"width": 1200, "height": 900}, "reduced_motion": "reduce"} | options
        page = browser.new_page(**options)
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
        page.on("request", lambda request: urls.append(request.url))
        page.goto(address + path)
        pages.append(page)
        page.wait_for_selector("#hits li .signs, #problem:not([hidden])")
        return page

    yield build
    for page in pages:
        page.close()
    assert [each for each in errors if "Failed to load" not in each] == []
    assert all(url.startswith((address, "blob:", "data:")) for url in urls)


@pytest.fixture
def page(open_page):
    return open_page()


def hits(page):
    return page.locator("#hits .name").all_inner_texts()


def colours(name):
    """The colours of the left and of the right half."""
    return name.removesuffix(".png").split("-")[1:]


def chips(page):
    return page.locator("#terms li").all_inner_texts()


def settle(page):
    page.wait_for_function("() => document.getElementById('busy').hidden")


def add(page, word):
    """Add a word in the panel, which is opened first."""
    if not page.locator("#painting").is_visible():
        page.get_by_role("button", name="Paint").click()
    page.get_by_label("Paint where this should be").fill(word)
    page.keyboard.press("Enter")


def cells(page, sign):
    """The numbers of the cells of the shown layer that have a sign."""
    name = {1: "yes", -1: "no", 0: ""}[sign]
    found = page.locator("#grid [role=gridcell]").evaluate_all(
        "list => list.map((e) => e.className)"
    )
    return [number for number, each in enumerate(found) if each == name]


def drag(page, start, end):
    """Paint with the mouse from one cell (row, column) to another."""
    box = page.locator("#grid").bounding_box()

    def position(row, column):
        side = box["width"] / SIDE
        return box["x"] + (column + 0.5) * side, box["y"] + (row + 0.5) * side

    page.mouse.move(*position(*start))
    page.mouse.down()
    page.mouse.move(*position(*end))
    with page.expect_response("**/api/paint"):
        page.mouse.up()
    settle(page)


def painted(page, action):
    """Do something that changes the painting, and wait for the results."""
    with page.expect_response("**/api/paint"):
        action()
    settle(page)


# ---- painting ------------------------------------------------------------------------------------


def test_a_stroke_of_the_mouse_finds_images(page):
    assert not page.locator("#painting").is_visible()
    add(page, "red")
    assert "Where red should be" in page.locator("#grid").get_attribute("aria-label")
    drag(page, (3, 0), (3, 2))
    assert cells(page, 1) == [24, 25, 26]
    found = hits(page)
    assert [colours(name)[0] for name in found[:5]] == ["red"] * 5
    assert "red" not in [colours(name)[0] for name in found[5:]]
    assert chips(page) == ["red\n×"]
    assert page.locator("#summary").inner_text() == "12 images, best first"
    scores = [float(text) for text in page.locator("#hits .score").all_inner_texts()]
    assert scores == sorted(scores, reverse=True)
    page.get_by_text("Not here").click()
    drag(page, (3, 6), (5, 7))  # a line without gaps
    assert cells(page, -1) in ([30, 38, 47], [30, 39, 47])
    first = hits(page)[0]
    assert colours(first)[0] == "red" != colours(first)[1]
    page.get_by_text("Erase").click()
    drag(page, (3, 0), (3, 0))
    assert cells(page, 1) == [25, 26]


def test_presets_paint_halves_and_the_centre(page):
    add(page, "red")
    low, high, middle, whole = range(4), range(4, 8), range(2, 6), range(8)
    expected = {
        "Left half": (whole, low),
        "Right half": (whole, high),
        "Top half": (low, whole),
        "Bottom half": (high, whole),
        "Centre": (middle, middle),
    }
    for name, (rows, columns) in expected.items():
        painted(page, page.get_by_role("button", name=name).click)
        assert cells(page, 1) == [SIDE * row + column for row in rows for column in columns]
        with page.expect_response("**/api/search?*"):  # nothing is painted any more
            page.get_by_role("button", name="Clear").click()
        settle(page)
        assert cells(page, 0) == list(range(64))
    painted(page, page.get_by_role("button", name="Right half").click)
    page.get_by_text("Not here").click()
    painted(page, page.get_by_role("button", name="Left half").click)
    left, right = colours(hits(page)[0])
    assert right == "red" != left


def test_layers_and_the_query_are_added(page):
    add(page, "red")
    painted(page, page.get_by_role("button", name="Left half").click)
    add(page, "green")
    assert cells(page, 0) == list(range(64))  # each word has its own cells
    painted(page, page.get_by_role("button", name="Right half").click)
    assert colours(hits(page)[0]) == ["red", "green"]
    assert chips(page) == ["red\n×", "green\n×"]
    painted(page, lambda: (page.fill("#query", "blue - green"), page.press("#query", "Enter")))
    assert chips(page) == ["+\nblue\n×", "−\ngreen\n×", "red\n×", "green\n×"]
    assert colours(hits(page)[0]) == ["red", "blue"]
    body = page.evaluate("shown.asked.layers")
    assert [layer["word"] for layer in body] == ["red", "green"]
    assert body[0]["grid"] == [[1, 1, 1, 1, 0, 0, 0, 0]] * 8
    page.locator("#layers").get_by_role("button", name="red", exact=True).click()
    assert cells(page, 1) == [i for i in range(64) if i % SIDE < 4]
    painted(page, page.get_by_role("button", name="Remove the painting of red").click)
    assert chips(page) == ["+\nblue\n×", "−\ngreen\n×", "green\n×"]
    with page.expect_response("**/api/search?*"):
        page.get_by_role("button", name="Remove green").click()
    assert page.locator("#layers li").count() == 0
    assert not page.locator("#grid").is_visible()


def test_the_keyboard_paints(page):
    page.focus("#choose")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "paint"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "word"
    page.keyboard.type("green")
    page.keyboard.press("Enter")

    def focused():
        return page.evaluate("document.activeElement.ariaLabel")

    assert focused() == "row 1, column 1: not painted"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineWidth") == "3px"
    painted(page, lambda: page.keyboard.press("Space"))
    assert focused() == "row 1, column 1: should be here"  # the focus stays
    page.keyboard.press("ArrowDown")
    painted(page, lambda: page.keyboard.press("-"))
    assert focused() == "row 2, column 1: should not be here"
    for key in ("Delete", "End", "Enter"):
        page.keyboard.press(key)
    assert focused() == "row 2, column 8: should be here"
    painted(page, lambda: page.keyboard.press("Shift+ArrowDown"))  # a stroke
    assert focused() == "row 3, column 8: should be here"
    for key in ("Control+Home", "ArrowUp", "ArrowLeft"):
        page.keyboard.press(key)
    assert focused() == "row 1, column 1: should be here"
    painted(page, lambda: page.keyboard.press("0"))
    assert cells(page, 1) == [15, 23]
    assert colours(hits(page)[0])[1] == "green"
    outline = "(e) => getComputedStyle(e.closest('label') ?? e).outlineWidth"
    order = []
    for _ in range(8):
        page.keyboard.press("Tab")
        active = page.locator(":focus")
        order.append(active.evaluate("(e) => e.ariaLabel || e.value"))
        assert active.evaluate(outline) == "3px"
    assert order[:6] == ["1", "Left half", "Right half", "Top half", "Bottom half", "Centre"]
    page.keyboard.press("Shift+Tab")
    page.focus("#brushes input")
    page.keyboard.press("ArrowRight")
    page.focus("#preset-left")
    painted(page, lambda: page.keyboard.press("Enter"))
    assert len(cells(page, -1)) == 32


def test_a_finger_paints(open_page):
    page = open_page(viewport={"width": 390, "height": 800}, has_touch=True)
    page.get_by_role("button", name="Paint").tap()
    page.fill("#word", "red")
    page.get_by_role("button", name="Add", exact=True).tap()
    page.locator("#grid").scroll_into_view_if_needed()
    box = page.locator("#grid").bounding_box()
    side = box["width"] / SIDE
    touch = page.context.new_cdp_session(page)

    def send(kind, *points):
        touch.send(
            "Input.dispatchTouchEvent",
            {"type": kind, "touchPoints": [{"x": x, "y": y} for x, y in points]},
        )

    scrolled = page.evaluate("scrollY")
    send("touchStart", (box["x"] + side / 2, box["y"] + side / 2))
    for row in range(1, 5):
        send("touchMove", (box["x"] + side / 2, box["y"] + (row + 0.5) * side))
    painted(page, lambda: send("touchEnd"))
    assert cells(page, 1) == [0, 8, 16, 24, 32]
    assert page.evaluate("scrollY") == scrolled  # the page does not scroll below the finger
    painted(page, lambda: page.touchscreen.tap(box["x"] + 1.5 * side, box["y"] + side / 2))
    assert cells(page, 1) == [0, 1, 8, 16, 24, 32]
    assert colours(hits(page)[0])[0] == "red"


def test_the_address_holds_the_painting(page, open_page):
    add(page, "red")
    painted(page, page.get_by_role("button", name="Left half").click)
    entries = page.evaluate("history.length")
    drag(page, (0, 7), (0, 7))
    assert page.evaluate("history.length") == entries  # a stroke is no step of the history
    assert "paint=red%3Af1f0f0f0f0f0f0f0" in page.url
    page.reload()
    page.wait_for_selector("#hits li .signs")
    assert page.locator("#painting").is_visible()
    assert cells(page, 1)[:5] == [0, 1, 2, 3, 7]
    painted(page, lambda: (page.fill("#query", "blue"), page.press("#query", "Enter")))
    painted(page, page.go_back)
    assert (page.input_value("#query"), chips(page)) == ("", ["red\n×"])
    other = open_page(page.url.removeprefix(page.url.split("/?")[0]))
    assert hits(other) == hits(page)
    broken = open_page(
        "/?paint=red&paint=:00&paint=red:zz&paint=blue:00000000000000ff0000000000000001"
    )
    assert broken.locator("#layers li").all_inner_texts() == ["blue\n×"]
    assert cells(broken, 1) == list(range(56, 64))


def test_layers_are_written_and_read(page):
    check = """(values) => {
      const layer = { word: "a: b", cells: Int8Array.from(values) };
      const read = decodeLayer(encodeLayer(layer));
      return read.word === layer.word && read.cells.join() === layer.cells.join();
    }"""
    for step in (1, 3, 5):
        assert page.evaluate(check, [(i * step) % 3 - 1 for i in range(64)])
    assert (
        page.evaluate("encodeLayer({ word: 'sky', cells: new Int8Array(64) })") == "sky:" + "0" * 16
    )


def test_unknown_words_of_a_painting_are_replaced(page):
    add(page, "rde")
    painted(page, page.get_by_role("button", name="Left half").click)
    alert = page.get_by_role("alert")
    assert alert.inner_text() == "Unknown words: 'rde' (similar: red); replace them."
    assert page.locator("#grid").is_visible()
    painted(page, page.get_by_role("button", name="Replace rde with red").click)
    assert not alert.is_visible()
    assert chips(page) == ["red\n×"]
    assert colours(hits(page)[0])[0] == "red"


def test_only_eight_words_are_painted(page):
    for number in range(8):
        add(page, "red" + " red" * number)
    assert page.locator("#layers li").count() == 8
    assert page.get_by_role("button", name="Add", exact=True).is_disabled()
    page.get_by_label("Paint where this should be").fill("red")
    page.keyboard.press("Enter")
    assert page.locator("#layers li").count() == 8


def test_an_index_without_regions_is_not_painted(page):
    add(page, "red")
    painted(page, page.get_by_role("button", name="Left half").click)
    with page.expect_response("**/api/search?*"):
        page.get_by_label("Index").select_option("val.index")
    settle(page)
    assert not page.locator("#paint").is_visible()
    assert not page.locator("#painting").is_visible()
    assert "paint" not in page.url
    assert page.locator("#hits li").count() == 7
    painted(page, page.go_back)
    assert cells(page, 1) == [i for i in range(64) if i % SIDE < 4]


def test_results_beyond_the_first_are_painted_too(page):
    """Further pages of hits are requested with the painting."""
    add(page, "red")
    painted(page, page.get_by_role("button", name="Left half").click)
    names = page.evaluate(
        "find(shown.asked, 3).then((answer) => answer.hits.map((hit) => hit.name))"
    )
    assert names == hits(page)[3:]


def test_an_image_and_a_painting(page, place):
    add(page, "red")
    painted(page, page.get_by_role("button", name="Left half").click)
    photo = next((place / "halves").glob("*-red-blue.png"))
    painted(page, lambda: page.set_input_files("#file", photo))
    assert chips(page) == ["your image\n×", "red\n×"]
    assert colours(hits(page)[0]) == ["red", "blue"]
    assert page.locator("#preview").is_visible()


# ---- labels and maps -----------------------------------------------------------------------------

HALVES = """() => { // the mean opacity of the map over the left and the right half of the image
  const canvas = document.getElementById("map"), { width, height } = canvas;
  const { data } = canvas.getContext("2d").getImageData(0, 0, width, height), sums = [0, 0];
  for (let i = 0; i < width * height; i++) sums[i % width < width / 2 ? 0 : 1] += data[4 * i + 3];
  return sums.map((sum) => 2 * sum / width / height / 255); }"""


@pytest.fixture
def labelled(page, place):
    """The page with the labels of an image whose left half is red, the right one green."""
    photo = next((place / "halves").glob("*-red-green.png"))
    with page.expect_response("**/api/localize?*"):
        page.set_input_files("#file", photo)
    page.wait_for_function("() => labelled?.labels.get('red')?.map")
    return page


def label(page, name):
    return page.locator(f"#label-list button[data-label='{name}']")


def test_labels_of_an_image_show_where_they_are(labelled):
    texts = [text.split("\n") for text in labelled.locator("#label-list li").all_inner_texts()]
    assert {text for text, _ in texts[:2]} == {"red", "green"}
    assert texts[2] == ["blue", "6 %"]
    frame = labelled.locator("#frame")
    assert "mapped" not in frame.get_attribute("class")
    label(labelled, "red").hover()
    assert "mapped" in frame.get_attribute("class")
    left, right = labelled.evaluate(HALVES)
    assert left > 0.5 > 0.3 > right
    assert labelled.locator("#scale-of").inner_text() == "probability of red"
    bar = labelled.locator("#label-scale .inferno").bounding_box()
    assert bar["width"] > 150
    assert bar["height"] > 8
    assert labelled.locator("#label-scale div span").all_inner_texts() == ["0", "0.1", "0.5", "1"]
    label(labelled, "green").hover()
    left, right = labelled.evaluate(HALVES)
    assert right > 0.5 > 0.3 > left
    label(labelled, "blue").hover()  # absent: the scale is fixed, so that its map is dark
    assert max(labelled.evaluate(HALVES)) < 0.3
    labelled.mouse.move(5, 5)
    assert "mapped" not in frame.get_attribute("class")
    label(labelled, "green").click()
    labelled.mouse.move(5, 5)
    assert "mapped" in frame.get_attribute("class")
    assert label(labelled, "green").get_attribute("aria-pressed") == "true"
    label(labelled, "red").hover()
    labelled.mouse.move(5, 5)
    left, right = labelled.evaluate(HALVES)
    assert right > left  # green again, which was clicked
    image, canvas = (labelled.locator(name).bounding_box() for name in ("#preview", "#map"))
    assert canvas == image


def test_any_word_is_found_in_an_image(labelled):
    labelled.fill("#label", "red and green")
    with labelled.expect_response("**/api/localize?*"):
        labelled.press("#label", "Enter")
    label(labelled, "red and green").wait_for()
    assert labelled.locator("#label-list li").first.inner_text().startswith("red and green")
    assert label(labelled, "red and green").get_attribute("aria-pressed") == "true"
    assert min(labelled.evaluate(HALVES)) > 0.3
    labelled.fill("#label", "grene")
    labelled.press("#label", "Enter")
    labelled.get_by_text("Unknown words: 'grene' (similar: green); replace them.").wait_for()
    assert labelled.locator("#hits li").count() == 12  # the results stay
    labelled.get_by_role("button", name="Replace grene with green").click()
    labelled.wait_for_function("() => labelled.kept === 'green'")
    assert not labelled.locator("#label-problem").is_visible()


def test_labels_by_keyboard(labelled):
    labelled.focus("#label-list li:first-child button")
    name = labelled.evaluate("document.activeElement.dataset.label")
    spoken = labelled.evaluate("document.activeElement.ariaLabel")
    assert spoken.startswith(f"{name}: 99 %, most likely at the ")
    assert ("left" in spoken) == (name == "red")
    assert labelled.evaluate("getComputedStyle(document.activeElement).outlineWidth") == "3px"
    assert labelled.locator("#scale-of").inner_text() == f"probability of {name}"
    labelled.keyboard.press("Enter")
    labelled.keyboard.press("Tab")
    other = labelled.evaluate("document.activeElement.dataset.label")
    assert labelled.locator("#scale-of").inner_text() == f"probability of {other}"
    labelled.focus("#label")
    assert labelled.locator("#scale-of").inner_text() == f"probability of {name}"  # kept


def test_labels_are_requested_once_and_leave_with_the_image(labelled):
    requests = []
    labelled.on("request", lambda each: requests.append(each.url))
    labelled.fill("#query", "- blue")
    with labelled.expect_response("**/api/search?*"):
        labelled.press("#query", "Enter")
    settle(labelled)
    assert label(labelled, "red").is_visible()
    assert not any("/api/l" in url for url in requests)
    with labelled.expect_response("**/api/search?*"):
        labelled.get_by_label("Index").select_option("val.index")
    settle(labelled)
    labelled.wait_for_function("() => document.getElementById('labels').hidden")
    assert labelled.locator("#preview").is_visible()
    assert not labelled.locator("#label-scale").is_visible()


def test_an_error_of_labels_keeps_the_results(page, place):
    page.route("**/api/label?*", lambda route: route.abort())
    page.set_input_files("#file", next((place / "halves").glob("*-red-green.png")))
    page.locator("#label-problem").get_by_text("The service does not respond.").wait_for()
    assert page.locator("#hits li").count() == 12


# ---- both ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_control_has_a_name_and_every_text_enough_contrast(open_page, place, scheme):
    page = open_page(color_scheme=scheme)
    page.set_input_files("#file", next((place / "halves").glob("*-red-green.png")))
    page.locator("#label-list li").first.wait_for()
    add(page, "red")
    painted(page, page.get_by_role("button", name="Left half").click)
    for box in page.locator("input:visible, button:visible, select:visible, img").all():
        named = "e => e.labels?.length || e.innerText || e.ariaLabel || e.alt !== null"
        assert box.evaluate(named), box
    ratios = page.evaluate(RATIOS)
    assert len(ratios) > 40
    assert [each for each in ratios if each[1] < 4.5] == []
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))
    here, there = (
        page.locator(f"#grid .{name}").first.evaluate("e => getComputedStyle(e).backgroundColor")
        if page.locator(f"#grid .{name}").count()
        else None
        for name in ("yes", "no")
    )
    assert here != there


@pytest.mark.parametrize("width", [320, 700, 1200])
def test_the_page_fits_the_width_of_the_window(open_page, place, width):
    page = open_page(viewport={"width": width, "height": 800})
    page.set_input_files("#file", next((place / "halves").glob("*-red-green.png")))
    page.locator("#label-list li").first.wait_for()
    add(page, "red and green and blue and red and green and blue")
    painted(page, page.get_by_role("button", name="Left half").click)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    grid, results = (page.locator(name).bounding_box() for name in ("#grid", "#hits"))
    assert grid["width"] == pytest.approx(grid["height"], abs=1)
    assert (results["x"] > grid["x"] + grid["width"]) == (width == 1200)  # beside it, or below
    panel = page.locator("#painting").bounding_box()
    for button in page.locator("#painting button:visible").all():
        box = button.bounding_box()
        assert box["x"] + box["width"] <= panel["x"] + panel["width"]


def test_a_token_is_sent_with_paintings(browser, opened):
    token = "the-right-token" * 2
    with served(None, access=Access(token=token), collections=opened) as client:
        page = browser.new_page(reduced_motion="reduce")
        page.set_default_timeout(15_000)
        page.goto(f"{client.base_url}?paint=red:f0f0f0f0f0f0f0f0")
        page.get_by_role("textbox", name="This service").fill(token)
        page.get_by_role("button", name="Continue").click()
        page.wait_for_selector("#hits li .signs")
        assert colours(hits(page)[0])[0] == "red"
        page.close()
