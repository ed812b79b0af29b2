"""Tar files on servers hold what they hold on disk, and each is downloaded about once."""

import importlib
import json
import os
import random
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from captioner.data import images
from captioner.data.images import load_image
from captioner.data.readers import read_captions
from captioner.data.storage import files as storage
from captioner.data.storage import location, remote_tar
from captioner.data.storage.location import UnreachableError
from captioner.data.storage.remote_tar import MemberCache
from captioner.errors import InputError
from tests.support.layouts import write_tar

ROOT = Path(__file__).parents[3]

# ---- data sets ----------------------------------------------------------------------------------


def test_a_data_set_on_a_server_is_read_as_on_disk(tmp_path, server):
    rows = [
        *[("good.jpg", b"x"), ("good.txt", "a dog\r\n\r\nein Hund läuft".encode())],
        *[("./sub/a.PNG", b"y"), ("sub/a.json", b'{"captions": ["one", "two"]}')],
        *[("__meta__/b.jpg", b"z"), ("__meta__/b.txt", b"kept"), ("__about__", b"")],
        *[("none.jpg", b""), ("broken.jpg", b"x"), ("broken.json", b"[1]")],
        *[("lone.txt", b"no image"), ("latin.jpg", b"x"), ("latin.txt", b"caf\xe9")],
        *[("../out.jpg", b"x"), ("../out.txt", b"a dog"), ("good.txt", b"again")],
        *[("/etc/away.jpg", b"x"), ("/etc/away.txt", b"a dog"), ("/etc/hostname", b"")],
    ]
    write_tar(tmp_path / "set" / "train-0.tar", rows, tarfile.PAX_FORMAT)
    with tarfile.open(tmp_path / "set" / "train-0.tar", "a") as archive:
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "good.jpg"
        archive.addfile(link)
    write_tar(tmp_path / "set" / "val-0.tar", [("a.jpg", b"1"), ("a.txt", b"a cat")])
    server.serve_directory(tmp_path)
    expected = read_captions(tmp_path / "set", on_error="skip")
    remote = read_captions(f"{server.url}/set/{{train,val}}-0.tar", on_error="skip")
    assert (remote.name, remote.format) == ("set", "webdataset")
    assert len(remote.problems) == 11
    assert str(remote.root) == f"{server.url}/set/{{train,val}}-0.tar"
    for one, other in zip(remote.examples, expected.examples, strict=True):
        assert (one.id, one.captions, one.split) == (other.id, other.captions, other.split)
        assert str(one.path) == str(other.path).replace(str(tmp_path), server.url)
        assert storage.read(one.path) == storage.read(other.path)
        assert storage.size(one.path) == storage.size(other.path)
    problems = [str(problem).replace(server.url, str(tmp_path)) for problem in remote.problems]
    assert problems == [str(problem) for problem in expected.problems]
    assert not storage.is_file(storage.parse_location(f"{server.url}/set/val-0.tar/gone.jpg"))


def test_a_list_may_name_servers_and_disks(tmp_path, server, directory):
    server.serve_directory(directory)
    names = [f"{server.url}/train-{{00..03}}.tar", "set/val-00.tar", f"{directory}/test-00.tar"]
    (tmp_path / "list.txt").write_text("\n".join(names))
    found = read_captions(tmp_path / "list.txt").examples
    expected = {e.path.parts[-2:]: (e.captions, e.split) for e in read_captions(directory).examples}
    assert {e.path.parts[-2:]: (e.captions, e.split) for e in found} == expected


def test_caption_files_cannot_name_servers(tmp_path, server, monkeypatch):
    """Not even in the working directory, where the path of the image begins like an address."""
    server.serve_tar("x.tar", [("a.jpg", b"content")])
    monkeypatch.chdir(tmp_path)
    row = {"image": f"{server.url}/x.tar/a.jpg", "caption": "a dog"}
    Path("captions.jsonl").write_text(json.dumps(row))
    for data in (".", "captions.jsonl", tmp_path):
        with pytest.raises(InputError, match=r"contains the URL of an image, not a file name"):
            read_captions(data)
    with pytest.raises(InputError, match="no such file"):
        load_image(Path(row["image"]))
    assert server.requests == []


