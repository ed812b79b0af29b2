"""Search over HTTP: answers, paging, images, errors, access, indexes that change."""

import io
import json
import os
import re
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode

import httpx
import numpy as np
import pytest
from PIL import Image

from captioner import Index
from captioner.errors import InputError
from captioner.inference.indexing import IndexOptions, index_images
from captioner.serving.access import Access
from captioner.serving.collections import Collection, SearchRequest
from captioner.serving.schemas import Limits
from captioner.serving.snapshots import unreadable
from captioner.serving.thumbnails import ThumbnailStore
from captioner.serving.vectors import read_vector, write_vector
from tests.support import collections, linking
from tests.support.service import Stub, png, served

WEIGHTS = "0123456789abcdef" * 4
TOKEN = "0123456789abcdef"
COLOURS = ("red", "green", "blue", "yellow", "purple", "white", "black")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with images and an index of them; tests must not write into it."""
    directory = tmp_path_factory.mktemp("search")
    images = collections.copy_images(tmp_path_factory, directory / "photos")
    collections.write_index(tmp_path_factory, images, directory)
    return directory


@pytest.fixture
def own(tmp_path_factory, tmp_path):
    """The same, for one test to change: the images and the index."""
    images = collections.copy_images(tmp_path_factory, tmp_path / "photos")
    return images, collections.write_index(tmp_path_factory, images, tmp_path)


@pytest.fixture(scope="module")
def shared(place, tmp_path_factory):
    collection = collections.collect(tmp_path_factory, place / "val.index")
    limits = Limits(max_bytes=5000, max_pixels=10_000)
    store = ThumbnailStore(tmp_path_factory.mktemp("thumbnails"), 10**6)
    with served(None, limits, collections=[collection], thumbnails=store) as client:
        yield client
    store.close()


@pytest.fixture
def client(shared):
    return shared


@pytest.fixture
def serve_own(own, tmp_path_factory):
    """A client of a service of the test's own index."""
    with served(None, collections=[collections.collect(tmp_path_factory, own[1])]) as client:
        yield client


def search(client, query="", **parameters):
    response = client.get("/api/search", params={"query": query, **parameters})
    assert response.status_code == 200, response.text
    return response.json()


def names(answer):
    return [hit["name"] for hit in answer["hits"]]


# ---- answers -------------------------------------------------------------------------------------


def test_hits_are_those_of_the_index(client, place):
    answer = search(client, "red   +2*blue- black", limit=4)
    hits = Index.open(place / "val.index", device="cpu").search("red + 2*blue - black", 4)
    assert names(answer) == [os.path.basename(path) for path, _ in hits]
    assert [hit["score"] for hit in answer["hits"]] == [round(score, 4) for _, score in hits]
    assert answer["query"] == "red + 2*blue - black"
    assert [(t["term"], t["kind"], t["weight"]) for t in answer["terms"]] == [
        ("+ red", "text", 1),
        ("+ 2*blue", "text", 2),
        ("- black", "text", -1),
    ]
    assert (answer["index"], answer["kind"], answer["rows"]) == ("val.index", "images", 7)
    assert answer["image"] is None


def test_without_a_query_the_rows_come_in_order(client):
    answer = search(client)
    assert names(answer) == [f"{100 + i}.png" for i in range(7)]
    assert [hit["row"] for hit in answer["hits"]] == list(range(7))
    assert {hit["score"] for hit in answer["hits"]} == {None}
    assert (answer["query"], answer["terms"]) == ("", [])


@pytest.mark.parametrize("query", ["", "red - blue"])
def test_pages_add_up(client, query):
    whole = search(client, query)
    parts = [search(client, query, offset=first, limit=3) for first in range(0, 9, 3)]
    assert [hit for part in parts for hit in part["hits"]] == whole["hits"]
    assert [part["offset"] for part in parts] == [0, 3, 6]
    assert search(client, query, offset=90_000)["hits"] == []


