"""A loopback server of tar files, and code for servers as in a new process."""

import pytest

from captioner.data.storage import http, remote_tar
from captioner.data.storage.files import parse_location
from tests.support import loopback_files, tiny


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """As in a new process, and without pauses between attempts."""
    monkeypatch.setattr(http, "PAUSES", (0,) * 5)
    monkeypatch.setenv("no_proxy", "*")
    remote_tar.forget()
    yield
    remote_tar.forget()


@pytest.fixture
def server():
    with loopback_files.running() as server:
        yield server


@pytest.fixture
def directory(tmp_path, tmp_path_factory):
    """A directory of the six tar files: train-00.tar to train-03.tar, val-00.tar, test-00.tar."""
    return tiny.write_shards(tmp_path / "set", tiny.data(tmp_path_factory))


@pytest.fixture
def members(server):
    """Location and content of the 30 members of x.tar on the server, of 1,000 bytes each."""
    members = [(f"{i:02}.jpg", bytes([i]) * 1000) for i in range(30)]
    server.serve_tar("x.tar", members)
    return [(parse_location(f"{server.url}/x.tar/{name}"), content) for name, content in members]
