"""Painted search, labels, maps and projections over HTTP: answers, bounds, errors, access."""

import json
import re

import numpy as np
import pytest

from captioner import Index
from captioner.inference.label_projection import project_labels
from captioner.retrieval.label_axes import strongest
from captioner.retrieval.painting import Layer, parse_layer
from captioner.retrieval.projections import project
from captioner.serving.access import Access
from captioner.serving.collections import Collection
from captioner.serving.schemas import Limits
from captioner.serving.snapshots import unreadable
from captioner.serving.spatial_schemas import MAX_BODY
from tests.support import collections, spatial
from tests.support.service import png, served

pytestmark = pytest.mark.slow
TOKEN = "0123456789abcdef"
LEFT, RIGHT = [[1, 0]], [[0, 1]]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with an index of halves, and one of plain colours without regions."""
    directory = tmp_path_factory.mktemp("spatial")
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
def client(opened):
    limits = Limits(max_bytes=50_000, max_pixels=10_000)
    with served(None, limits, collections=opened) as client:
        yield client


@pytest.fixture(scope="module")
def index(place, opened):
    return Index.open(place / "halves.index", opened[0].linker)


def paint(client, *layers, **fields):
    body = {"layers": [{"word": word, "grid": grid} for word, grid in layers], **fields}
    response = client.post("/api/paint", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def names(answer):
    return [hit["name"] for hit in answer["hits"]]


def colours(name):
    """The colours of the left and of the right half."""
    return name.removesuffix(".png").split("-")[1:]


def test_indexes_say_whether_they_have_regions(client):
    first, second = client.get("/api/indexes").json()["indexes"]
    assert (first["name"], first["has_regions"]) == ("halves.index", True)
    assert set(first["labels"]) == {"red", "green", "blue"}
    assert (second["name"], second["has_regions"], second["labels"]) == ("val.index", False, [])


# ---- painted search ------------------------------------------------------------------------------


def test_hits_are_those_of_the_command(client, index):
    answer = paint(client, ("red", LEFT), ("green", [[0, -1]]), query="blue - 0.5*red", limit=5)
    layers = [parse_layer("red=left"), parse_layer("-green=right")]
    hits = index.paint(layers, "blue - 0.5*red", 5)
    assert names(answer) == [hit.path.split("/")[-1] for hit in hits]
    assert [hit["score"] for hit in answer["hits"]] == [round(hit.score, 4) for hit in hits]
    assert (answer["query"], answer["total"]) == ("blue - 0.5*red", 12)
    assert [term["term"] for term in answer["terms"]] == ["+ blue", "- 0.5*red"]


def test_a_painting_finds_the_half(client):
    answer = paint(client, ("red", LEFT), ("red", [[0, -1]]))
    left, right = colours(answer["hits"][0]["name"])
    assert left == "red" != right
    mirrored = paint(client, ("red", RIGHT), ("red", [[-1, 0]]))
    left, right = colours(mirrored["hits"][0]["name"])
    assert right == "red" != left


def test_grids_of_any_size_are_accepted(client):
    small = paint(client, ("red", LEFT))
    large = paint(client, ("red", np.kron(LEFT, np.ones((32, 16))).tolist()))
    assert names(large) == names(small)
    half = paint(client, ("red", [[0.5, 0]]))  # weights are relative within a layer
    assert half["hits"] == small["hits"]


@pytest.mark.parametrize("query", ["", "- green"])
def test_pages_add_up(client, query):
    whole = paint(client, ("red", LEFT), query=query)
    parts = [
        paint(client, ("red", LEFT), query=query, offset=first, limit=5) for first in (0, 5, 10, 15)
    ]
    assert [hit for part in parts for hit in part["hits"]] == whole["hits"]
    assert len(whole["hits"]) == 12


def test_a_painting_and_images(client, index, place):
    """Images of the index by name, and an uploaded one, are terms with cosines."""
    plain = paint(client, ("red", LEFT))
    name = names(plain)[-1]
    row = index.paths.index(str(place / "halves" / name))
    cosines = np.asarray(index.rows, np.float32) @ np.asarray(index.rows[row], np.float32)
    expected = index.paint_scores([Layer("red", LEFT)]) + 3 * cosines
    answer = paint(client, ("red", LEFT), query=f"3*image:{name}")
    assert [hit["row"] for hit in answer["hits"]] == np.argsort(-expected, kind="stable").tolist()
    content = (place / "halves" / name).read_bytes()
    vector = client.post("/api/search?limit=1", content=content).json()["image"]
    uploaded = paint(client, ("red", LEFT), image=vector)
    alone = paint(client, ("red", LEFT), query=f"image:{name}")
    for first, second in zip(uploaded["hits"], alone["hits"], strict=True):
        assert first["score"] == pytest.approx(second["score"], abs=0.01)


REJECTED = {
    "no layers": ({}, "^layers: Field required"),
    "an empty painting": ({"layers": []}, "^layers: List should have at least 1 item"),
    "nothing painted": ([("red", [[0, 0]])], "^nothing is painted for 'red'; set a cell to 1 or -"),
    "9 layers": ([("red", LEFT)] * 9, "^layers: List should have at most 8 items"),
    "no rows": ([("red", [])], r"^layers\.0\.grid: List should have at least 1 item"),
    "an empty row": ([("red", [[]])], r"^layers\.0\.grid\.0: List should have at least 1 item"),
    "33 rows": ([("red", [[1]] * 33)], r"^layers\.0\.grid: List should have at most 32 items"),
    "33 columns": ([("red", [[1] * 33])], r"^layers\.0\.grid\.0: List should have at most 32 it"),
    "ragged rows": ([("red", [[1, 0], [1]])], "'red' must consist of numbers in rows of equal len"),
    "a flat grid": ([("red", [1])], r"^layers\.0\.grid\.0: Input should be a valid (list|array)"),
    "a large weight": ([("red", [[2]])], r"^layers\.0\.grid\.0\.0: .* less than or equal to 1$"),
    "a word": ([("red", [["x"]])], r"^layers\.0\.grid\.0\.0: Input should be a valid number"),
    "no word": ([("", LEFT)], r"^layers\.0\.word: String should have at least 1 character"),
    "a long word": ([("x" * 201, LEFT)], r"^layers\.0\.word: String should have at most 200 char"),
    "only marks": ([(",", LEFT)], "^a text must contain at least one known word, got ','"),
    "an unknown word": ([("rde", LEFT)], r"^unknown words: 'rde' \(similar: red\); replace them$"),
    "in the query": ({"query": "rde - x"}, r"^unknown words: 'rde' \(similar: red\), 'x' \(no sim"),
    "a wrong query": ({"query": "red +"}, r"^query 'red \+' has nothing to add"),
    "a file": ({"query": "image:/etc/passwd"}, "^image:/etc/passwd is not an image of halves"),
    "a vector": ({"image": "AAA"}, "^image must be the value of 'image' in an earlier response"),
    "another field": ({"paint": 1}, "^paint: Extra inputs are not permitted"),
    "another limit": ({"limit": 201}, "^limit: Input should be less than or equal to 200"),
    "no regions": ({"index": "val.index"}, "^val.index has no region embeddings; choose an index"),
}


@pytest.mark.parametrize("name", REJECTED)
def test_paintings_that_are_refused(client, name):
    given, message = REJECTED[name]
    body = given if isinstance(given, dict) else {"layers": given}
    if isinstance(given, list):
        body = {"layers": [{"word": word, "grid": grid} for word, grid in given]}
    elif name not in ("no layers", "an empty painting"):
        body = {"layers": [{"word": "red", "grid": LEFT}], **given}
    response = client.post("/api/paint", json=body)
    assert response.status_code == 422
    assert list(response.json()) == ["detail"]
    assert re.search(message, response.json()["detail"]), response.text


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (b"", 422, "the body: Invalid JSON: EOF"),
        (b"{", 422, "the body: Invalid JSON: EOF"),
        (b"\xff", 422, "the body: Invalid JSON"),
        (b"[" * 10_000, 422, "the body: Invalid JSON: recursion limit exceeded"),
        (b"[]", 422, "the body: Input should be an object"),
        (b'{"layers": [{"word": "red", "grid": [[NaN]]}]}', 422, "layers.0.grid.0.0: Input should"),
        (b'{"layers": [{"word": "red", "grid": [[1e999]]}]}', 422, "layers.0.grid.0.0: Input shou"),
        (b" " * (MAX_BODY + 1), 413, "the body is too large: at most 262,144 bytes are accepted"),
    ],
)
def test_bodies_that_are_refused(client, content, status, message):
    response = client.post("/api/paint", content=content)
    assert response.status_code == status
    assert response.json()["detail"].startswith(message)
    chunks = client.post("/api/paint", content=iter([content]))  # without a stated length
    assert chunks.json() == response.json()


def test_other_errors_of_paintings(client):
    body = {"layers": [{"word": "red", "grid": LEFT}]}
    assert client.post("/api/paint", json={**body, "index": "x"}).status_code == 404
    assert client.get("/api/paint").status_code == 405
    origin = {"origin": "https://a.example"}
    assert client.post("/api/paint", json=body, headers=origin).status_code == 403
    vector = client.post("/api/search?index=val.index", content=png()).json()["image"]
    other = client.post("/api/paint", json={**body, "image": vector})
    assert other.status_code == 422
    assert other.json()["detail"].startswith("image is a vector of a model other")


def test_an_index_that_another_checkpoint_wrote(tmp_path_factory, tmp_path, caplog):
    """The service was started with one checkpoint, and the index was then written by another."""
    images = collections.copy_halves(tmp_path_factory, tmp_path / "photos")
    collection = collections.collect_halves(tmp_path_factory, images, tmp_path)
    with served(None, collections=[collection]) as client:
        manifest = tmp_path / "halves.index/manifest.json"
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "weights": "other"}))
        body = {"layers": [{"word": "red", "grid": LEFT}]}
        for response in (
            client.post("/api/paint", json=body),
            client.get("/api/projection?labels=red"),
            client.get("/api/rows?rows=0"),
        ):
            assert response.status_code == 500
            assert response.json() == {"detail": unreadable("halves.index")}
    assert "was rewritten with another checkpoint; restart the service" in caplog.text


def test_damaged_regions(tmp_path_factory, tmp_path):
    images = collections.copy_halves(tmp_path_factory, tmp_path / "photos")
    collection = collections.collect_halves(tmp_path_factory, images, tmp_path)
    file = tmp_path / "halves.index/regions-1.bin"
    content = bytearray(file.read_bytes())
    content[:2] = np.float16(np.nan).tobytes()  # the scale of the first region
    file.write_bytes(content)
    with served(None, collections=[collection]) as client:
        body = {"layers": [{"word": "red", "grid": LEFT}]}
        for response in (
            client.post("/api/paint", json=body),
            client.get("/api/projection?labels=red"),
            client.get("/api/projection?diversity=true"),
        ):
            assert response.status_code == 500
            assert response.json() == {"detail": unreadable("halves.index")}


# ---- labels and maps -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photo(place):
    return next((place / "halves").glob("*-red-green.png"))


def test_labels_are_those_of_the_command(client, opened, photo):
    linker = opened[0].linker
    known = list(linker.known_labels.names)
    scores = dict(zip(known, linker.labels(photo, known)[0].tolist(), strict=True))
    answer = client.post("/api/label", content=photo.read_bytes()).json()
    assert {each["label"]: each["score"] for each in answer["labels"]} == pytest.approx(
        scores, abs=1e-3
    )
    assert {each["label"] for each in answer["labels"][:2]} == {"red", "green"}
    given = {"labels": ["blue", "red and green", "red", "blue"], "limit": 2}
    answer = client.post("/api/label", params=given, files={"image": photo.read_bytes()}).json()
    assert {each["label"] for each in answer["labels"]} == {"red", "red and green"}


def test_maps_are_those_of_the_command(client, opened, photo):
    linker = opened[0].linker
    given = {"labels": ["red", "a green half"]}
    unknown = client.post("/api/localize", params=given, content=photo.read_bytes())
    assert unknown.json()["detail"].startswith("unknown words: 'a' (")
    given = {"labels": ["red", "green"]}
    answer = client.post("/api/localize", params=given, content=photo.read_bytes()).json()
    assert [each["label"] for each in answer["labels"]] == ["red", "green"]
    maps = np.array([each["map"] for each in answer["labels"]])
    np.testing.assert_allclose(maps, linker.label_maps(photo, ["red", "green"])[0], atol=1e-3)
    assert answer["offset"] == linker.model.encoder.offset
    red, green = maps
    assert red[:, :4].mean() > 2 * red[:, 4:].mean()
    assert green[:, 4:].mean() > 2 * green[:, :4].mean()


@pytest.mark.parametrize(
    ("path", "given", "status", "message"),
    [
        ("label", {"labels": ["rde"]}, 422, r"^unknown words: 'rde' \(similar: red\); replace"),
        ("label", {"labels": ["x"] * 101}, 422, "^labels: List should have at most 100 items"),
        ("label", {"labels": ["x" * 201]}, 422, r"^labels\.0: String should have at most 200 char"),
        ("label", {"labels": [""]}, 422, r"^labels\.0: String should have at least 1 character"),
        ("label", {"limit": 0}, 422, "^limit: .* greater than or equal to 1"),
        ("label", {"limit": 101}, 422, "^limit: .* less than or equal to 100"),
        ("label", {"top": 1}, 422, "^top: Extra inputs are not permitted"),
        ("label", {"index": "x"}, 404, "^there is no index 'x'"),
        ("label", {"index": "val.index"}, 422, "^the model is not spatial"),
        ("localize", {"index": "val.index", "labels": "red"}, 422, "^the model is not spatial, so"),
        ("localize", {}, 422, "^labels: Field required"),
        ("localize", {"labels": ["red"] * 17}, 422, "^labels: List should have at most 16 items"),
        ("localize", {"labels": ["red", "!"]}, 422, "^a text must contain at least one known wo"),
    ],
)
def test_labels_that_are_refused(client, photo, path, given, status, message):
    response = client.post(f"/api/{path}", params=given, content=photo.read_bytes())
    assert response.status_code == status
    assert list(response.json()) == ["detail"]
    assert re.search(message, response.json()["detail"]), response.text


def test_only_a_few_unknown_words_are_described(client, photo):
    """Similar words are sought for each, which takes a while."""
    text = " ".join(f"word{i:02}" for i in range(20))
    response = client.post("/api/label", params={"labels": text}, content=photo.read_bytes())
    assert response.json()["detail"].endswith(
        "'word07' (no similar word) and 12 more; replace them"
    )


@pytest.mark.parametrize("path", ["/api/label", "/api/localize?labels=red"])
def test_images_that_are_refused(client, path):
    for content, status, message in (
        (b"", 422, "the request contains no image"),
        (b"nothing", 422, "the file: not an image"),
        (b"x" * 50_001, 413, "the image is too large"),
        (png(size=(101, 100)), 422, "101 x 100 pixels exceed the limit"),
    ):
        response = client.post(path, content=content)
        assert response.status_code == status
        assert message in response.json()["detail"]


# ---- projections ---------------------------------------------------------------------------------


def projected(client, **given):
    response = client.get("/api/projection", params=given)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize(
    ("labels", "diversity", "axes"),
    [
        (["red"], False, ["red", "random"]),
        (["red"], True, ["red", "diversity of regions"]),
        ([], True, ["diversity of regions", "random"]),
        (["red", "blue"], False, ["red", "blue"]),
        (["red", "green", "blue"], False, None),
    ],
)
def test_positions_are_those_of_the_command(client, index, labels, diversity, axes):
    answer = projected(client, labels=labels, diversity=diversity)
    plane = project_labels(index, np.arange(12), labels, diversity=diversity, seed=0)
    np.testing.assert_allclose(np.stack([answer["x"], answer["y"]], 1), plane.points, atol=1e-4)
    assert answer["group"] == plane.groups.tolist()
    assert (answer["labels"], answer["axes"]) == (labels, axes)
    assert (answer["row"], answer["rows"]) == (list(range(12)), 12)
    if len(labels) > 2:
        np.testing.assert_allclose(answer["anchors"], plane.meaning.anchors[1], atol=1e-4)
        purest = [answer["group"][i] for i in np.argmin(_distances(answer), 0)]
        assert purest == [0, 1, 2]
    else:
        assert answer["anchors"] is None


def _distances(answer):
    """The distances (N, 3) of all points from the anchors."""
    points = np.stack([answer["x"], answer["y"]], 1)
    return np.linalg.norm(points[:, None] - np.array(answer["anchors"]), axis=2)


def test_principal_components(client, index):
    answer = projected(client, method="pca", labels=["red"])
    expected = project(np.asarray(index.rows, np.float32), "pca")
    np.testing.assert_allclose(np.stack([answer["x"], answer["y"]], 1), expected, atol=1e-4)
    assert answer["group"] == strongest(index.label_scores(["red"])).tolist()
    assert answer["axes"] == ["first principal component", "second principal component"]
    other = projected(client, method="pca", index="val.index")  # needs no regions
    assert (other["group"], other["labels"]) == ([-1] * 7, [])


def test_a_sample_is_always_the_same(client):
    whole = projected(client, labels="red")
    few = projected(client, labels="red", limit=5)
    assert few == projected(client, labels="red", limit=5)
    assert len(few["row"]) == 5
    assert (few["row"], few["rows"]) == (sorted(set(few["row"])), 12)
    assert few["x"] == [whole["x"][row] for row in few["row"]]


@pytest.mark.parametrize(
    ("given", "status", "message"),
    [
        ({}, 422, "^there is nothing to place images by; pass labels, diversity=true or"),
        (
            {"labels": ["red", "blue"], "diversity": True},
            422,
            "^diversity can be an axis only with",
        ),
        ({"method": "pca", "diversity": True}, 422, "^diversity can be an axis only with"),
        ({"method": "tsne"}, 422, "^method: Input should be 'labels' or 'pca', got 'tsne'"),
        ({"labels": ["rde"]}, 422, r"^unknown words: 'rde' \(similar: red\)"),
        ({"labels": ["a"] * 13}, 422, "^labels: List should have at most 12 items"),
        ({"labels": ["red"], "limit": 0}, 422, "^limit: .* greater than or equal to 1"),
        ({"labels": ["red"], "limit": 20_001}, 422, "^limit: .* less than or equal to 20000"),
        ({"labels": ["red"], "seed": 1}, 422, "^seed: Extra inputs are not permitted"),
        ({"labels": ["red"], "index": "val.index"}, 422, "^val.index has no region embeddings"),
        ({"method": "pca", "labels": ["red"], "index": "val.index"}, 422, "^val.index has no regi"),
        ({"diversity": True, "index": "val.index"}, 422, "^val.index has no region embeddings"),
        ({"labels": ["red"], "index": "x"}, 404, "^there is no index 'x'"),
        ({"method": "pca", "limit": 4}, 422, "^projections and groups need at least 5 vectors"),
    ],
)
def test_projections_that_are_refused(client, given, status, message):
    response = client.get("/api/projection", params=given)
    assert response.status_code == status
    assert list(response.json()) == ["detail"]
    assert re.search(message, response.json()["detail"]), response.text


def test_rows_are_hits_without_scores(client):
    found = {hit["row"]: hit for hit in client.get("/api/search").json()["hits"]}
    response = client.get("/api/rows", params={"rows": [7, 2, 7]})
    assert response.json()["hits"] == [found[row] for row in (7, 2, 7)]
    assert response.json()["version"] == client.get("/api/search").json()["version"]
    for rows, status, message in (
        ([3, 12], 404, "row 12 of halves.index does not exist; it has 12 rows, counted from 0"),
        ([-1], 422, "rows.0: Input should be greater than or equal to 0, got '-1'"),
        ([2**40], 422, "rows.0: Input should be less than"),
        ([], 422, "rows: Field required"),
        ([0] * 501, 422, "rows: List should have at most 500 items"),
    ):
        response = client.get("/api/rows", params={"rows": rows})
        assert response.status_code == status
        assert response.json()["detail"].startswith(message)


# ---- access and metrics --------------------------------------------------------------------------

REQUESTS = [
    ("POST", "/api/paint", json.dumps({"layers": [{"word": "red", "grid": LEFT}]})),
    ("POST", "/api/label", png()),
    ("POST", "/api/localize?labels=red", png()),
    ("GET", "/api/projection?labels=red", None),
    ("GET", "/api/rows?rows=0", None),
]


def test_a_token_protects_all_requests(opened):
    with served(None, access=Access(token=TOKEN), collections=opened) as client:
        described = client.get("/openapi.json").json()["paths"]
        for method, path, content in REQUESTS:
            assert client.request(method, path, content=content).status_code == 401
            bearer = {"authorization": f"Bearer {TOKEN}"}
            response = client.request(method, path, content=content, headers=bearer)
            assert response.status_code == 200
            operation = described[path.partition("?")[0]][method.lower()]
            assert operation["security"] == [{"HTTPBearer": []}]
            assert "401" in operation["responses"]


def test_requests_are_counted(opened):
    with served(None, collections=opened) as client:
        for method, path, content in REQUESTS:
            client.request(method, path, content=content)
        client.post("/api/localize", content=png())
        lines = client.get("/metrics").text.splitlines()
    for line in (
        'captioner_search_requests_total{status="200"} 1',
        'captioner_label_requests_total{status="200"} 2',
        'captioner_label_requests_total{status="422"} 1',
        'captioner_projection_requests_total{status="200"} 2',
    ):
        assert line in lines


def test_requests_work_for_a_plain_model_too(tmp_path_factory, place):
    """Without a spatial model, the requests exist and say what is missing."""
    collection = collections.collect(tmp_path_factory, place / "val.index")
    with served(None, collections=[collection]) as client:
        statuses = [client.request(m, p, content=c).status_code for m, p, c in REQUESTS]
    assert statuses == [422, 422, 422, 422, 200]
