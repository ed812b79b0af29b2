"""Relations as a service: the endpoint, and the page in Chromium by mouse and by keyboard.

The tests of the page are skipped without Playwright or Chromium.
"""

import pytest

from captioner import InputError, RelationClassifier
from captioner.devices import RuntimeOptions
from captioner.models.relation.options import SUPPORTED
from captioner.relation import word_support
from captioner.serving.access import Access
from captioner.serving.loading import load_models
from tests.serving.test_page import CHROMIUM, RATIOS, brightest
from tests.support import collections, relation
from tests.support.service import png, served

pytestmark = pytest.mark.slow
SENTENCE = "It is red. A Green half, of zebras."


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return RelationClassifier.from_pretrained(relation.run(tmp_path_factory), "cpu")


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    """Files of halves, and their index."""
    directory = tmp_path_factory.mktemp("relation-page")
    images = collections.copy_halves(tmp_path_factory, directory / "halves")
    return images, collections.collect_halves(tmp_path_factory, images, directory)


@pytest.fixture(scope="module")
def client(classifier, halves):
    with served(None, collections=[halves[1]], relations=classifier) as client:
        yield client


@pytest.fixture(scope="module")
def image(halves):
    """The bytes of an image with a red left and a green right half."""
    return next(each for each in halves[0] if each.stem.endswith("red-green")).read_bytes()


def test_the_endpoint_answers_as_the_library(client, classifier, halves):
    path = next(each for each in halves[0] if each.stem.endswith("red-green"))
    reply = client.post("/api/relate", params={"text": SENTENCE}, content=path.read_bytes())
    assert reply.status_code == 200
    found, expected = reply.json(), classifier.relate(path, SENTENCE)
    assert [each["label"] for each in found["labels"]] == ["cmi", "sc"]
    for each in found["labels"]:
        own = expected[each["label"]]
        assert each["value"] == own.value
        assert each["expected"] == pytest.approx(own.expected, abs=0.02)
        levels = {level["value"]: level["probability"] for level in each["probabilities"]}
        assert levels == pytest.approx(own.probabilities, abs=0.02)
    assert found["unknown_words"] == list(expected.unknown_words)
    support = word_support(halves[1].linker, path, SENTENCE)
    assert {each["word"]: each["score"] for each in found["words"]} == pytest.approx(
        support, abs=0.02
    )
    assert {"red", "green"} <= set(support)
    for each in found["words"]:
        assert each["supported"] == (each["score"] >= SUPPORTED)
        columns = [sum(column) for column in zip(*each["map"], strict=True)]
        if each["word"] in ("red", "green"):
            assert (columns[0] > columns[-1]) == (each["word"] == "red")


def test_without_a_spatial_model_no_words_are_marked(classifier, image):
    with served(None, relations=classifier) as client:
        assert client.get("/").text == client.get("/relation").text
        assert client.get("/api/indexes").status_code == 404
        health = client.get("/health").json()
        assert (health["has_relations"], health["has_search"]) == (True, False)
        reply = client.post("/api/relate", params={"text": "It is red."}, content=image)
        assert reply.json()["words"] is None


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "text: String should have at least 1"), ("zebra", "at least one known word")],
)
def test_texts_that_cannot_be_related(client, text, message):
    reply = client.post("/api/relate", params={"text": text}, content=png())
    assert reply.status_code == 422
    assert message in reply.json()["detail"]


def test_a_service_of_a_relation_run(tmp_path_factory):
    run = relation.run(tmp_path_factory)
    captioner, opened, loaded = load_models([run], [], RuntimeOptions(device="cpu"))
    assert (captioner, opened) == (None, [])
    assert [head.name for head in loaded.heads] == ["cmi", "sc"]
    with pytest.raises(InputError, match="only one relation model can be served"):
        load_models([run, run], [], RuntimeOptions(device="cpu"))


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("chromium is not on the PATH")
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, client):
    """The page, which must report no error and load from the service alone."""
    opened = browser.new_page(viewport={"width": 1100, "height": 900}, reduced_motion="reduce")
    opened.set_default_timeout(15_000)
    errors, urls, address = [], [], str(client.base_url)
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    opened.on("request", lambda request: urls.append(request.url))
    opened.goto(f"{address}/relation")
    yield opened
    opened.close()
    assert [each for each in errors if "Failed to load" not in each] == []
    assert all(url.startswith((address, "blob:", "data:")) for url in urls)


