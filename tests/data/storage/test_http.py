"""Downloads that lose their connection, change, redirect, or never begin."""

import socket
import ssl

import pytest
import trustme

from captioner.data.readers import read_captions
from captioner.data.storage import files as storage
from captioner.data.storage import location, remote_tar
from captioner.data.storage.location import UnreachableError
from captioner.errors import InputError
from tests.support import loopback_files


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("breaks", [[3000], [0, 511, 700, 0], [(503, {}), 20_000, (429, {})]])
def test_a_lost_connection_is_resumed(server, members, ranges, breaks):
    server.features -= set() if ranges else {"ranges"}
    server.failures["x.tar"] = [(503, {}), None, *breaks]
    assert [storage.read(path) for path, _ in members] == [content for _, content in members]
    assert not server.failures["x.tar"]
    assert any(first for _, first in server.requests) == ranges


def test_a_connection_that_breaks_six_times_is_an_error(server, members):
    server.failures["x.tar"] = [None, 15000, *[0] * 5]
    message = (
        "x.tar cannot be read beyond byte 15,000: the connection was closed early, after 6 "
        "attempts; "
    )
    for path, _ in members[:2]:
        storage.read(path)
    with pytest.raises(UnreachableError, match=message) as caught:
        storage.read(members[9][0])
    assert " @ " not in str(caught.value)
    assert storage.read(members[9][0]) == members[9][1]  # later, when the server works again


def test_a_file_that_changed_after_it_was_indexed_is_an_error(server, members):
    storage.read(members[3][0])
    remote_tar.disconnect()
    server.serve_tar("x.tar", [(f"{i:02}.jpg", b"other" * 200) for i in range(30)])
    with pytest.raises(UnreachableError, match=r"x.tar has changed since it was indexed; run the"):
        storage.read(members[20][0])  # tarfile reads ahead by 10 KB


def test_a_change_is_noticed_without_length_and_etag(server, members, monkeypatch):
    monkeypatch.setattr(location, "KEPT_BYTES", 0)  # so that an earlier member is another download
    server.features -= {"state", "length"}
    assert storage.read(members[3][0]) == members[3][1]
    server.serve_tar("x.tar", [("new.jpg", b"new")])
    with pytest.raises(UnreachableError, match=r"x.tar has changed since it was indexed; run the"):
        storage.read(members[2][0])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "gone-{0..1}.tar",
            r"/gone-0.tar: download failed: HTTP 404 Not Found; check the URL",
        ),
        ("gone.tar", r"/gone.tar: download failed: HTTP 404 Not Found; check the URL"),
        ("moved.tar", r"moved.tar cannot be opened: .*ftp.*, after 6 attempts; check the URL"),
        (
            "busy.tar",
            r"busy.tar cannot be opened: Service Unavailable, after 6 attempts; check the URL",
        ),
        ("a b.tar", r"a b.tar cannot be opened: .*; check the URL"),
        ("ä.tar", r"ä.tar cannot be opened: .*; check the URL"),
        ("set/", "/set is not the URL of a tar file; it must end in .tar"),
        ("x.tar?key=1", "is not the URL of a tar file"),
        ("y.tar/x.tar", "is not the URL of a tar file"),
    ],
)
def test_addresses_that_cannot_be_read(server, name, message):
    server.failures["moved.tar"] = [(302, {"Location": "ftp://127.0.0.1/x.tar"})] * 6
    server.failures["busy.tar"] = [(503, {})] * 6
    with pytest.raises(InputError, match=message):
        read_captions(f"{server.url}/{name}", on_error="skip")


def test_a_server_that_refuses_connections():
    with socket.create_server(("127.0.0.1", 0)) as closed_at_once:
        port = closed_at_once.getsockname()[1]
    with pytest.raises(UnreachableError, match=r"/x.tar cannot be opened: .*refused.*; check the"):
        read_captions(f"http://127.0.0.1:{port}/x.tar")


def test_https_needs_a_trusted_certificate(tmp_path, monkeypatch):
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    with loopback_files.running(context) as server:
        server.serve_tar("x.tar", [("a.jpg", b"content"), ("a.txt", b"a dog")])
        with pytest.raises(UnreachableError, match=r"not trusted.*SSL_CERT_FILE"):
            read_captions(f"{server.url}/x.tar")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
        server.failures["x.tar"] = [700]
        (example,) = read_captions(f"{server.url}/x.tar").examples
        assert storage.read(example.path) == b"content"
        assert server.url.startswith("https://")
        assert example.captions == ("a dog",)


def test_redirects_are_followed(server, members):
    server.files["other.tar"] = b""
    server.failures["other.tar"] = [(302, {"Location": "/x.tar"})] * 2
    member = storage.parse_location(f"{server.url}/other.tar/03.jpg")
    assert storage.read(member) == members[3][1]
