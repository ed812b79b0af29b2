"""Who may use the service: hosts, origins, tokens, addresses."""

import socket

import httpx
import pytest

from captioner.errors import InputError
from captioner.serving.access import Access, host_name
from captioner.serving.server import ServeOptions
from tests.support.service import Stub, png, served

TOKEN = "0123456789abcdef"


@pytest.fixture(scope="module")
def client():
    with served(Stub(), access=Access(hosts=("Captions.example", "2001:db8::1"))) as client:
        yield client


def post(client, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post("/api/caption", content=png(), headers=headers)


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]", "[::1]:8000"),
        *("captions.example", "captions.example:443", "[2001:db8::1]:80"),
    ],
)
def test_allowed_hosts_are_answered(client, host):
    assert client.get("/health", headers={"host": host}).status_code == 200
    assert post(client, host=host).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        *("attacker.example", "localhost.attacker.example", "attacker.example:8000", ""),
        *("[::2]", "[::1", "127.0.0.2", "localhost@attacker.example", "*", "a, localhost"),
    ],
)
def test_other_hosts_are_refused(client, host):
    for path in ("/", "/health", "/metrics", "/openapi.json", "/nowhere"):
        response = client.get(path, headers={"host": host})
        assert response.status_code == 421
        assert list(response.json()) == ["detail"]
        assert "content-security-policy" in response.headers
    response = post(client, host=host)
    assert response.status_code == 421
    assert f"the host name {host!r} is not allowed; if it is" in response.json()["detail"]


def test_a_star_allows_any_host():
    with served(Stub(), access=Access(hosts=("*",))) as client:
        assert post(client, host="anything.example").status_code == 200


@pytest.mark.parametrize("path", ["/health/", "/docs/", "/api/caption/"])
def test_nothing_redirects(client, path):
    response = client.get(path, headers={"host": "captions.example"})
    assert response.status_code == 404
    assert "location" not in response.headers


def test_pages_of_other_sites_are_refused(client):
    own = f"127.0.0.1:{client.base_url.port}"
    for headers in (
        {},  # not a browser
        {"origin": f"http://{own}"},
        {"origin": f"http://{own}", "sec_fetch_site": "same-origin"},
        {"sec_fetch_site": "none"},
        {"origin": "https://captions.example", "sec_fetch_site": "same-origin"},  # a proxy
    ):
        assert post(client, **headers).status_code == 200
    for headers in (
        {"origin": "https://attacker.example"},
        {"origin": "null"},
        {"origin": f"http://{own}.attacker.example"},
        {"origin": "http://127.0.0.1:1"},
        {"origin": f"http://{own}", "sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
    ):
        response = post(client, **headers)
        assert response.status_code == 403
        advice = "send the request from a page of this service"
        assert response.json() == {"detail": f"cross-site requests are refused; {advice}"}
    assert client.get("/", headers={"sec-fetch-site": "cross-site"}).status_code == 200  # a link


def test_a_token_protects_captions_and_metrics():
    with served(Stub(), access=Access(token=TOKEN)) as client:
        for path in ("/", "/docs", "/health", "/openapi.json"):
            assert client.get(path).status_code == 200
        for header in (None, "", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer \xff"):
            headers = {} if header is None else {"authorization": header.encode("latin-1")}
            for method, path in (("POST", "/api/caption?beam_size=0"), ("GET", "/metrics")):
                response = client.request(method, path, headers=headers)
                assert response.status_code == 401
                assert response.headers["www-authenticate"] == "Bearer"
                is_wrong = header is not None and header.startswith("Bearer")
                what = "the token is wrong" if is_wrong else "a token is required"
                assert response.json()["detail"].startswith(f"{what}; send the header")
        client.headers["authorization"] = f"Bearer {TOKEN}"
        assert post(client).status_code == 200
        assert client.get("/metrics").status_code == 200
        paths = client.get("/openapi.json").json()["paths"]
        assert paths["/api/caption"]["post"]["security"] == [{"HTTPBearer": []}]


def test_other_machines_need_a_token_unless_it_is_refused(tmp_path):
    for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost"):
        assert ServeOptions(host).access.token is None
    for host in ("0.0.0.0", "::", "", "192.168.1.5", "localhost.example"):
        with pytest.raises(InputError, match=r"other machines can reach --host .*--token-file"):
            ServeOptions(host)
        assert ServeOptions(host, public=True).access.token is None
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    assert "" not in ServeOptions("", public=True).access.hosts
    access = ServeOptions("192.168.1.5", token_file=path, allowed_hosts=("a.example",)).access
    assert access == Access(("192.168.1.5", "a.example"), TOKEN)
    assert "192.168.1.5" in access.hosts


@pytest.mark.parametrize("token", ["", "x" * 15, "x" * 16 + " y", "ü" * 16, "x" * 16 + "\n"])
def test_weak_tokens_are_refused(token):
    with pytest.raises(InputError, match="at least 16 printable ASCII characters"):
        Access(token=token)


def test_token_files_that_cannot_be_read(tmp_path):
    path = tmp_path / "token"
    with pytest.raises(InputError, match=f"the token file {path} cannot be read: "):
        _ = ServeOptions(token_file=path).access
    path.write_bytes(b"\xff" * 20)
    with pytest.raises(InputError, match=f"the token file {path} cannot be read: "):
        _ = ServeOptions(token_file=path).access


def test_host_names():
    for host, name in (
        ("A.example:80", "a.example"),
        ("[::1]:80", "::1"),
        ("::1", "::1"),
        ("", ""),
        ("a:x", "a"),
        ("[::1", ""),
        ("a:1:2", ""),
    ):
        assert host_name(host) == name


def test_a_request_without_host_is_refused(client):
    address = (client.base_url.host, client.base_url.port)
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 421 ")
    assert httpx.get(f"{client.base_url}/health").status_code == 200
