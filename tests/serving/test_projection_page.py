"""The projection page in Chromium: points, zoom, names, lasso, by mouse, by touch and by keyboard.

Skipped without Playwright or Chromium, neither of which `captioner serve` needs.
"""

import shutil
from pathlib import Path

import numpy as np
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
MANY = 700
COLORS = {"red": (0, 114, 178), "green": (213, 94, 0)}  # of the first two groups
SHOWN = "() => plot && !before && !scheduled && document.getElementById('busy').hidden"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with an index of halves, one of plain colours and one of many rows."""
    directory = tmp_path_factory.mktemp("projection-page")
    colours = collections.copy_images(tmp_path_factory, directory / "colours")
    collections.write_index(tmp_path_factory, colours, directory)
    collections.write_many(tmp_path_factory, colours, directory, MANY)
    halves = collections.copy_halves(tmp_path_factory, directory / "halves")
    collections.collect_halves(tmp_path_factory, halves, directory)
    return directory


@pytest.fixture(scope="module")
def opened(place, tmp_path_factory):
    linker, weights = collections.load(spatial.run(tmp_path_factory))
    halves = Collection("halves.index", place / "halves.index", linker, weights)
    others = [collections.collect(tmp_path_factory, place / f"{n}.index") for n in ("val", "many")]
    return [halves, *others]


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

    def build(query="", *, thumbnails=True, **options):
        options = {"viewport": {"width": 1100, "height": 900}, "reduced_motion": "reduce"} | options
        page = browser.new_page(**options)
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
        page.on("request", lambda request: urls.append(request.url))
        if not thumbnails:
            page.route("**/api/thumbnails/**", lambda route: route.abort())
        page.goto(f"{address}/projection{query}")
        pages.append(page)
        page.wait_for_function(f"() => ({SHOWN})() || !document.getElementById('problem').hidden")
        return page

    yield build
    for page in pages:
        page.close()
    assert [each for each in errors if "Failed to load" not in each] == []
    assert all(url.startswith((address, "blob:", "data:")) for url in urls)


@pytest.fixture
def page(open_page):
    return open_page("?labels=red&labels=green")


@pytest.fixture
def plain(open_page):
    """The page without thumbnails, which would be drawn over so few points."""
    return open_page("?labels=red&labels=green", thumbnails=False)


def wait(page):
    page.wait_for_function(SHOWN)


def position(page, number):
    """The position of a point in the window."""
    x, y = page.evaluate("(i) => at(i)", number)
    box = page.locator("#points").bounding_box()
    return box["x"] + x, box["y"] + y


def colors(page, number):
    """The colours within three pixels of a point, which others may partly cover."""
    found = page.evaluate(
        """(i) => {
          const [x, y] = at(i).map((value) => Math.round(value * size.ratio) - 3);
          return [...context.getImageData(x, y, 7, 7).data];
        }""",
        number,
    )
    return {tuple(found[i : i + 3]) for i in range(0, len(found), 4)}


def names(place):
    return [path.name for path in sorted((place / "halves").glob("*.png"))]


# ---- points --------------------------------------------------------------------------------------


def test_points_are_where_the_service_places_them(plain, place):
    page = plain
    found = page.evaluate(
        "({ x: [...plot.x], y: [...plot.y], group: [...plot.group], at: [...plot.x].map((_, i) =>"
        " at(i)), width: size.width, height: size.height })"
    )
    free = [found["width"] - 2 * 46, found["height"] - 2 * 46]
    for x, y, (px, py) in zip(found["x"], found["y"], found["at"], strict=True):
        distance = np.hypot(px - 46 - x * free[0], py - (found["height"] - 46) + y * free[1])
        assert distance <= 0.014 * found["height"] + 0.01
    for number, name in enumerate(names(place)):
        halves = set(name.removesuffix(".png").split("-")[1:])
        assert (found["x"][number] > 0.5) == ("red" in halves)
        assert (found["y"][number] > 0.5) == ("green" in halves)
    for number, group in enumerate(found["group"]):
        expected = list(COLORS.values())[group] if group >= 0 else (0xA3, 0x9A, 0x8F)
        assert expected in colors(page, number)
    assert page.locator("#summary").inner_text() == "12 images: red to the right, green upwards"
    assert page.locator("#points").get_attribute("aria-label").startswith("12 images: red to the")
    counts = [str(found["group"].count(group)) for group in range(2)]
    assert page.locator("#legend span").all_inner_texts() == counts


def test_other_positions(open_page, page):
    page.fill("#labels", "red, green , blue,red")
    page.keyboard.press("Enter")
    page.wait_for_function("() => plot.anchors")
    wait(page)
    assert page.evaluate("plot.labels") == ["red", "green", "blue"]
    assert page.locator("#summary").inner_text() == (
        "12 images: among red, green, blue, clockwise from the top"
    )
    assert "labels=red&labels=green&labels=blue" in page.url
    page.get_by_label("Positions").select_option("pca")
    page.wait_for_function("() => plot.axes?.[0].includes('component')")
    assert page.locator("#summary").inner_text() == "12 images: similar ones are close together"
    page.go_back()
    page.wait_for_function("() => plot.anchors")
    page.fill("#labels", "red")
    page.get_by_label("Diversity as an axis").check()
    page.wait_for_function("() => plot.axes?.[1] === 'diversity of regions'")
    assert page.url.endswith("labels=red&diversity=true")
    page.get_by_label("Diversity as an axis").uncheck()
    page.wait_for_function("() => plot.axes?.[1] === 'random'")
    assert "spread at random upwards" in page.locator("#summary").inner_text()
    page.reload()
    page.wait_for_function(SHOWN)
    assert page.input_value("#labels") == "red"
    fresh = open_page()  # without a query, the most frequent labels
    assert set(fresh.evaluate("plot.labels")) == {"red", "green", "blue"}


def test_points_move_to_their_new_places(open_page):
    page = open_page("?labels=red&labels=green", reduced_motion="no-preference")
    page.evaluate("""() => {
      window.moved = [];
      const original = stampPoints;
      stampPoints = (share) => { moved.push(share); original(share); };
    }""")
    page.fill("#labels", "red, blue")
    page.keyboard.press("Enter")
    page.wait_for_function("() => plot.labels[1] === 'blue' && !before && !scheduled")
    shares = page.evaluate("moved")
    moving = [share for share in shares if share < 1]
    assert moving
    assert moving == sorted(moving)
    assert shares[-1] == 1


def test_unknown_words_are_replaced(page):
    page.fill("#labels", "rde, blue")
    page.keyboard.press("Enter")
    alert = page.get_by_role("alert")
    page.wait_for_function("() => !document.getElementById('problem').hidden")
    assert alert.inner_text() == "Unknown words: 'rde' (similar: red); replace them."
    page.get_by_role("button", name="Replace rde with red").click()
    page.wait_for_function("() => plot.labels.join() === 'red,blue'")
    assert not alert.is_visible()


def test_an_index_without_regions_has_principal_components(page):
    page.get_by_label("Index").select_option("val.index")
    page.wait_for_function("() => plot.index === 'val.index'")
    wait(page)
    assert page.locator("#summary").inner_text() == "7 images: similar ones are close together"
    assert not page.locator("#labels").is_visible()
    assert page.locator("#method option[value=labels]").is_disabled()
    assert page.evaluate("[...plot.group]") == [-1] * 7
    page.get_by_label("Index").select_option("halves.index")
    page.wait_for_function("() => plot.index === 'halves.index'")
    assert len(page.evaluate("plot.labels")) == 3


# ---- the view ------------------------------------------------------------------------------------


def test_zoom_and_pan(page):
    before = position(page, 0)
    page.mouse.move(*before)
    page.mouse.wheel(0, -400)
    page.wait_for_function("() => view.zoom > 2")
    assert position(page, 0) == pytest.approx(before, abs=2)  # it stays below the pointer
    box, left = page.locator("#points").bounding_box(), page.evaluate("at(0)[0]")
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] - 20, middle[1] + 10, steps=4)
    page.mouse.up()
    page.wait_for_function("(left) => at(0)[0] < left - 10", arg=left)
    assert position(page, 0) == pytest.approx((before[0] - 20, before[1] + 10), abs=6)
    assert not page.locator("#detail").is_visible()  # a drag is not a click
    for _ in range(20):
        page.get_by_role("button", name="Zoom in").click()
    assert page.evaluate("view.zoom") == 2000
    page.get_by_role("button", name="Show all").click()
    assert page.evaluate("view") == {"zoom": 1, "x": 0, "y": 0}
    page.get_by_role("button", name="Zoom out").click()
    assert page.evaluate("view.zoom") == 1
    page.evaluate("zoomBy(2), panBy(1e6, -1e6)")  # not beyond the points
    assert page.evaluate("[view.x, view.y]") == [0, -page.evaluate("size.height")]
    page.set_viewport_size({"width": 700, "height": 700})
    page.wait_for_function("() => size.width < 700")
    wait(page)
    assert page.evaluate("canvas.width === Math.round(size.width)")


def test_two_fingers_zoom(open_page):
    page = open_page(
        "?labels=red&labels=green", viewport={"width": 500, "height": 900}, has_touch=True
    )
    box = page.locator("#points").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    touch = page.context.new_cdp_session(page)

    def send(kind, *points):
        points = [{"x": px, "y": py, "id": number} for number, (px, py) in enumerate(points)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    send("touchStart", (x - 30, y), (x + 30, y))
    for step in range(1, 7):
        send("touchMove", (x - 30 - 10 * step, y), (x + 30 + 10 * step, y))
    send("touchEnd")
    assert page.evaluate("view.zoom") == pytest.approx(3, rel=0.25)
    assert not page.locator("#detail").is_visible()


def test_thumbnails_are_drawn_for_few_points(open_page):
    page = open_page("?index=many.index")
    requests = []
    page.on("request", lambda each: requests.append(each.url))
    assert page.evaluate("[plot.row.length, count]") == [MANY, MANY]
    assert page.evaluate("thumbs.size") == 0
    page.evaluate("zoomBy(30, ...at(0))")
    page.wait_for_function("() => count <= THUMBS && thumbs.get(0)?.picture")
    wait(page)
    assert page.evaluate("size.ratio * THUMB") == page.evaluate("thumbs.get(0).picture.width")
    for red, green, blue in colors(page, 0):  # the first image is red
        assert red > 150 > 80 > max(green, blue)
    visible = page.evaluate("count")
    assert page.evaluate("thumbs.size") == visible
    assert sum("/api/rows" in url for url in requests) <= 2
    page.evaluate("fit()")
    wait(page)
    assert (0xA6, 0x3A, 0x14) in colors(page, 0)  # a point again, in the accent colour


# ---- one image -----------------------------------------------------------------------------------


def test_the_pointer_shows_a_name_and_a_click_opens_the_image(open_page):
    page = open_page("?index=many.index")
    page.mouse.move(*position(page, 5))
    tip = page.locator("#tip")
    tip.wait_for()
    number = page.evaluate("current")
    assert tip.inner_text() == f"{number:06}.png"
    image = tip.locator("img")
    page.wait_for_function("image => image.naturalWidth", arg=image.element_handle())
    page.mouse.move(5, 5)
    assert not tip.is_visible()
    page.mouse.click(*position(page, 5))
    page.locator("#detail").wait_for()
    name = page.locator("#detail-name").inner_text()
    assert page.locator("#detail-image").get_attribute("alt") == name
    page.get_by_role("link", name="Search with it").click()
    page.wait_for_selector("#hits li .signs")
    assert page.input_value("#query") == f"image:{name}"
    assert page.locator("#hits .name").first.inner_text() == name
    page.get_by_role("link", name="Projection").click()  # of the same index
    page.wait_for_function(SHOWN)
    assert page.evaluate("plot.index") == "many.index"


# ---- the selection -------------------------------------------------------------------------------


def lasso(page, corners):
    """Draw a line with the mouse through positions in shares of the plot."""
    box = page.locator("#points").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=5)
    page.mouse.up()


def exported(page):
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the list").click()
    return download.value.suggested_filename, Path(download.value.path()).read_text()


RIGHT = [(0.6, 0.02), (0.99, 0.02), (0.99, 0.98), (0.6, 0.98)]
TOP = [(0.01, 0.02), (0.99, 0.02), (0.99, 0.4), (0.01, 0.4)]


def test_a_lasso_exports_the_names(page, place):
    assert page.locator("#selected").inner_text() == "No image is selected."
    assert not page.get_by_role("button", name="Download the list").is_visible()
    page.locator("#modes label").last.click()
    lasso(page, RIGHT)
    red = [name for name in names(place) if "red" in name]
    assert page.locator("#selected").inner_text() == f"{len(red)} images selected"
    assert exported(page) == ("halves.index-selection.txt", "\n".join(red) + "\n")
    page.locator("#strip img").last.wait_for()
    assert page.locator("#strip img").evaluate_all("list => list.map((e) => e.alt)") == red
    page.keyboard.down("Shift")
    lasso(page, TOP)  # in addition
    page.keyboard.up("Shift")
    either = [name for name in names(place) if "red" in name or "green" in name]
    assert exported(page)[1].split() == either
    lasso(page, TOP)  # instead
    assert exported(page)[1].split() == [name for name in names(place) if "green" in name]
    page.get_by_role("button", name="Clear").click()
    assert page.locator("#selected").inner_text() == "No image is selected."
    assert page.locator("#strip li").count() == 0
    page.locator("#modes label").first.click()
    page.keyboard.down("Shift")  # a lasso without changing the mode
    lasso(page, RIGHT)
    page.keyboard.up("Shift")
    assert exported(page)[1].split() == red


def test_a_lasso_of_any_shape(page):
    """Points are within by the even-odd rule, as a plain loop over angles finds."""
    corners = [[100, 100], [400, 120], [250, 200], [420, 380], [90, 300], [200, 210]]
    points = np.random.default_rng(0).uniform(50, 450, (300, 2)).tolist()
    inside = page.evaluate(
        """([corners, points]) => {
          const kept = place;
          place = { x: points.map(([x]) => x), y: points.map(([, y]) => y) };
          const test = within(corners), found = points.map((_, i) => test(i));
          place = kept;
          return found;
        }""",
        [corners, points],
    )
    polygon = np.array(corners, float)
    for point, found in zip(points, inside, strict=True):
        to = polygon - point
        turns = np.roll(to, -1, 0)
        angles = np.arctan2(to[:, 0] * turns[:, 1] - to[:, 1] * turns[:, 0], (to * turns).sum(1))
        assert found == (round(abs(angles.sum()) / (2 * np.pi)) % 2 == 1)


def test_many_names_are_exported(open_page):
    page = open_page("?index=many.index")
    page.get_by_role("button", name="Select what is visible").click()
    assert page.locator("#selected").inner_text() == "700 images selected"
    assert exported(page)[1].split() == [f"{number:06}.png" for number in range(MANY)]
    assert page.locator("#strip img").count() == 16


def test_a_label_of_the_legend_selects_its_images(plain):
    page = plain
    page.get_by_role("button", name="that show green most").click()
    chosen = page.evaluate("chosen()")
    wait(page)
    assert COLORS["green"] in colors(page, chosen[0])
    other = next(i for i in range(12) if i not in chosen)
    assert not colors(page, other) & set(COLORS.values())  # paler
    assert chosen == page.evaluate("[...plot.row].filter((_, i) => plot.group[i] === 1)")
    page.fill("#labels", "red, blue")
    page.keyboard.press("Enter")
    page.wait_for_function("() => plot.labels[1] === 'blue'")
    assert page.evaluate("chosen()") == chosen  # the same images among other labels


# ---- the keyboard --------------------------------------------------------------------------------


def test_everything_works_with_the_keyboard(page, place):
    page.focus("#labels")
    order = []
    while page.evaluate("document.activeElement.id") != "points":
        page.keyboard.press("Tab")
        active = page.locator(":focus")
        order.append(active.evaluate("(e) => e.id || e.ariaLabel || e.innerText"))
        assert active.evaluate("(e) => getComputedStyle(e).outlineWidth") == "3px"
        assert len(order) < 12
    assert order[1:4] == ["method", "diversity", "index"]
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.getElementById('current').textContent")
    first = page.evaluate("current")
    assert first >= 0
    assert page.locator("#current").inner_text() == names(place)[first]
    before = page.evaluate("at(current)")
    while page.evaluate("neighbour(1, 0)") >= 0:
        page.keyboard.press("ArrowRight")
        after = page.evaluate("at(current)")
        assert after[0] > before[0]
        before = after
    page.keyboard.press("Space")
    assert page.locator("#selected").inner_text() == "1 image selected"
    page.wait_for_function(
        "() => document.getElementById('current').textContent.endsWith(', selected')"
    )
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Space")
    assert page.locator("#selected").inner_text() == "2 images selected"
    page.keyboard.press("Space")
    assert page.locator("#selected").inner_text() == "1 image selected"
    page.keyboard.press("Escape")
    assert page.locator("#selected").inner_text() == "No image is selected."
    at = page.evaluate("at(current)")
    page.keyboard.press("+")
    assert page.evaluate("view.zoom") == pytest.approx(1.6)
    assert page.evaluate("at(current)") == pytest.approx(at, abs=40)
    x = page.evaluate("view.x")
    page.keyboard.press("Shift+ArrowLeft")
    assert page.evaluate("view.x") > x or x == 0
    page.keyboard.press("-")
    page.keyboard.press("0")
    assert page.evaluate("view.zoom") == 1
    page.keyboard.press("a")
    assert page.locator("#selected").inner_text() == "12 images selected"
    name = names(place)[page.evaluate("current")]
    page.keyboard.press("Enter")
    page.locator("#detail").wait_for()
    assert page.locator("#detail-name").inner_text() == name
    page.keyboard.press("Escape")
    assert not page.locator("#detail").is_visible()
    assert page.evaluate("document.activeElement.id") == "points"
    page.keyboard.press("Tab")
    assert page.locator(":focus").get_attribute("aria-label") == "Move the view"
    page.keyboard.press("ArrowRight")
    assert page.evaluate("mode()") == "lasso"


def test_arrows_follow_the_view(open_page):
    """The point of the keyboard stays within the window."""
    page = open_page("?index=many.index")
    page.focus("#points")
    page.keyboard.press("ArrowRight")
    for _ in range(4):
        page.keyboard.press("+")
    for key in ("ArrowRight", "ArrowDown") * 12:
        page.keyboard.press(key)
        x, y = page.evaluate("at(current)")
        assert 0 < x < page.evaluate("size.width")
        assert 0 < y < page.evaluate("size.height")


# ---- looks, changes, access ----------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_control_has_a_name_and_every_text_enough_contrast(open_page, scheme):
    page = open_page("?labels=red&labels=green&labels=blue", color_scheme=scheme)
    page.get_by_role("button", name="Select what is visible").click()
    page.locator("#strip img").last.wait_for()
    for box in page.locator("input:visible, button:visible, select:visible, img:visible").all():
        named = "e => e.labels?.length || e.innerText || e.ariaLabel || e.alt !== null"
        assert box.evaluate(named), box
    ratios = page.evaluate(RATIOS)
    assert len(ratios) > 15
    assert [each for each in ratios if each[1] < 4.5] == []
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))
    light = """(colors) => colors.map((text) => channels(text).map((v) => v / 255)
      .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
      .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0))"""
    ground, *points = page.evaluate(
        light, page.evaluate("[palette.panel, palette.grey, palette.accent, ...palette.groups]")
    )
    for each in points:
        assert (max(each, ground) + 0.05) / (min(each, ground) + 0.05) > 2.7


def test_the_scheme_may_change(plain):
    page = plain
    number = page.evaluate("plot.group.indexOf(0)")
    assert COLORS["red"] in colors(page, number)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function("() => palette.groups === DARK && !scheduled")
    assert (0x4A, 0xA8, 0xE8) in colors(page, number)


@pytest.mark.parametrize("width", [320, 700, 1100])
def test_the_page_fits_the_width_of_the_window(open_page, width):
    page = open_page(
        "?labels=red&labels=green&labels=blue", viewport={"width": width, "height": 700}
    )
    page.get_by_role("button", name="Select what is visible").click()
    page.locator("#strip img").last.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    plot, tools = (page.locator(name).bounding_box() for name in ("#plot", "#tools"))
    assert plot["x"] <= tools["x"]
    assert tools["x"] + tools["width"] <= plot["x"] + plot["width"]
    assert page.locator("#points").bounding_box()["height"] > 250


def test_an_index_that_is_written_meanwhile(browser, tmp_path, tmp_path_factory):
    images = collections.copy_images(tmp_path_factory, tmp_path / "photos")
    index = collections.write_many(tmp_path_factory, images, tmp_path, 300)
    with served(None, collections=[collections.collect(tmp_path_factory, index)]) as client:
        page = browser.new_page(reduced_motion="reduce")
        page.goto(f"{client.base_url}/projection")
        page.wait_for_function(SHOWN)
        assert page.evaluate("plot.row.length") == 300
        shutil.rmtree(index)
        shutil.rmtree(tmp_path / "many")
        collections.write_many(tmp_path_factory, images, tmp_path, 200)
        page.get_by_role("button", name="Select what is visible").click()
        page.wait_for_function("() => plot.row.length === 200")
        page.close()


def test_the_page_asks_for_the_token(browser, opened):
    token = "the-right-token" * 2
    with served(None, access=Access(token=token), collections=opened) as client:
        page = browser.new_page(reduced_motion="reduce")
        page.set_default_timeout(15_000)
        page.goto(f"{client.base_url}/projection?labels=red&labels=green")
        page.get_by_role("textbox", name="This service").fill(token)
        page.get_by_role("button", name="Continue").click()
        page.wait_for_function(SHOWN)
        page.get_by_role("button", name="Select what is visible").click()
        image = page.locator("#strip img").first
        page.wait_for_function("image => image.naturalWidth", arg=image.element_handle())
        assert len(exported(page)[1].split()) == 12
        page.close()