def test_a_hit_is_a_term(client, place, tmp_path_factory):
    """The name of a hit stands for its row, without its file."""
    term = search(client)["hits"][2]["term"]
    assert term == "image:102.png"
    answer = search(client, f"{term} - red")
    rows = Index.open(place / "val.index").rows.astype(np.float64)
    linker, _ = collections.load(linking.run(tmp_path_factory))
    vector = rows[2] / np.linalg.norm(rows[2]) - linker.encode_texts("red")[0]
    best = np.argsort(-(rows @ vector))
    assert [hit["row"] for hit in answer["hits"]][:3] == best[:3].tolist()
    term = answer["terms"][0]
    assert (term["text"], term["kind"]) == ("102.png", "image")
    assert client.get(f"/{term['thumbnail']}").status_code == 200


def test_an_image_finds_its_neighbours(client, place):
    content = (place / "photos/103.png").read_bytes()
    for body in ({"content": content}, {"files": {"image": ("x.png", content)}}):
        answer = client.post("/api/search?limit=3", **body).json()
        assert answer["hits"][0]["name"] == "103.png"
        assert answer["hits"][0]["score"] == pytest.approx(1, abs=2e-3)
        assert (answer["query"], answer["terms"]) == ("", [])
    again = search(client, image=answer["image"], limit=3)
    assert again == answer
    both = client.post("/api/search", params={"query": "- yellow"}, content=content).json()
    assert both["query"] == "- yellow"
    assert both["hits"] == search(client, "- yellow", image=answer["image"])["hits"]
    assert both["hits"][0]["name"] != "103.png"


def test_vectors_as_text():
    vector = np.random.default_rng(0).standard_normal(45)
    vector /= np.linalg.norm(vector)
    text = write_vector(vector, WEIGHTS)
    assert re.fullmatch(r"[\w.-]+", text)
    np.testing.assert_allclose(read_vector(text, WEIGHTS), vector, atol=1e-3)
    assert np.linalg.norm(read_vector(text, WEIGHTS)) == pytest.approx(1, abs=1e-6)
    assert write_vector(read_vector(text, WEIGHTS), WEIGHTS) == text
    with pytest.raises(InputError, match=r"^image is a vector of a model other than the index's"):
        read_vector(text, "f" + WEIGHTS[1:])


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 0])
def test_vectors_that_have_no_direction(client, value):
    vector = np.full(7, value)
    vector[0] = -value
    response = client.get("/api/search", params={"image": write_vector(vector, WEIGHTS)})
    assert response.status_code == 422
    assert response.json()["detail"].startswith("image must be the value of 'image' in an earlier")


def test_a_vector_is_refused_by_an_index_of_another_model(client, place):
    content = (place / "photos/103.png").read_bytes()
    image = client.post("/api/search", content=content).json()["image"]
    assert client.get("/api/search", params={"image": image}).status_code == 200
    short = write_vector(np.ones(3), image)
    response = client.get("/api/search", params={"image": short})
    assert response.status_code == 422
    assert response.json()["detail"].startswith(
        "the image vector has 3 dimensions, but val.index has "
    )
    other = ("0" if image[0] != "0" else "1") + image[1:]
    response = client.get("/api/search", params={"image": other})
    assert response.status_code == 422
    assert response.json()["detail"].startswith("image is a vector of a model other")


