"""The service over real sockets: answers, errors, limits, shutdown."""

import io
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from captioner import Captioner
from captioner.decoding.options import DecodingOptions
from captioner.devices import RuntimeOptions
from captioner.errors import InputError
from captioner.serving.schemas import Limits, answer
from captioner.serving.server import ServeOptions, listen, serve
from tests.support import tiny
from tests.support.service import Stub, png, served

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def stub():
    return Stub()


@pytest.fixture(scope="module")
def shared(stub):
    with served(stub, Limits(max_bytes=5000, max_pixels=10_000)) as client:
        yield client


@pytest.fixture
def client(shared, stub):
    stub.go.set()
    stub.error = None
    stub.busy.clear()
    return shared


def test_the_answer_is_the_caption_as_json(client):
    response = client.post("/api/caption?num_captions=2", content=png((1, 2, 3)))
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert body["caption"] == "1 2 3 beam"
    assert body["words"] == ["1", "2", "3", "beam"]
    assert body["dimmed"] == [False] * 4
    assert body["log_probs"] == [-0.5, -1.0, -0.25, -2.0, -0.125]
    assert body["score"] == -3.875
    assert body["offset"] == -0.25
    assert np.shape(body["attention"]) == (4, 2, 3)
    assert body["attention"][0][0][0] == 0.1667
    assert "word_alternatives" not in body
    (other,) = body["alternatives"]
    assert other == {key: value for key, value in body.items() if key != "alternatives"}


def test_word_alternatives_on_request(client):
    body = client.post("/api/caption?word_alternatives=2", content=png()).json()
    others = [{"word": "a", "log_prob": -1.0}, {"word": "", "log_prob": -2.0}]
    assert body["word_alternatives"] == [others] * 4


@pytest.mark.parametrize("field", ["image", "picture"])  # the old name is still accepted
def test_an_image_may_be_the_file_of_a_form(client, field):
    form = client.post("/api/caption?method=greedy", files={field: ("x.png", png((4, 5, 6)))})
    assert form.status_code == 200
    assert form.json()["caption"] == "4 5 6 greedy"


REJECTED = {
    "empty body": (422, "", {"content": b""}, "the request contains no image"),
    "not an image": (422, "", {"content": b"/etc/passwd"}, "the file: not an image in any of the"),
    "a path instead of a file": (
        422,
        "",
        {"content": b"file:///etc/passwd"},
        "the file: not an image",
    ),
    "broken": (422, "", {"content": png()[:45]}, "the file: cannot be"),
    "empty file": (422, "", {"files": {"image": ("x", b"")}}, "the request contains no image"),
    "file with another name": (
        422,
        "",
        {"files": {"photo": ("x", png())}},
        "a form must contain one file",
    ),
    "path in a form": (
        422,
        "",
        {"files": {"image": (None, "/etc/passwd")}},
        "a form must contain one",
    ),
    "options in a form": (
        422,
        "",
        {"files": {"image": ("x", png())}, "data": {"beam_size": "2"}},
        "a form must contain one file, named image; options belong in the query",
    ),
    "two files": (
        422,
        "",
        {"files": [("image", ("x", png())), ("image", ("y", png()))]},
        "a form must contain one file",
    ),
    "form without boundary": (
        422,
        "",
        {"content": b"x", "headers": {"content-type": "multipart/form-data"}},
        "a form must contain one file",
    ),
    "too many bytes": (
        413,
        "",
        {"content": b"x" * 5001},
        "at most 5,000 bytes are accepted; send a smaller",
    ),
    "too many bytes in a form": (
        413,
        "",
        {"files": {"image": ("x", b"x" * 5001)}},
        "at most 5,000 bytes",
    ),
    "too many bytes of another file": (
        413,
        "",
        {"files": {"x": ("x", b"x" * 100_000)}},
        "at most 5,000",
    ),
    "too many pixels": (
        422,
        "",
        {"content": png(size=(101, 100))},
        "101 x 100 pixels exceed the limit of 10,000",
    ),
    "beam too large": (
        422,
        "beam_size=11",
        {"content": png()},
        "beam_size: .* less than or equal to 10",
    ),
    "too many captions": (
        422,
        "num_captions=11",
        {"content": png()},
        "num_captions: .*or equal to 10",
    ),
    "too many words": (422, "max_length=51", {"content": png()}, "max_length: .* or equal to 50"),
    "too many alternatives": (422, "word_alternatives=21", {"content": png()}, "equal to 20"),
    "not a number": (422, "beam_size=two", {"content": png()}, "beam_size: .*integer.*, got 'two'"),
    "beam too small": (
        422,
        "beam_size=0",
        {"content": png()},
        "beam_size: .* or equal to 1, got '0'",
    ),
    "unknown option": (422, "beams=2", {"content": png()}, "beams: Extra inputs are not permitted"),
    "misspelled option": (
        422,
        "beam-size=2",
        {"content": png()},
        r"beam-size: Extra inputs are not permitted, got '2'; did you mean 'beam_size'\?",
    ),
    "a path as option": (422, "image=/etc/passwd", {"content": b""}, "image: Extra inputs"),
    "unknown method": (422, "method=guess", {"content": png()}, "method: .*'greedy', 'sample'"),
    "contradiction": (
        422,
        "top_k=3",
        {"content": png()},
        "top_k requires method 'sample', got method 'beam'",
    ),
}


