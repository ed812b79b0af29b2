"""A thousand requests drawn from the service's own description, valid and invalid."""

import json
import random
from types import SimpleNamespace
from urllib.parse import quote, urlencode

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from captioner import Captioner
from captioner.data.images import Transform
from captioner.decoding.options import DecodingOptions
from captioner.errors import InputError
from captioner.serving.access import Access
from captioner.serving.app import create_app
from captioner.serving.schemas import Limits
from captioner.serving.vectors import write_vector
from captioner.text.vocabulary import Vocabulary
from tests.support import collections
from tests.support.service import Stub, png, served
from tests.support.words import WORDS

LIMITS = Limits(max_bytes=5000, max_pixels=10_000)
NAMED = SimpleNamespace(name="val.index")  # all that the description needs of a collection
API = json.loads(json.dumps(create_app(Stub(), LIMITS, Access(), [NAMED]).openapi()))
BODIES = (  # whether each is an image that the service accepts
    (b"", False),
    (b"not an image", False),
    (png()[:45], False),
    (b"x" * 5001, False),
    (b"x" * 90_000, False),
    (png(size=(200, 100)), False),
    *((png(size=size), True) for size in ((1, 1), (8, 8), (100, 100))),
)
TYPES = ("image/png", "text/plain", "application/json", "", ";", "image/*; charset=\x7f")
FORMS = ("multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=x")


def values(schema):
    """Strategies of the valid and of the invalid values of a parameter."""
    if schema["type"] == "string" and "enum" not in schema:
        most = schema["maxLength"]
        longer = st.integers(most + 1, most + 9).map("x".__mul__)
        return st.text(max_size=min(most, 100)), longer
    if "enum" in schema:
        return st.sampled_from(schema["enum"]), st.sampled_from(["", "guess", "BEAM "])
    if schema["type"] == "boolean":
        return st.sampled_from(["true", "false"]), st.sampled_from(["", "2", "perhaps"])
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum", 10**40 + 1) - 1)
    wrong = st.sampled_from(["", "two", "nan", "inf", "-inf", "1e999", "null", "0x1", "9" * 5000])
    if schema["type"] == "integer":
        # Captions are short, so small numbers are of interest.
        valid = st.integers(low, min(high, low + 5)) | st.integers(low, high)
        outside = st.integers(max_value=low - 1) | st.integers(min_value=high + 1)
        if high == 10**40:
            outside = st.integers(max_value=low - 1)
        return valid, wrong | outside | st.just("1.5")
    valid = st.floats(low, high, exclude_min="exclusiveMinimum" in schema)
    outside = st.floats(max_value=low, exclude_max="minimum" in schema)
    return valid, wrong | outside | st.floats(min_value=high, exclude_min=True)


@st.composite
def queries(draw):
    """Parameters, and whether the description calls each of them valid."""
    query, valid = {}, True
    parameters = API["paths"]["/api/caption"]["post"]["parameters"]
    broken = draw(st.booleans())
    names = draw(st.sets(st.sampled_from(range(len(parameters))), max_size=4))
    for parameter in (parameters[number] for number in sorted(names)):
        good, bad = values(parameter["schema"])
        wrong = broken and draw(st.booleans())
        query[parameter["name"]] = draw(bad if wrong else good)
        valid = valid and not wrong
    if broken and draw(st.booleans()):
        name = draw(st.text(min_size=1, max_size=8))
        if name not in {each["name"] for each in parameters}:
            query[name], valid = draw(st.text(max_size=20)), False
    return query, valid


