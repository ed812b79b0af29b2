"""Slow and silent clients over real sockets: they take no place from others."""

import re
import resource
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import httpx
import pytest

from captioner.serving import connections
from captioner.serving.connections import most_connections
from captioner.serving.schemas import Limits
from tests.support.service import Stub, png, served

HALF = b"POST /api/caption HTTP/1.1\r\nHost: localhost\r\nContent-Length: 400\r\n\r\nhalf"
HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def stub():
    return Stub()


@pytest.fixture
def opened():
    """A function that connects to a client's service and sends some bytes."""
    with ExitStack() as stack:

        def connect(client, content=b""):
            address = (client.base_url.host, client.base_url.port)
            connection = stack.enter_context(socket.create_connection(address, timeout=10))
            connection.sendall(content)
            return connection

        yield connect


def is_closed(connection, seconds):
    """Whether the service closes a connection before it is silent for some seconds."""
    connection.settimeout(seconds)
    try:
        while connection.recv(5000):
            pass
        return True
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


def fresh(client, method, path, **content):
    """The status of a request on a new connection."""
    return httpx.request(method, f"{client.base_url}{path}", timeout=10, **content).status_code


def test_half_sent_bodies_take_no_place(stub, opened):
    with served(stub, Limits(queue=2)) as client:
        for _ in range(6):
            opened(client, HALF)
        for _ in range(3):
            assert fresh(client, "POST", "/api/caption", content=png()) == 200
        assert fresh(client, "GET", "/health") == 200
        assert "captioner_unanswered 0" in client.get("/metrics").text


def test_a_full_queue_refuses_an_image_before_it_is_sent(stub, opened):
    stub.go.clear()
    with served(stub, Limits(queue=1)) as client, ThreadPoolExecutor(1) as pool:
        held = pool.submit(client.post, "/api/caption", content=png())
        assert stub.busy.wait(10)
        assert opened(client, HALF).recv(1000).startswith(b"HTTP/1.1 429 ")
        stub.go.set()
        assert held.result(10).status_code == 200


@pytest.mark.parametrize("sent", [b"", b"POST /api/caption HTTP/1.1\r\nHost: x\r\n"], ids=len)
def test_a_head_must_arrive_in_time(stub, opened, monkeypatch, sent):
    monkeypatch.setattr(connections, "HEAD_SECONDS", 1.0)
    with served(stub) as client:
        connection, slow = opened(client, sent), opened(client, b"GET / HTTP/1.1\r\n")
        answered = opened(client, HEALTH)
        assert answered.recv(5000).startswith(b"HTTP/1.1 200 ")
        with suppress(OSError):
            for _ in range(16):
                slow.sendall(b"a: b\r\n")  # each line in time, the head not
                time.sleep(0.05)
        assert is_closed(slow, 0.7)
        assert is_closed(connection, 3)
        assert is_closed(answered, 3)


def test_the_limit_of_heads_spares_answers_that_take_long(stub, monkeypatch, opened):
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.2)
    stub.go.clear()
    with served(stub) as client, ThreadPoolExecutor(1) as pool:
        image = png()
        head = f"POST /api/caption HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(image)}"
        connection = opened(client, head.encode() + b"\r\n\r\n")
        time.sleep(0.5)  # nor does it limit the time of the body
        connection.sendall(image + HEALTH)  # and a second request at once
        held = pool.submit(client.post, "/api/caption", content=png())
        assert stub.busy.wait(10)
        time.sleep(0.5)
        stub.go.set()
        assert held.result(10).status_code == 200
        received = b""
        while received.count(b"HTTP/1.1 200 ") < 2:
            more = connection.recv(5000)
            assert more
            received += more


def test_a_connection_above_the_limit_replaces_the_one_that_waits_longest(stub, opened):
    stub.go.clear()
    with served(stub, Limits(connections=4)) as client, ThreadPoolExecutor(1) as pool:
        held = pool.submit(client.post, "/api/caption", content=png())
        assert stub.busy.wait(10)
        waiting = [opened(client, (b"", HALF)[number % 2]) for number in range(12)]
        time.sleep(0.3)
        assert fresh(client, "GET", "/health") == 200  # replaces one more
        assert [is_closed(each, 0.2) for each in waiting] == [True] * 10 + [False] * 2
        stub.go.set()
        assert held.result(10).status_code == 200  # the oldest, but it is being answered
        assert fresh(client, "POST", "/api/caption", content=png()) == 200


def test_connections_leave_files_for_the_rest_of_the_process(monkeypatch):
    for soft, expected in ((256, 64), (1024, 200), (resource.RLIM_INFINITY, 200)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, soft=soft: (soft, soft))
        assert most_connections(200) == expected


def test_stopping_does_not_wait_for_half_sent_requests(stub, opened):
    with served(stub) as client:
        for content in (b"", b"POST /", HALF):
            opened(client, content)
        assert fresh(client, "POST", "/api/caption", content=png()) == 200
        stopped = time.monotonic()
    assert time.monotonic() - stopped < 5


def test_a_stopped_upload_is_counted_and_forgotten(stub, opened):
    with served(stub) as client:
        opened(client, HALF).close()
        until = time.monotonic() + 10
        pattern = r'captioner_requests_total\{status="400"\} 1'
        while not re.search(pattern, client.get("/metrics").text):
            assert time.monotonic() < until