@pytest.mark.parametrize("name", REJECTED)
def test_errors_are_one_message(client, name):
    status, query, content, message = REJECTED[name]
    response = client.post(f"/api/caption?{query}", **content)
    assert response.status_code == status
    assert list(response.json()) == ["detail"]
    assert re.search(message, response.json()["detail"])
    assert client.post("/api/caption", content=png()).status_code == 200  # still serving


def test_other_paths_are_not_found(client):
    for path in ("/../../etc/passwd", "/page.html", "/static/x", "/api/caption/x"):
        assert client.get(path).status_code == 404
    assert client.get("/api/caption").status_code == 405


def test_internal_errors_are_logged_but_not_disclosed(client, stub, caplog):
    stub.error = RuntimeError("/secret/path")
    response = client.post("/api/caption", content=png())
    assert (response.status_code, response.json()) == (
        500,
        {"detail": "the image could not be captioned"},
    )
    assert "/secret/path" in caplog.text  # in the log
    stub.error = InputError("the model refuses")
    response = client.post("/api/caption", content=png())
    assert (response.status_code, response.json()["detail"]) == (422, "the model refuses")


def test_every_answer_has_security_headers(client):
    for response in (client.get("/"), client.get("/nowhere"), client.post("/api/caption")):
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_load_nothing_from_other_servers(client, path):
    response = client.get(path)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    addresses = re.findall(r"https?://[^\s'\"]+", response.text)
    assert set(addresses) <= {"http://www.w3.org/2000/svg"}  # a namespace, not a link
    assert not re.findall(
        r"<(?:script|link|img|iframe)[^>]* (?:src|href)=\"(?!data:)", response.text
    )
    assert " style=" not in response.text
    assert not re.findall(r"<[^>]* on\w+=", response.text)


def test_openapi_describes_options_limits_and_answers(client):
    api = client.get("/openapi.json").json()
    call = api["paths"]["/api/caption"]["post"]
    options = {each["name"]: each for each in call["parameters"]}
    assert options["max_length"]["schema"]["maximum"] == 50
    assert len(options) == 14
    assert options["consensus"]["schema"]["maximum"] == 50
    assert (
        options["beam_size"]["schema"] | {"minimum": 1, "maximum": 10, "type": "integer"}
        == (options["beam_size"]["schema"])
    )
    assert options["top_p"]["schema"]["exclusiveMinimum"] == 0
    assert options["temperature"]["description"].startswith("sampling temperature")
    assert {"200", "413", "422", "429", "503", "504"} <= set(call["responses"])
    assert set(call["requestBody"]["content"]) == {"multipart/form-data", "image/*"}
    for path, method, status, kind in (
        *(("/api/caption", "post", each, "Error") for each in ("413", "422", "429", "503", "504")),
        ("/health", "get", "503", "Health"),
        ("/metrics", "get", "421", "Error"),
    ):
        content = api["paths"][path][method]["responses"][status]["content"]
        schema = {"$ref": f"#/components/schemas/{kind}"}
        assert content == {"application/json": {"schema": schema}}
    text = api["paths"]["/metrics"]["get"]["responses"]["200"]["content"]
    assert text == {"text/plain": {"schema": {"type": "string"}}}
    described = api["components"]["schemas"]["Answer"]["properties"]
    options = DecodingOptions(num_captions=2, word_alternatives=2)
    assert set(described) == set(answer(Stub.describe(Image.new("RGB", (1, 1)), options)))


