"""A thousand requests drawn from the service's own description, valid and invalid."""

import json
from urllib.parse import urlencode

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
from captioner.text.vocabulary import Vocabulary
from tests.support.service import Stub, png, served
from tests.support.words import WORDS

LIMITS = Limits(max_bytes=5000, max_pixels=10_000)
API = json.loads(json.dumps(create_app(Stub(), LIMITS, Access()).openapi()))
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
    if "enum" in schema:
        return st.sampled_from(schema["enum"]), st.sampled_from(["", "guess", "BEAM "])
    if schema["type"] == "boolean":
        return st.sampled_from(["true", "false"]), st.sampled_from(["", "2", "perhaps"])
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", 10**40)
    wrong = st.sampled_from(["", "two", "nan", "inf", "-inf", "1e999", "null", "0x1", "9" * 5000])
    if schema["type"] == "integer":
        # Captions are short, so small numbers are of interest.
        valid = st.integers(low, min(high, low + 5)) | st.integers(low, high)
        outside = st.integers(max_value=low - 1) | st.integers(min_value=high + 1)
        if "maximum" not in schema:
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