def test_names_begin_at_the_working_directory(tmp_path_factory, own, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with served(None, collections=[collections.collect(tmp_path_factory, own[1])]) as client:
        assert names(search(client))[0] == "photos/100.png"
        assert names(search(client, "image:photos/101.png"))[0] == "photos/101.png"


def test_several_indexes(tmp_path_factory, place, own):
    collection = collections.collect(tmp_path_factory, place / "val.index")
    linker, weights = collections.load(linking.run(tmp_path_factory))
    with served(
        None, collections=[collection, Collection("my own", own[1], linker, weights)]
    ) as client:
        assert client.get("/api/indexes").json() == {
            "indexes": [
                {"name": name, "kind": "images", "rows": 7, "has_regions": False, "labels": []}
                for name in ("val.index", "my own")
            ]
        }
        answer = search(client, "red", index="my own")
        assert answer["index"] == "my own"
        assert client.get(f"/{answer['hits'][0]['thumbnail']}").status_code == 200
        assert search(client, "red")["index"] == "val.index"


# ---- errors --------------------------------------------------------------------------------------

ZEROS = write_vector(np.zeros(7), WEIGHTS)
REJECTED = {
    "unknown word": ({"query": "rde"}, 422, r"unknown words: 'rde' \(similar: red\); replace them"),
    "nothing to add": ({"query": "red +"}, 422, r"^query 'red \+' has nothing to add"),
    "cancelled": ({"query": "red - red"}, 422, "the terms of red - red cancel each other"),
    "a file": ({"query": "image:/etc/passwd"}, 422, "image:/etc/passwd is not an image of val"),
    "a url": ({"query": "image:http://localhost/x.tar/a.png"}, 422, "is not an image of val.index"),
    "another image": ({"query": "red - image:no.png"}, 422, "image:no.png is not an image of val"),
    "17 images": (
        {"query": " + ".join(f"image:{i}" for i in range(17))},
        422,
        "^the query contains 17 images; at most 16 are accepted",
    ),
    "other index": ({"query": "red", "index": "x"}, 404, "there is no index 'x'; choose one of: v"),
    "no vector": ({"image": "!"}, 422, "image must be the value of 'image' in an earlier"),
    "odd vector": ({"image": "AAA"}, 422, "image must be the value of 'image' in an earlier"),
    "zero vector": ({"image": ZEROS}, 422, "image must be the value of 'image' in an earlier"),
    "limit 0": ({"limit": 0}, 422, "limit: .* greater than or equal to 1, got '0'"),
    "limit 201": ({"limit": 201}, 422, "limit: .* less than or equal to 200"),
    "offset -1": ({"offset": -1}, 422, "offset: .* greater than or equal to 0"),
    "offset 100000": ({"offset": 100_000}, 422, "offset: .* less than 100000"),
    "long query": ({"query": "x" * 1001}, 422, "query: .* at most 1000 characters"),
    "unknown parameter": ({"q": "red"}, 422, "q: Extra inputs are not permitted"),
}


@pytest.mark.parametrize("name", REJECTED)
def test_errors_are_one_message(client, name):
    parameters, status, message = REJECTED[name]
    response = client.get("/api/search", params=parameters)
    assert response.status_code == status
    assert list(response.json()) == ["detail"]
    assert re.search(message, response.json()["detail"])


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (b"", 422, "the request contains no image"),
        (b"nothing", 422, "the file: not an image in any of the formats"),
        (png()[:45], 422, "the file: cannot be"),
        (
            b"x" * 5001,
            413,
            "the image is too large: at most 5,000 bytes are accepted; send a",
        ),
        (png(size=(101, 100)), 422, "101 x 100 pixels exceed the limit"),
    ],
)
def test_errors_of_images(client, content, status, message):
    response = client.post("/api/search", content=content)
    assert response.status_code == status
    assert message in response.json()["detail"]
    image = client.post("/api/search?image=AAA", content=png())  # the body is the image
    assert image.json()["detail"] == "image: Extra inputs are not permitted, got 'AAA'"


def test_pages_of_other_sites_cannot_send_images(client):
    response = client.post("/api/search", content=png(), headers={"origin": "https://a.example"})
    assert response.status_code == 403
    assert client.get("/api/search", headers={"host": "a.example"}).status_code == 421


def test_without_a_captioner_there_is_no_caption(client):
    assert client.post("/api/caption", content=png()).status_code == 404
    assert client.get("/caption").status_code == 404
    health = client.get("/health").json()
    assert (health["has_captions"], health["has_attention"], health["has_search"]) == (
        False,
        False,
        True,
    )
    assert "/api/caption" not in client.get("/openapi.json").json()["paths"]
    assert client.get("/").text == client.get("/search").text