def test_health_and_metrics(stub):
    with served(stub) as client:
        health = client.get("/health")
        assert health.status_code == 200
        assert health.json()["status"] == "ok"
        assert health.json()["has_attention"] is True
        assert health.json()["limits"]["max_words"] == 50
        for content in (png(), png(), b"none"):
            client.post("/api/caption", content=content)
        lines = client.get("/metrics").text.splitlines()
        for line in (
            'captioner_requests_total{status="200"} 2',
            'captioner_requests_total{status="422"} 1',
            "captioner_waiting 0",
            "captioner_unanswered 0",
            "captioner_request_seconds_count 2",
            'captioner_request_seconds_bucket{le="+Inf"} 2',
            "captioner_batch_size_sum 2.000000",
            'captioner_batch_size_bucket{le="1"} 2',
        ):
            assert line in lines
        for line in lines:  # a comment, or a name, labels and a number
            assert re.fullmatch(r"# (HELP|TYPE) \w+ .+|\w+(\{\w+=\"[^\"]+\"\})? [\d.]+", line), line


@pytest.mark.parametrize("path", ["/", "/docs", "/health", "/metrics", "/openapi.json"])
def test_head_is_answered_like_get_without_a_body(client, path):
    head, get = client.head(path), client.get(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == get.headers["content-type"]


def test_a_body_that_is_too_large_is_refused_before_it_is_sent(client):
    address = (client.base_url.host, client.base_url.port)
    head = "POST /api/caption HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
    for kind, length in (("image/png", 5001), ("multipart/form-data; boundary=x", 5001 + 2**16)):
        with socket.create_connection(address, timeout=10) as connection:
            lines = f"Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
            connection.sendall((head + lines).encode())
            assert connection.recv(5000).startswith(b"HTTP/1.1 413 ")
    content = png()
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode())
        assert connection.recv(5000).startswith(b"HTTP/1.1 100 ")
        connection.sendall(content)
        assert connection.recv(5000).startswith(b"HTTP/1.1 200 ")


def test_a_full_queue_rejects_requests_and_recovers(stub):
    stub.go.clear()
    stub.busy.clear()
    with served(stub, Limits(queue=3)) as client, ThreadPoolExecutor(3) as pool:
        held = [pool.submit(client.post, "/api/caption", content=png()) for _ in range(3)]
        assert stub.busy.wait(10)
        until = time.monotonic() + 10
        while "captioner_unanswered 3" not in client.get("/metrics").text:
            assert time.monotonic() < until
        response = client.post("/api/caption", content=png())
        assert response.status_code == 429
        assert response.headers["retry-after"] == "1"
        assert response.json()["detail"] == "the request queue is full (3 requests); try again soon"
        stub.go.set()
        assert [each.result().status_code for each in held] == [200] * 3
        assert client.post("/api/caption", content=png()).status_code == 200


def test_the_time_limit_covers_the_device_and_the_upload(stub):
    stub.go.clear()
    with served(stub, Limits(timeout=0.3)) as client:
        response = client.post("/api/caption", content=png())
        assert response.status_code == 504
        assert response.json()["detail"] == "captioning took longer than 0.3 seconds; try again"
        stub.go.set()

        def slow_upload():
            yield png()[:10]
            time.sleep(0.8)
            yield png()[10:]

        assert client.post("/api/caption", content=slow_upload()).status_code == 504
        assert client.post("/api/caption", content=png()).status_code == 200