@pytest.mark.parametrize("name", ["http:/z.txt", "a/https:/z.txt", "a,http:/z.txt", "{http:/z.txt"])
def test_members_may_have_names_that_look_like_addresses(tmp_path, server, name):
    server.serve_tar("x.tar", [(name, b"a dog")])
    write_tar(tmp_path / "near.tar", [(name, b"a dog")])
    for tar in (tmp_path / "near.tar", storage.parse_location(f"{server.url}/x.tar")):
        assert storage.read(tar / name) == b"a dog"
        assert str(tar / name) == f"{tar}/{name}"


# ---- reading ------------------------------------------------------------------------------------


def test_members_in_any_order_cost_one_download(server, members):
    for path, content in random.Random(0).sample(members, 30):
        assert storage.read(path) == content
    assert server.downloads("x.tar") == 2  # one of them for the index
    assert storage.read(members[29][0]) == members[29][1]
    assert len(server.requests) == 2


@pytest.mark.parametrize(("limit", "downloads"), [(10_000, 1), (9_999, 2)])
def test_kept_members_fit_in_the_memory_for_them(server, members, monkeypatch, limit, downloads):
    """Windows of ten, read backwards: each fits, or its first member is downloaded again."""
    monkeypatch.setattr(location, "KEPT_BYTES", limit)
    sizes = []
    for first, total in ((0, downloads), (10, 2 * downloads - 1)):
        for path, content in reversed(members[first : first + 10]):
            assert storage.read(path) == content
            sizes.append(remote_tar.kept_members.size)
        assert server.downloads("x.tar") == 1 + total
    assert max(sizes) <= limit


def test_members_that_were_taken_are_dropped_first(monkeypatch):
    monkeypatch.setattr(location, "KEPT_BYTES", 3)
    kept = MemberCache()
    for key in "abc":
        kept.put(key, key.encode())
    assert kept.take("c") == b"c"
    assert kept.take("z") is None
    kept.put("d", b"d")
    assert [kept.take(key) for key in "abcd"] == [b"a", b"b", None, b"d"]
    kept.put("b", b"b")  # again
    kept.put("e", b"e")
    assert kept.take("d") is None
    assert kept.take("b") == b"b"
    assert kept.size == 3
    kept.put("large", b"large")
    assert kept.take("large") is None
    assert kept.size == 0


def test_threads_share_one_download(server, members):
    shuffled = random.Random(1).sample(members, 30)
    with ThreadPoolExecutor(8) as pool:
        contents = list(pool.map(lambda member: storage.read(member[0]), shuffled))
    assert contents == [content for _, content in shuffled]
    assert server.downloads("x.tar") == 2


@pytest.mark.parametrize(("limit", "downloads"), [(3, 2), (2, 4)])
def test_few_tar_files_are_read_at_once(server, monkeypatch, limit, downloads):
    """One that was closed is downloaded again; one download of each is for its index."""
    monkeypatch.setattr(remote_tar, "OPEN", limit)
    for i in range(3):
        server.serve_tar(f"{i}.tar", [("a", b"a"), ("b", b"b" * 20_000), ("c", b"c")])
    for name in "abc":
        for i in range(3):
            assert (
                storage.read(storage.parse_location(f"{server.url}/{i}.tar/{name}"))[:1]
                == name.encode()
            )
    assert {server.downloads(f"{i}.tar") for i in range(3)} == {downloads}


# ---- damage -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("members")
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda _: b"not a tar file" * 100, "x.tar is not a readable tar file"),
        (lambda _: b"", "x.tar is not a readable tar file"),
        (lambda content: content[:1200], r"tar file: unexpected end of data; decompress it or"),
        (
            lambda content: content[:1536],
            r"tar file: truncated at byte 1536; decompress it or copy it again",
        ),
        (
            lambda content: content[: 30 * 1536],
            r"tar file: truncated at byte 46080; decompress it or copy",
        ),
        (
            lambda content: content[: 30 * 1536] + b"x" * 512,
            r"tar file: invalid header at byte 46080",
        ),
        (lambda content: content + b"x", r"tar file: a header is missing or damaged"),
        (
            lambda content: content[:20000] + b"x" * 20000,
            r"tar file: (invalid header|unexpected end|a header)",
        ),
    ],
)
def test_damaged_tar_files_on_a_server_are_refused(server, damage, message):
    server.files["x.tar"] = damage(server.files["x.tar"])
    with pytest.raises(InputError, match=message) as caught:
        read_captions(f"{server.url}/x.tar", on_error="skip")
    assert not isinstance(caught.value, UnreachableError)
    assert " @ " not in str(caught.value)


