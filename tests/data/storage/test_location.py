"""Addresses of files on servers as values."""

import pickle
from pathlib import Path, PurePosixPath

import pytest

from captioner.data.storage import files as storage
from captioner.data.storage.location import Location

TAR = Location("https://host:80/a b/x.tar")


@pytest.mark.parametrize(
    "text", ["http://host:80/a b/x.tar", "https://host/x.tar", "{https://a/x,http://b/y}.tar"]
)
def test_an_address_is_kept_as_it_was_written(text):
    for location in (storage.parse_location(text), storage.parse_location(Path(text))):
        assert location == Location(text)
        assert str(location) == text
        assert storage.parse_location(location) is location
        assert storage.absolute(location) is location
        assert pickle.loads(pickle.dumps(location)) == location


@pytest.mark.parametrize("text", ["http.tar", "directory/x.tar", "ftp://host/x.tar", "x/http://h"])
def test_any_other_text_is_a_path(text):
    assert storage.parse_location(text) == Path(text)
    assert storage.parse_location(text, Path("directory")) == Path("directory") / text


def test_an_address_is_not_relative_to_a_directory():
    assert storage.parse_location(str(TAR), Path("directory")) == TAR


def test_operations_are_those_of_a_path():
    path = PurePosixPath(str(TAR))
    for name in ("parts", "name", "stem", "suffix"):
        assert getattr(TAR, name) == getattr(path, name)
    assert str(TAR.parent) == "https://host:80/a b"
    assert str(TAR / "sub/a.jpg") == "https://host:80/a b/x.tar/sub/a.jpg"
    assert (TAR / "sub/a.jpg").relative_to(TAR) == PurePosixPath("sub/a.jpg")
    with pytest.raises(ValueError, match="is not in the subpath"):
        TAR.relative_to(Location("https://other"))


def test_equal_addresses_are_equal_keys():
    assert {TAR, Location(str(TAR))} == {TAR}
    assert TAR / "a" != TAR / "b"
    assert Path(str(TAR)) != TAR
    assert str(TAR) != TAR


def test_locations_and_paths_are_sorted_by_their_parts():
    files = [Path("/a"), Location("http://a/b.tar"), Location("http://a/b/c.tar"), Path("z")]
    assert sorted(files) == [files[0], files[2], files[1], files[3]]
    with pytest.raises(TypeError):
        assert TAR < "text"


@pytest.mark.parametrize(
    ("text", "tar"),
    [
        ("http://host/x.tar/a.jpg", "http://host/x.tar"),
        ("http://host/x.tar/y.tar/a.jpg", "http://host/x.tar"),  # y.tar is a name in x.tar
        ("http://host.tar/x.tar/a.jpg", "http://host.tar/x.tar"),
        ("http://host/.tar/x.tar/a.jpg", "http://host/.tar/x.tar"),
        ("http://host/x.tar", "http://host/x.tar"),
        ("http://host.tar/a.jpg", "http://host.tar/a.jpg"),
        ("http://host/x.tar.gz/a.jpg", "http://host/x.tar.gz/a.jpg"),
    ],
)
def test_the_container_of_a_member_is_the_first_tar_file_after_the_host(text, tar):
    assert storage.container(Location(text)) == Location(tar)


def test_a_path_is_never_taken_for_an_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path("http://host/x.tar/a.jpg")
    assert storage.container(path) == path
    assert not storage.is_file(path)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"a")
    assert storage.is_file(path)
    assert not storage.is_file(Location("http://host/a.jpg"))