@pytest.mark.slow
def test_64_clients_each_get_their_own_answer(tmp_path_factory):
    """With a real model, each answer equals the one that the image gets alone."""
    captioner = Captioner.from_pretrained(tiny.run(tmp_path_factory, attention=True), "cpu")
    noise = np.random.default_rng(1)
    images, texts = [], []
    for number in range(64):
        colour = list(tiny.COLOURS.values())[number % len(tiny.COLOURS)]
        pixels = (colour + noise.normal(0, 30, (24, 36, 3))).clip(0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        images.append(file.getvalue())
        options = {"method": "greedy"} if number % 3 == 0 else {"beam_size": 2, "num_captions": 2}
        options |= {"word_alternatives": number % 2}
        alone = answer(captioner.caption(Image.fromarray(pixels), **options))
        texts.append((options, alone))
    assert len({str(alone["attention"]) for _, alone in texts}) == 64  # all distinct

    with served(captioner) as client, ThreadPoolExecutor(64) as pool:

        def request(number):
            options, alone = texts[number % 64]
            response = client.post("/api/caption", params=options, content=images[number % 64])
            response = response.json()
            near = np.allclose(response["attention"], alone["attention"], atol=2e-4)
            return response["caption"] == alone["caption"] and near

        assert all(pool.map(request, range(128)))
        metrics = client.get("/metrics").text
    batches = float(re.search(r"captioner_batch_size_count (\d+)", metrics)[1])
    assert batches < 100  # many requests were batched


def test_stopping_answers_pending_requests_and_rejects_new_ones(stub):
    stub.go.clear()
    stub.busy.clear()
    with served(stub) as client, ThreadPoolExecutor(1) as pool:
        held = pool.submit(client.post, "/api/caption", content=png())
        assert stub.busy.wait(10)
        client.server.config.app.state.close()  # as the signal handler does
        late = client.post("/api/caption", content=png())
        assert late.status_code == 503
        assert late.json()["detail"] == "the service is stopping; try again later"
        assert late.headers["retry-after"] == "5"
        assert late.headers["connection"] == "close"
        assert client.get("/health").status_code == 503
        client.server.handle_exit(signal.SIGTERM, None)
        time.sleep(0.3)
        with pytest.raises(httpx.ConnectError):
            httpx.get(client.base_url)
        assert not held.done()
        stub.go.set()
        assert held.result(10).status_code == 200


@pytest.mark.slow
def test_the_command_serves_until_it_is_terminated(tmp_path_factory):
    run = tiny.run(tmp_path_factory, attention=True)
    command = [sys.executable, "-m", "captioner", "serve", str(run), "--port", "0"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        line = process.stdout.readline()
        url = re.search(r"serving .* at (http://127\.0\.0\.1:\d+) ", line)[1]
        response = httpx.post(f"{url}/api/caption", content=png((220, 30, 30)), timeout=60)
        assert response.json()["words"]
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "stopped\n")


def test_invalid_settings_of_the_service(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="port must be at least 0 and at most 65535, got 70000"):
        ServeOptions(port=70000)
    for name, limit in (("queue", 0), ("batch_size", 0), ("max_bytes", 0), ("max_pixels", 0)):
        with pytest.raises(InputError, match=f"{name} must be at least 1, got 0"):
            Limits(**{name: limit})
    with pytest.raises(InputError, match="max_beam_size must be at least 3, got 2"):
        Limits(max_beam_size=2)
    with pytest.raises(InputError, match="max_words must be at least 30, got 9"):
        Limits(max_words=9)
    for timeout in (0, float("inf"), float("nan")):
        with pytest.raises(InputError, match=r"timeout must be (finite and )?above 0, got"):
            Limits(timeout=timeout)
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"cannot listen on 127.0.0.1 port {port}: Address"):
            listen("127.0.0.1", port)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(InputError, match=r"needs uvicorn; run pip install 'captioner\[serve\]'"):
        serve(tmp_path, ServeOptions(), Limits(), RuntimeOptions())


def test_it_listens_on_this_machine_only_by_default():
    assert ServeOptions().host == "127.0.0.1"
    with listen(ServeOptions().host, 0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


def test_answers_on_a_kept_connection_are_sent_without_delay(client):
    """With Nagle's algorithm, each answer takes 40 ms, because it is sent in two parts."""
    taken = []
    for _ in range(25):
        started = time.perf_counter()
        assert client.get("/health").status_code == 200
        taken.append(time.perf_counter() - started)
    assert np.median(taken) < 0.03
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