def test_a_captioner_and_an_index_together(tmp_path_factory, place):
    collection = collections.collect(tmp_path_factory, place / "val.index")
    with served(Stub(), collections=[collection]) as client:
        assert client.post("/api/caption", content=png()).status_code == 200
        assert names(search(client, "red", limit=1)) == ["100.png"]
        pages = {path: client.get(path).text for path in ("/", "/search", "/caption")}
        assert pages["/"] == pages["/search"] != pages["/caption"]
        assert all(client.get("/health").json()[f"has_{it}"] for it in ("captions", "search"))
    with served(Stub()) as client:
        assert client.get("/search").status_code == 404
        assert client.get("/api/search").status_code == 404


# ---- access --------------------------------------------------------------------------------------


def test_a_token_protects_searches_and_thumbnails(tmp_path_factory, place):
    collection = collections.collect(tmp_path_factory, place / "val.index")
    with served(None, access=Access(token=TOKEN), collections=[collection]) as client:
        for path in ("/api/search", "/api/indexes", "/api/thumbnails/val.index/0"):
            assert client.get(path).status_code == 401
        assert client.post("/api/search", content=png()).status_code == 401
        bearer = {"authorization": f"Bearer {TOKEN}"}
        hits = client.get("/api/search", headers=bearer).json()["hits"]
        assert TOKEN not in str(hits)
        first, second = (httpx.URL(hit["thumbnail"]) for hit in hits[:2])
        key = first.params["key"]
        assert client.get(f"/{first}").status_code == 200  # the address alone, as in an <img>
        for other in (
            first.copy_set_param("key", key[:-1] + ("0" if key[-1] != "0" else "1")),
            first.copy_set_param("key", "ü"),
            first.copy_set_param("version", "x"),
            second.copy_set_param("key", key),
            first.copy_with(path="api/thumbnails/val.index/1"),
        ):
            response = client.get(f"/{other}")
            assert response.status_code == 401
            assert response.json()["detail"].startswith("a token is required")
        path = "/api/thumbnails/val.index/1"
        assert client.get(path, headers=bearer).status_code == 200
        described = client.get("/openapi.json").json()["paths"]
        assert described["/api/search"]["get"]["security"] == [{"HTTPBearer": []}]


# ---- thumbnails ----------------------------------------------------------------------------------


def thumbnail(client, number=0):
    """The response with the thumbnail of a row."""
    return client.get(f"/{search(client)['hits'][number]['thumbnail']}")


def test_thumbnails_are_small_jpegs(client):
    response = thumbnail(client)
    assert response.status_code == 200
    assert response.headers["content-type"] == "image/jpeg"
    assert response.headers["cache-control"] == "private, max-age=31536000, immutable"
    with Image.open(io.BytesIO(response.content)) as image:
        assert (image.format, image.size) == ("JPEG", (36, 24))
        assert not image.getexif()
        red, green, _ = image.getpixel((18, 12))
    assert red > 2 * green
    tag = {"if-none-match": response.headers["etag"]}
    again = client.get(f"/{search(client)['hits'][0]['thumbnail']}", headers=tag)
    assert (again.status_code, again.content) == (304, b"")
    bare = client.get("/api/thumbnails/val.index/0")
    assert bare.content == response.content
    assert bare.headers["cache-control"] == "private, no-cache"
    assert client.get("/api/search").headers["cache-control"] == "no-store"