@st.composite
def requests(draw):
    """Method, path, query, content and headers, and the statuses that may answer them."""
    path = draw(st.sampled_from(["/api/caption"] * 6 + ["/health", "/metrics", "/openapi.json"]))
    method = "POST" if path == "/api/caption" else "GET"
    if draw(st.integers(0, 9)) == 0:
        method = draw(st.sampled_from(["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "POST", "X"]))
    query, valid = draw(queries())
    content, is_image = draw(st.sampled_from(BODIES))
    is_form = draw(st.integers(0, 5)) == 0
    headers = {"content-type": draw(st.sampled_from(FORMS if is_form else TYPES))}
    if path != "/api/caption":
        expected = {200} if method in ("GET", "HEAD") else {405}
    elif method != "POST":
        expected = {405}
    elif not valid or not consistent(query):
        expected = {422}
    elif is_form:  # none is well-formed
        expected = {413, 422}
    else:
        expected = {200} if is_image else {413, 422}
    return method, path, query, content, headers, expected


def consistent(query):
    """Whether the library accepts valid values together."""
    try:
        DecodingOptions(**{k: v == "true" if k == "allow_unknown" else v for k, v in query.items()})
    except InputError:
        return False
    return True


def mismatches(value, schema):
    """Where a JSON value differs from its schema."""
    if "$ref" in schema:
        return mismatches(value, API["components"]["schemas"][schema["$ref"].split("/")[-1]])
    if "anyOf" in schema:
        found = [mismatches(value, each) for each in schema["anyOf"]]
        return [] if [] in found else found[0]
    kinds = {
        **{"object": dict, "array": list, "string": str, "integer": int, "boolean": bool},
        **{"number": int | float, "null": type(None)},
    }
    if "type" in schema and not isinstance(value, kinds[schema["type"]]):
        return [(value, schema)]
    if value not in schema.get("enum", [value]):
        return [(value, schema)]
    if isinstance(value, list):
        return [bad for each in value for bad in mismatches(each, schema["items"])]
    if isinstance(value, dict):
        properties = schema["properties"]
        names = value.keys() - properties.keys() | set(schema.get("required", ())) - value.keys()
        inner = (mismatches(value[name], properties[name]) for name in value.keys() - names)
        return [*names, *(bad for found in inner for bad in found)]
    return []


def test_differences_from_a_schema_are_found():
    schema = {"$ref": "#/components/schemas/Answer"}
    assert mismatches({"detail": "x"}, {"$ref": "#/components/schemas/Error"}) == []
    assert mismatches({"detail": 1}, {"$ref": "#/components/schemas/Error"}) != []
    assert set(mismatches({"detail": "x"}, schema)) > {"detail", "caption", "words"}


def check(response, method, path, expected):
    """A response has an expected status, and the content that the description gives for it."""
    assert response.status_code in expected
    assert "content-security-policy" in response.headers
    if method == "HEAD":
        return
    if response.status_code == 405:
        assert response.json() == {"detail": "Method Not Allowed"}
    elif path in API["paths"]:
        described = API["paths"][path][method.lower()]["responses"][str(response.status_code)]
        kind = response.headers["content-type"].partition(";")[0]
        schema = described["content"][kind]["schema"]
        value = response.text if kind == "text/plain" else response.json()
        assert mismatches(value, schema) == []


@pytest.mark.slow
def test_a_thousand_requests_are_answered_as_described(tiny_model):
    captioner = Captioner(tiny_model(attention=True), Vocabulary(WORDS), Transform(32), "float32")
    counts = dict.fromkeys((200, 405, 413, 422), 0)
    with served(captioner, LIMITS) as client:

        @settings(
            max_examples=1000,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(requests())
        def answered(request):
            method, path, query, content, headers, expected = request
            url = f"{path}?{urlencode(query)}"
            response = client.request(method, url, content=content, headers=headers)
            check(response, method, path, expected)
            counts[response.status_code] += 1

        answered()
        assert httpx.get(f"{client.base_url}/health").status_code == 200
    assert sum(counts.values()) >= 1000
    assert min(counts.values()) > 10, counts


# ---- search --------------------------------------------------------------------------------------

PIECES = (
    "red",
    "blue",
    "rde",
    "+",
    "-",
    "2*",
    "0*",
    '"',
    "image:100.png",
    "image:x",
    "(",
    "−",
    " ",
)
THUMBNAIL = "/api/thumbnails/{index}/{row}"


@st.composite
def searches(draw):
    """Method, path, its template, query, content, and the statuses that may answer them."""
    method, template = draw(
        st.sampled_from(
            [("GET", "/api/search"), ("POST", "/api/search"), ("GET", THUMBNAIL)] * 3
            + [("GET", "/api/indexes"), ("PUT", "/api/search"), ("POST", THUMBNAIL)]
        )
    )
    described = API["paths"][template].get(method.lower(), {"parameters": []})
    query, valid, known = {}, True, {200, 422}
    names = {"index": "val.index", "row": "0"}
    for parameter in described.get("parameters", []):
        if not parameter["required"] and draw(st.booleans()):
            continue
        name, (good, bad) = parameter["name"], values(parameter["schema"])
        likely = {
            "query": st.lists(st.sampled_from(PIECES)).map(" ".join),
            "index": st.sampled_from(["", "val.index"]) if parameter["in"] == "query" else None,
            "image": st.sampled_from(["", "AAA", VECTOR]),
            "row": st.integers(0, 9),
        }.get(name)
        good = good if likely is None else likely | good
        wrong = draw(st.integers(0, 9)) == 0
        value = draw(bad if wrong else good)
        valid = valid and not wrong
        if parameter["in"] == "path":
            names[name] = quote(str(value), safe="")
        else:
            query[name] = value
    content, is_image = draw(st.sampled_from(BODIES)) if method == "POST" else (b"", True)
    path = template.format(**names)
    if method not in {each.upper() for each in API["paths"][template]}:
        known = {405}
    elif template == "/api/indexes":
        known = {200}
    elif not valid:
        known = {404, 422}  # a row that is too long is not a path
    elif not is_image:
        known = {404, 413, 422}
    else:  # rows, indexes and versions that do not exist; words that are not known
        known = {200, 404, 422}
    return method, path, template, query, content, known


VECTOR = ""


@pytest.mark.slow
def test_hundreds_of_searches_are_answered_as_described(tmp_path_factory, tmp_path, monkeypatch):
    images = collections.copy_images(tmp_path_factory, tmp_path / "photos")
    images[0].write_bytes(b"")
    index = collections.write_index(tmp_path_factory, images[1:], tmp_path)
    collection = collections.collect(tmp_path_factory, index)
    size = collection.linker.model.dimensions
    vector = collection.linker.encode_texts("red")[0]
    monkeypatch.setitem(globals(), "VECTOR", write_vector(vector, collection.weights))
    assert len(VECTOR) > size
    images[1].unlink()
    counts = dict.fromkeys((200, 404, 405, 413, 422), 0)
    with served(None, LIMITS, collections=[collection]) as client:

        @settings(
            max_examples=600,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(searches())
        def answered(request):
            method, path, template, query, content, expected = request
            url = f"{path}?{urlencode(query, errors='replace')}"
            response = client.request(method, url, content=content)
            assert response.status_code in expected, (url, response.text)
            counts[response.status_code] += 1
            if response.headers["content-type"] == "image/jpeg":
                assert response.content.startswith(b"\xff\xd8")
            elif response.headers["content-type"] == "application/json" and template in path:
                check(response, method, path, expected)
            else:
                assert list(response.json()) == ["detail"]

        answered()
        assert httpx.get(f"{client.base_url}/health").status_code == 200
    assert min(counts.values()) > 5, counts


# ---- spatial models ------------------------------------------------------------------------------

PAINTING = API["paths"]["/api/paint"]["post"]["requestBody"]["content"]["application/json"]


@st.composite
def grids(draw, schema):
    """A grid of a size and of weights that the description allows."""
    rows, columns = schema["items"], schema["items"]["items"]
    height = draw(st.integers(schema["minItems"], schema["maxItems"]))
    width = draw(st.integers(rows["minItems"], rows["maxItems"]))
    rng = random.Random(draw(st.integers(0, 99)))
    low, high = columns["minimum"], columns["maximum"]
    return [[rng.choice((low, 0, high, rng.uniform(low, high)))] * width for _ in range(height)]


@st.composite
def paintings(draw):
    """A body, and whether the description calls it valid."""
    layers = PAINTING["schema"]["properties"]["layers"]
    count = draw(st.integers(layers["minItems"], layers["maxItems"]))
    fields = layers["items"]["properties"]
    words = st.sampled_from(["red", "green", "red and blue"] * 10 + ["rde", "!"])
    body = {
        "layers": [{"word": draw(words), "grid": draw(grids(fields["grid"]))} for _ in range(count)]
    }
    layer = body["layers"][draw(st.integers(0, count - 1))]
    match draw(st.integers(0, 15)):
        case 0:
            layer["grid"] += layer["grid"] * fields["grid"]["maxItems"]
        case 1:
            layer["grid"] = [each * 33 for each in layer["grid"]]
        case 2:
            layer["grid"][0][0] = draw(st.sampled_from([1.5, -2, "1.x", None, [], {}, 1e300]))
        case 3:
            layer["word"] = "x" * (fields["word"]["maxLength"] + 1)
        case 4:
            body["layers"] *= 9
        case 5:
            body[draw(st.text(min_size=1, max_size=8).filter(lambda key: key != "layers"))] = []
        case 6:
            layer["more"] = 1
        case 7:
            del layer["word"]
        case _:
            return body, True
    return body, False


@pytest.mark.slow
def test_paintings_are_answered_as_described(tmp_path_factory, tmp_path):
    images = collections.copy_halves(tmp_path_factory, tmp_path / "photos")
    collection = collections.collect_halves(tmp_path_factory, images, tmp_path)
    counts = dict.fromkeys((200, 422), 0)
    with served(None, LIMITS, collections=[collection]) as client:

        @settings(
            max_examples=150,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(paintings())
        def answered(drawn):
            body, valid = drawn
            response = client.post("/api/paint", json=body)
            check(response, "POST", "/api/paint", {200, 422} if valid else {413, 422})
            if response.status_code == 422 and valid:  # not known, or not painted
                detail = response.json()["detail"]
                assert detail.startswith(("unknown words", "a text must", "nothing is painted"))
            counts[response.status_code] = counts.get(response.status_code, 0) + 1

        answered()
        for path, content, given_labels in (
            ("/api/label", png(), {}),
            ("/api/label", png(), {"labels": ["red", "green"]}),
            ("/api/localize", png(), {"labels": ["red", "green"]}),
            ("/api/localize", b"", {"labels": "red"}),
        ):
            response = client.post(path, content=content, params=given_labels)
            check(response, "POST", path, {200 if content else 422})
        for path in (
            "/api/projection?labels=red",
            "/api/projection?labels=red&labels=green&labels=blue",
            "/api/projection?method=pca",
            "/api/rows?rows=1&rows=2",
            "/api/indexes",
        ):
            check(client.get(path), "GET", path.partition("?")[0], {200})
        check(client.get("/api/projection"), "GET", "/api/projection", {422})
        check(client.get("/api/rows?rows=99"), "GET", "/api/rows", {404})
    assert min(counts.values()) > 20, counts