GIGABYTES = 4 * 2**30


def disguised_tar():
    """A tar file whose first bytes are those of gzip."""
    about = tarfile.TarInfo("\x1f\x8b\x08\x04name.jpg")
    header = bytearray(about.tobuf(tarfile.USTAR_FORMAT, "latin-1"))
    return bytes(header) + bytes(1024)


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz", "disguised"])
def test_compressed_tar_files_on_a_server_are_refused(server, kind):
    if kind == "disguised":
        server.files["x.tar"] = disguised_tar()
    else:
        server.serve_tar("x.tar", [("a.jpg", bytes(10**6)), ("a.txt", b"a dog")])
        compress = importlib.import_module({"gz": "gzip", "xz": "lzma"}.get(kind, kind)).compress
        server.files["x.tar"] = compress(server.files["x.tar"])
    with pytest.raises(
        InputError, match=r"is not a readable tar file: it is compressed; decompress it or"
    ):
        read_captions(f"{server.url}/x.tar", on_error="skip")


def sparse_header(name):
    """A member in GNU's old sparse format: one header for gigabytes of zeros."""
    header = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT))
    header[156:157], header[483:495] = tarfile.GNUTYPE_SPARSE, b"%011o\0" % GIGABYTES
    header[148:156] = b"%06o\0 " % tarfile.calc_chksums(header)[0]
    return bytes(header)


def test_sparse_members_are_left_out(tmp_path, server):
    server.serve_tar("x.tar", [("b.jpg", b"b"), ("__about__", b""), ("c.jpg", b"c")])
    server.files["x.tar"] = sparse_header("a.jpg") + sparse_header("b.jpg") + server.files["x.tar"]
    (tmp_path / "x.tar").write_bytes(server.files["x.tar"])
    for tar in (tmp_path / "x.tar", storage.parse_location(f"{server.url}/x.tar")):
        assert not storage.is_file(tar / "a.jpg")
        assert (storage.read(tar / "c.jpg"), storage.read(tar / "b.jpg")) == (b"c", b"b")


def test_members_that_are_too_large_are_not_read(server, monkeypatch):
    assert remote_tar.LARGEST == images.MAX_BYTES
    monkeypatch.setattr(remote_tar, "LARGEST", 999)
    monkeypatch.setattr(images, "MAX_BYTES", 999)
    server.serve_tar(
        "x.tar", [("a.jpg", b"a" * 999), ("b.jpg", bytes(1000)), ("c.txt", bytes(1000)), ("d", b"")]
    )
    tar = storage.parse_location(f"{server.url}/x.tar")
    assert storage.read(tar / "a.jpg") == b"a" * 999
    assert storage.size(tar / "b.jpg") == 1000
    assert storage.read(tar / "d") == b""
    assert remote_tar.kept_members.size == 999
    with pytest.raises(InputError, match=r"x.tar/b.jpg': 1,000 bytes exceed the limit of 999"):
        load_image(tar / "b.jpg")
    with pytest.raises(InputError, match=r"x.tar/c.txt: 1,000 bytes exceed the limit of 999; shr"):
        storage.read(tar / "c.txt")


# ---- the webdataset package ---------------------------------------------------------------------

SECURE = """
import sys
from captioner.data.storage import files as storage
assert storage.read(storage.parse_location(sys.argv[1])) == b"content"
import webdataset
for name in ("pipe:true", "pipe:cat /etc/hostname"):
    try:
        webdataset.gopen(name)
    except ValueError as error:
        print(error)
"""


@pytest.mark.slow
def test_no_name_can_run_a_command(server):
    server.serve_tar("x.tar", [("a.jpg", b"content")])
    environment = {k: v for k, v in os.environ.items() if k != "WDS_SECURE"}
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", SECURE, f"{server.url}/x.tar/a.jpg"],
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.stderr == ""
    assert run.stdout.count("cannot open pipe URLs") == 2


@pytest.mark.usefixtures("members")
def test_a_missing_package_is_named(server, monkeypatch):
    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(InputError, match=r"need webdataset; run pip install 'captioner\["):
        read_captions(f"{server.url}/x.tar")