def test_large_images_are_reduced_and_upright(tmp_path_factory, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate clockwise
    exif[0x010F] = "secret camera"
    pixels = np.zeros((300, 900, 3), np.uint8)
    pixels[:, :450] = (250, 0, 0)
    (tmp_path / "photos").mkdir()
    Image.fromarray(pixels).save(tmp_path / "photos/a.jpg", exif=exif)
    index = collections.write_index(tmp_path_factory, [tmp_path / "photos"], tmp_path)
    with served(None, collections=[collections.collect(tmp_path_factory, index)]) as client:
        content = thumbnail(client).content
    assert b"secret" not in content
    with Image.open(io.BytesIO(content)) as image:
        assert image.size == (107, 320)
        assert image.getpixel((50, 40))[0] > 200  # the left became the top
        assert image.getpixel((50, 280))[0] < 50


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("val.index/7", 404, "the index val.index has no image in row 7"),
        ("val.index/-1", 422, "row: .* greater than or equal to 0"),
        ("val.index/x", 422, "row: .*integer.*got 'x'"),
        ("val.index/" + "9" * 50, 422, "row: "),
        ("other/0", 404, "there is no index 'other'"),
        ("val.index/0?version=x", 404, "the index val.index has changed; search again"),
        ("val.index/0?size=9", 422, "size: Extra inputs are not permitted"),
        ("..%2f..%2fetc/0", 404, "there is no index|Not Found"),
    ],
)
def test_thumbnails_that_do_not_exist(client, path, status, message):
    response = client.get(f"/api/thumbnails/{path}")
    assert response.status_code == status
    assert re.search(message, response.json()["detail"])


def test_missing_and_broken_files_have_a_reason(own, serve_own, caplog):
    images, _ = own
    images[0].unlink()
    images[1].write_bytes(images[1].read_bytes()[:60])
    images[2].write_bytes(b"")
    reasons = [thumbnail(serve_own, number) for number in range(3)]
    assert [each.status_code for each in reasons] == [404] * 3
    texts = [each.json()["detail"] for each in reasons]
    assert texts == [f"{100 + number}.png cannot be read" for number in range(3)]
    for reason in ("no such file", "cannot be decoded", "the file is empty"):
        assert reason in caplog.text
    assert "immutable" not in reasons[0].headers["cache-control"]
    assert thumbnail(serve_own, 3).status_code == 200


# ---- indexes that change -------------------------------------------------------------------------


def test_an_index_that_is_written_meanwhile(own, serve_own, tmp_path_factory, tmp_path):
    images, _ = own
    before = search(serve_own, "red")
    old = search(serve_own)["hits"][0]["thumbnail"]
    images[0].unlink()
    collections.write_index(tmp_path_factory, [images[1].parent], tmp_path)
    after = search(serve_own, "red")
    assert after["version"] != before["version"]
    assert (before["rows"], after["rows"]) == (7, 6)
    assert set(names(before)) - set(names(after)) == {"100.png"}
    response = serve_own.get(f"/{old}")  # row 0 is another image now
    assert (response.status_code, response.json()["detail"]) == (
        404,
        "the index val.index has changed; search again",
    )
    assert search(serve_own)["version"] == after["version"]


def test_an_index_that_becomes_unusable(own, serve_own, tmp_path_factory, caplog):
    images, index = own
    manifest = index / "manifest.json"
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**content, "weights": "other"}))
    for path in ("/api/search?query=red", "/api/search"):
        response = serve_own.get(path)
        assert response.status_code == 500
        assert response.json() == {"detail": unreadable("val.index")}
    assert "was rewritten with another checkpoint; restart the service" in caplog.text
    shutil.rmtree(index)
    for path in ("/api/search", "/api/thumbnails/val.index/0", "/api/indexes"):
        response = serve_own.get(path)
        assert response.status_code == 500
        assert str(index) not in response.text
    index_images(
        linking.run(tmp_path_factory),
        list(map(str, images)),
        index,
        IndexOptions(cache=tmp_path_factory.getbasetemp() / "cache", workers=0, device="cpu"),
    )
    assert len(search(serve_own, "red")["hits"]) == 7  # it recovers


