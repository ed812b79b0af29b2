"""Downloads of images by URL: what is refused, and what is received."""

import io
import socket
import ssl
import threading

import numpy as np
import pytest
from PIL import Image

from captioner.data.images import load_image
from captioner.data.storage import web
from captioner.data.storage.web import WebImage, download, is_public
from captioner.errors import InputError
from tests.support.loopback_files import running


@pytest.fixture
def server():
    with running() as files:
        content = io.BytesIO()
        Image.new("RGB", (4, 3), "red").save(content, "PNG")
        files.files["a.png"] = content.getvalue()
        yield files


def image(server, name="a.png"):
    return WebImage(f"{server.url}/{name}", allow_private=True)


def redirect(server, name, target, times=1):
    server.failures[name] = [(302, {"Location": target})] * times


def test_an_image_is_downloaded(server):
    assert np.asarray(load_image(image(server)))[0, 0].tolist() == [255, 0, 0]
    assert download(image(server)) == server.files["a.png"]


def test_private_addresses_are_refused_unless_allowed(server):
    for host in ("127.0.0.1", "localhost"):
        url = f"http://{host}:{server.server_port}/a.png"
        with pytest.raises(InputError, match="has an address that is not public"):
            load_image(WebImage(url))
    assert server.requests == []  # not even asked


def test_a_redirect_to_a_private_address_is_refused(server, monkeypatch):
    """The first host counts as public here; its redirect leads to one that does not."""
    monkeypatch.setattr(web, "is_public", lambda address: address == "127.0.0.1")
    redirect(server, "public.png", "http://169.254.169.254/latest/meta-data")
    with pytest.raises(InputError, match=r"169\.254\.169\.254 has an address that is not public"):
        download(WebImage(f"{server.url}/public.png"))


def test_the_checked_address_is_the_one_connected_to(server, monkeypatch):
    """A name that gives a public address first and a private one later is never looked up twice."""
    answers = [[(0, 0, 0, "", ("127.0.0.1", server.server_port))]]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers.pop())
    monkeypatch.setattr(web, "is_public", lambda _: True)
    hosts = []

    def recorded(address, _timeout):
        hosts.append(address[0])
        sock = socket.socket()
        sock.connect((address[0], server.server_port))
        return sock

    monkeypatch.setattr(socket, "create_connection", recorded)
    assert download(WebImage(f"http://photos.example:{server.server_port}/a.png"))
    assert hosts == ["127.0.0.1"]


def test_redirects(server):
    redirect(server, "old.png", "/a.png")
    assert download(image(server, "old.png")) == server.files["a.png"]
    redirect(server, "loop.png", "loop.png", times=20)
    with pytest.raises(InputError, match="redirects more than 5 times"):
        download(image(server, "loop.png"))
    assert server.requests.count(("loop.png", 0)) == 6
    for target in ("file:///etc/passwd", "ftp://127.0.0.1/a.png", "http://a:b@127.0.0.1/"):
        redirect(server, "odd.png", target)
        with pytest.raises(InputError, match=r"only http and https|user name or password; remove"):
            download(image(server, "odd.png"))


def test_size_limit(server):
    size = len(server.files["a.png"])
    assert download(image(server), size) == server.files["a.png"]
    with pytest.raises(InputError, match=f"it has more than {size - 1} bytes"):
        download(image(server), size - 1)
    server.features.discard("length")  # the length is not stated
    with pytest.raises(InputError, match="it has more than 5 bytes"):
        download(image(server), 5)


def test_errors_name_the_url_without_its_query(server):
    with pytest.raises(InputError, match=r"gone\.png: download failed: HTTP 404") as caught:
        download(image(server, "gone.png?token=secret"))
    assert "secret" not in str(caught.value)
    server.files["text.png"] = b"<html>"
    with pytest.raises(InputError, match=r"text\.png: a web page"):
        load_image(image(server, "text.png"))


def test_a_connection_that_breaks_or_never_ends(server, monkeypatch):
    server.failures["a.png"] = [10]
    with pytest.raises(InputError, match="download failed: the connection was closed early"):
        download(image(server))
    monkeypatch.setattr(web, "DEADLINE", -1)
    with pytest.raises(InputError, match="it took more than -1 s"):
        download(image(server))


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://example.org/a.png", "only http and https URLs are supported; check the URL"),
        ("http:///a.png", "the URL has no valid host and port; check the URL"),
        ("http://example.org:99999/a.png", "the URL has no valid host and port"),
        ("http://user:password@example.org/a.png", "a user name or password; remove it"),
        ("http://example.org/a b.png", "a space or a control character; write a space as %20"),
        ("http://example.org/a\r\nX: y", "a space or a control character"),
    ],
)
def test_urls_that_are_refused_without_a_request(url, reason):
    with pytest.raises(InputError, match=f"download failed: .*{reason}") as caught:
        download(WebImage(url, allow_private=True))
    assert ":password" not in str(caught.value)


def test_an_untrusted_certificate(server, monkeypatch):
    def refuse(*_):
        error = ssl.SSLCertVerificationError()
        error.verify_message = "self-signed certificate"
        raise error

    monkeypatch.setattr(web, "_connect", refuse)
    with pytest.raises(InputError, match=r"not trusted \(self-signed certificate\); set SSL_CERT"):
        download(image(server))


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.215.14", True),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::5db8:d70e", True),
        ("2002:7f00:1::", False),
    ],
)
def test_public_addresses(address, public):
    assert is_public(address) == public


def test_many_threads_download_at_once(server):
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(download(image(server)))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [server.files["a.png"]] * 8