def ask(page, image, text=SENTENCE):
    page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": image})
    page.get_by_role("textbox", name="Text of one or more sentences").fill(text)
    page.get_by_role("button", name="Relate").click()
    page.wait_for_selector("#labels h2, #problem:not([hidden])")


@pytest.mark.browser
def test_labels_are_listed_with_their_probabilities(page, image, client):
    ask(page, image)
    reply = client.post("/api/relate", params={"text": SENTENCE}, content=image).json()
    titles = page.locator("#labels h2").all_inner_texts()
    for title, each in zip(titles, reply["labels"], strict=True):
        assert title.startswith(f"{each['label']}: {each['value']:g}".replace("-", "−"))
    for each in reply["labels"]:
        rows = page.get_by_role("list", name=f"Probabilities of {each['label']}").locator("li")
        shares = [int(text.split("\n")[-1].split()[0]) for text in rows.all_inner_texts()]
        expected = [100 * level["probability"] for level in each["probabilities"]]
        assert shares == pytest.approx(expected, abs=0.6)
        best = max(each["probabilities"], key=lambda level: level["probability"])["value"]
        marked = rows.locator("xpath=self::*[contains(@class, 'best')]").inner_text()
        assert marked.startswith(f"{best:g}".replace("-", "−"))


@pytest.mark.browser
def test_words_are_marked_and_show_where_they_are(page, image):
    ask(page, image)
    assert page.locator("#read").inner_text() == SENTENCE
    marked = {
        b.inner_text(): "supported" in (b.get_attribute("class") or "")
        for b in page.locator("#read button").all()
    }
    assert marked["red"]
    assert marked["Green"]
    assert "zebras" not in marked
    red = page.get_by_role("button", name="red: supported by the image")
    red.hover()
    assert page.locator("#frame").get_attribute("class") == "frame mapped"
    assert brightest(page)[0] < 0.5
    page.keyboard.press("Tab")
    page.get_by_role("button", name="Green: supported by the image").focus()
    assert brightest(page)[0] > 0.5
    assert page.locator("#hint").inner_text().startswith("Green: probability ")
    page.locator("h1").hover()
    page.keyboard.press("Tab")
    assert page.locator("#frame").get_attribute("class") == "frame"


@pytest.mark.browser
def test_words_of_another_colour_are_not_supported(page, image):
    ask(page, image, "It is blue.")
    page.get_by_role("button", name="blue: not supported by the image").wait_for()


@pytest.mark.browser
def test_problems_are_sentences(page, image):
    page.get_by_role("button", name="Relate").click()
    assert page.locator("#problem").inner_text() == "Choose an image."
    ask(page, image, "zebra")
    assert "at least one known word" in page.locator("#problem").inner_text()
    assert page.locator("#support").is_hidden()
    question = "beam: unknown; did you mean 'beam_size'?"
    assert page.evaluate(f'sentence(new Error("{question}"))') == question.capitalize()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_contrast_and_fits_a_phone(page, image, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 360, "height": 700})
    ask(page, image)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    ratios = page.evaluate(RATIOS)
    assert len(ratios) > 10
    assert [each for each in ratios if each[1] < 4.5] == []


@pytest.mark.browser
def test_the_page_asks_for_the_token(browser, classifier, image):
    token = "the-right-token" * 2
    with served(None, access=Access(token=token), relations=classifier) as client:
        page = browser.new_page()
        page.set_default_timeout(15_000)
        page.goto(f"{client.base_url}/relation")
        ask_first = page.get_by_role("textbox", name="Text of one or more sentences")
        page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": image})
        ask_first.fill("It is red.")
        page.get_by_role("button", name="Relate").click()
        page.get_by_role("textbox", name="This service").fill(token)
        page.get_by_role("button", name="Continue").click()
        page.locator("#labels h2").first.wait_for()
        assert page.locator("#support").is_hidden()
        page.close()
