"""Search in an index of texts: hits that are sentences, in the API and on the page."""

import pytest

from captioner.retrieval.index_writer import open_writer
from tests.serving.test_page import CHROMIUM
from tests.support import collections, linking
from tests.support.service import served

TEXTS = ("red and nothing else", "blue is all one sees here", 'green "and" nothing - else')


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A collection of images and one of texts, with one linker."""
    directory = tmp_path_factory.mktemp("texts")
    images = collections.copy_images(tmp_path_factory, directory / "photos")
    index = collections.write_index(tmp_path_factory, images, directory)
    linker, weights = collections.load(linking.run(tmp_path_factory))
    rows, _ = linker.encode_texts(TEXTS, on_unknown="return")
    with open_writer(
        directory / "texts.index", "RUN", weights, rows.shape[1], kind="texts"
    ) as writer:
        writer.append(rows, ({"text": text, "source": "a.txt"} for text in TEXTS))
        writer.finish([])
    return [
        collections.collect(tmp_path_factory, path) for path in (index, directory / "texts.index")
    ]


def test_texts_are_hits_and_terms(opened):
    with served(None, collections=opened) as client:
        kinds = [each["kind"] for each in client.get("/api/indexes").json()["indexes"]]
        assert kinds == ["images", "texts"]
        given = {"index": "texts.index", "query": "blue"}
        answer = client.get("/api/search", params=given).json()
        first = answer["hits"][0]
        assert (answer["kind"], first["kind"], first["text"]) == ("texts", "text", TEXTS[1])
        assert (first["name"], first["thumbnail"]) == (None, None)
        for text in client.get("/api/search", params={"index": "texts.index"}).json()["hits"][:2]:
            again = client.get("/api/search", params=given | {"query": text["term"]}).json()
            assert again["hits"][0] == text | {"score": pytest.approx(1, abs=1e-3)}
        response = client.get("/api/thumbnails/texts.index/0")
        assert response.status_code == 404
        assert response.json()["detail"] == "the index texts.index has no image in row 0"
        response = client.get("/api/search", params=given | {"query": "image:a.png"})
        assert "image:a.png is not an image of texts.index" in response.json()["detail"]
        image = client.get(f"/{client.get('/api/search').json()['hits'][0]['thumbnail']}").content
        answer = client.post("/api/search?index=texts.index", content=image).json()
        assert answer["hits"][0]["text"] == TEXTS[0]


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not on the PATH")
def test_texts_on_the_page(opened):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    photo = next(iter(opened[0].snapshot().files.entries([0])))["image"]
    with served(None, collections=opened) as client, playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1100, "height": 800}, reduced_motion="reduce")
        page.goto(str(client.base_url))
        page.wait_for_selector("#hits li .signs")
        page.set_input_files("#file", photo)
        page.locator("#nearest li").first.wait_for()
        assert page.locator("#nearest li").first.inner_text().startswith(TEXTS[0])
        page.get_by_label("Index").select_option("texts.index")
        page.get_by_role("button", name=f"Subtract {TEXTS[0]} from the query").click()
        page.wait_for_function("() => document.querySelectorAll('#terms li').length === 2")
        assert page.input_value("#query") == f"- {TEXTS[0]}"
        assert page.locator("#hits li").first.inner_text() != TEXTS[0]
        assert page.locator("#summary").inner_text() == "3 texts, best first"
        assert not page.locator("#nearest").is_visible()
        chromium.close()