def test_damaged_rows(own, serve_own):
    rows = own[1] / "rows-1.npy"
    content = bytearray(rows.read_bytes())
    content[-2:] = np.float16(np.nan).tobytes()
    rows.write_bytes(content)
    response = serve_own.get("/api/search?query=red")
    assert (response.status_code, response.json()) == (
        500,
        {"detail": unreadable("val.index")},
    )


DAMAGED = {
    "not JSON": lambda line: b"x" * (len(line) - 1) + b"\n",
    "no image": lambda line: line.replace(b'"image"', b'"imago"'),
    "not UTF-8": lambda line: line.replace(b".png", b"\xff\xff\xff\xff"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_lines_are_not_the_fault_of_the_query(own, serve_own, damage, caplog):
    """Unlike an invalid query; the path of the index is only in the log."""
    lines = own[1] / "images-1.jsonl"
    content = lines.read_bytes().splitlines(keepends=True)
    content[3] = DAMAGED[damage](content[3])
    lines.write_bytes(b"".join(content))
    for query in ("red", "image:103.png", ""):
        response = serve_own.get("/api/search", params={"query": query})
        unknown = query.startswith("image:")
        assert response.status_code == (422 if unknown else 500)
        if not unknown:
            assert response.json() == {"detail": unreadable("val.index")}
    assert str(lines) in caplog.text
    response = serve_own.get("/api/thumbnails/val.index/3")
    assert response.status_code == 500
    assert response.json() == {"detail": unreadable("val.index")}
    assert serve_own.get("/api/search?query=rde").status_code == 422


def test_a_file_of_lines_that_is_shorter(own, serve_own):
    lines = own[1] / "images-1.jsonl"
    os.truncate(lines, lines.stat().st_size // 2)
    for query in ("red", "image:106.png", "image:none"):
        response = serve_own.get("/api/search", params={"query": query})
        assert response.status_code == 500
        assert response.json() == {"detail": unreadable("val.index")}


def test_a_damaged_row_in_a_query(own, serve_own):
    rows = own[1] / "rows-1.npy"
    content = bytearray(rows.read_bytes())
    content[-2:] = np.float16(np.inf).tobytes()
    rows.write_bytes(content)
    response = serve_own.get("/api/search?query=image:106.png")
    assert response.status_code == 500
    assert response.json() == {"detail": unreadable("val.index")}


class Rewritten(Collection):
    """A collection whose index is written again, once, after it was opened for a request."""

    rewrite = None

    def read(self, work):
        def late(snapshot):
            if self.rewrite:
                rewrite, self.rewrite = self.rewrite, None
                rewrite()
            return work(snapshot)

        return super().read(late)


@pytest.mark.parametrize("path", ["/api/thumbnails/val.index/0", "/api/search?query=red"])
def test_requests_are_answered_while_an_index_is_written(own, path, tmp_path_factory):
    images, index = own
    opened = collections.collect(tmp_path_factory, index)
    collection = Rewritten("val.index", index, opened.linker, opened.weights)

    def rewrite():
        images[-1].unlink()
        collections.write_index(tmp_path_factory, [images[0].parent], index.parent)
        assert not (index / "images-1.jsonl").exists()

    with served(None, collections=[collection]) as client:
        collection.rewrite = rewrite
        assert client.get(path).status_code == 200
        assert collection.rewrite is None


def test_each_image_of_a_query_is_looked_up_once(place, tmp_path_factory, monkeypatch):
    collection = collections.collect(tmp_path_factory, place / "val.index")
    files, looked_up = collection.snapshot().files, []

    def find(item):
        looked_up.append(os.path.basename(item))
        return type(files).find(files, item)

    monkeypatch.setitem(vars(files), "find", find)
    query = "image:100.png - 0.5*image:101.png + 2*image:100.png"
    answer = collection.search(SearchRequest(query), lambda row, _: str(row))
    assert [term["thumbnail"] for term in answer["terms"]] == ["0", "1", "0"]
    assert sorted(looked_up) == ["100.png", "101.png"]


def test_an_empty_index(tmp_path_factory, own, serve_own):
    images, index = own
    for image in images[1:]:
        image.unlink()
    collections.write_index(tmp_path_factory, [images[0]], index.parent)
    images[0].unlink()
    with pytest.raises(InputError):
        collections.write_index(tmp_path_factory, [images[0]], index.parent)
    answer = search(serve_own, "red")
    assert (answer["rows"], answer["hits"]) == (0, [])
    assert search(serve_own)["hits"] == []


# ---- limits and metrics --------------------------------------------------------------------------


class Slow(Collection):
    """A collection whose searches wait until they may go on."""

    def __init__(self, collection):
        super().__init__("slow", collection._directory, collection.linker, collection.weights)
        self.busy, self.go = threading.Event(), threading.Event()

    def search(self, request, sign):
        self.busy.set()
        assert self.go.wait(10)
        return super().search(request, sign)


@pytest.fixture
def slow(tmp_path_factory, place):
    return Slow(collections.collect(tmp_path_factory, place / "val.index"))


def test_a_full_queue_rejects_searches_and_recovers(slow):
    limits = Limits(queue=2)
    with served(None, limits, collections=[slow]) as client, ThreadPoolExecutor(2) as pool:
        held = [pool.submit(client.get, "/api/search?query=red") for _ in range(2)]
        until = time.monotonic() + 10
        while "captioner_unanswered 2" not in client.get("/metrics").text:
            assert time.monotonic() < until
        for method, content in (("GET", None), ("POST", png())):
            response = client.request(method, "/api/search", content=content)
            assert response.status_code == 429
            assert response.headers["retry-after"] == "1"
        slow.go.set()
        assert [each.result().status_code for each in held] == [200] * 2
        assert client.get("/api/search?query=red").status_code == 200


def test_the_time_limit_of_a_search(slow):
    with served(None, Limits(timeout=0.3), collections=[slow]) as client:
        response = client.get("/api/search?query=red")
        assert response.status_code == 504
        assert response.json()["detail"] == "the request took longer than 0.3 seconds; try again"
        slow.go.set()


def test_stopping_answers_pending_searches(slow):
    with served(None, collections=[slow]) as client, ThreadPoolExecutor(1) as pool:
        held = pool.submit(client.get, "/api/search?query=red")
        assert slow.busy.wait(10)
        client.server.config.app.state.close()
        assert client.get("/api/search").status_code == 503
        assert client.get("/health").status_code == 503
        slow.go.set()
        assert held.result(10).status_code == 200


def test_metrics_of_searches(tmp_path_factory, place):
    collection = collections.collect(tmp_path_factory, place / "val.index")
    with served(None, collections=[collection]) as client:
        search(client, "red")
        client.get("/api/search?query=rde")
        thumbnail(client)
        client.get("/api/thumbnails/val.index/99")
        lines = client.get("/metrics").text.splitlines()
    for line in (
        'captioner_search_requests_total{status="200"} 2',
        'captioner_search_requests_total{status="422"} 1',
        'captioner_thumbnail_requests_total{status="200"} 1',
        'captioner_thumbnail_requests_total{status="404"} 1',
        "captioner_search_request_seconds_count 2",
        "captioner_waiting 0",
    ):
        assert line in lines
    for line in lines:
        assert re.fullmatch(r"# (HELP|TYPE) \w+ .+|\w+(\{\w+=\"[^\"]+\"\})? [\d.]+", line), line


def test_searches_of_many_clients(client):
    queries = [f"{a} - {b}" for a in COLOURS for b in COLOURS if a != b]
    alone = [search(client, query) for query in queries]
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lambda query: search(client, query), queries)) == alone


def test_queries_survive_addresses(client):
    """What a browser writes into an address is the query that is understood."""
    response = client.get(f"/api/search?{urlencode({'query': '“red” − 0.5*blue'})}")
    assert response.json()["query"] == "red - 0.5*blue"
