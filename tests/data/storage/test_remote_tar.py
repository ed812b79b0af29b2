"""Tar files on servers give what they give on a disk, at about one way through each."""

import importlib
import io
import json
import os
import pickle
import random
import signal
import socket
import ssl
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import trustme

import evaluate
import train
from captioner import __main__ as commands
from captioner.checkpoints import checkpoint
from captioner.data import batches, images
from captioner.data.images import Transform, load_image
from captioner.data.readers import read_captions
from captioner.data.storage import http as downloads
from captioner.data.storage import remote_tar as streams
from captioner.data.storage import tar as shards
from captioner.data.storage.http import Unreachable
from captioner.errors import InputError, Interrupted
from captioner.vision import feature_cache as features
from captioner.vision.encoders import SmallCNN
from captioner.vision.feature_cache import ImageSource
from tests.support import loopback_files, tiny
from tests.support.layouts import write_tar

ROOT = Path(__file__).parents[3]
SHARDS = [f"train-{i:02}.tar" for i in range(4)] + ["val-00.tar", "test-00.tar"]
PATTERN = "{train-{00..03},val-00,test-00}.tar"


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """As if the program had just been started; and no waiting."""
    monkeypatch.setattr(downloads, "PAUSES", (0,) * 5)
    monkeypatch.setenv("no_proxy", "*")
    forget()
    yield
    forget()


def forget():
    for shard in streams._shards.values():
        shard.download.close()
    streams._shards.clear()
    streams._kept.__init__()
    streams._contents.cache_clear()


@pytest.fixture
def server():
    with loopback_files.running() as server:
        yield server


@pytest.fixture
def directory(tmp_path, tmp_path_factory):
    return tiny.write_shards(tmp_path / "set", tiny.data(tmp_path_factory))


@pytest.fixture
def members(server):
    """Thirty files of 1,000 bytes in x.tar on the server."""
    members = [(f"{i:02}.jpg", bytes([i]) * 1000) for i in range(30)]
    serve(server, "x.tar", members)
    return [(shards.place(f"{server.url}/x.tar/{name}"), content) for name, content in members]


def serve(server, name, members, **options):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", **options) as archive:
        for member, value in members:
            about = tarfile.TarInfo(member)
            about.size = len(value)
            archive.addfile(about, io.BytesIO(value))
    server.files[name] = content.getvalue()


# ---- what is found ------------------------------------------------------------------------------


def test_what_is_found_is_what_is_found_in_place(tmp_path, server):
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
    server.serve(tmp_path)
    near = read_captions(tmp_path / "set", on_error="skip")
    far = read_captions(f"{server.url}/set/{{train,val}}-0.tar", on_error="skip")
    assert (far.name, far.format) == ("set", "webdataset") and len(far.problems) == 11
    assert str(far.root) == f"{server.url}/set/{{train,val}}-0.tar"
    for one, other in zip(far.examples, near.examples, strict=True):
        assert (one.id, one.captions, one.split) == (other.id, other.captions, other.split)
        assert str(one.path) == str(other.path).replace(str(tmp_path), server.url)
        assert shards.read(one.path) == shards.read(other.path)
        assert shards.size(one.path) == shards.size(other.path)
    said = [str(problem).replace(server.url, str(tmp_path)) for problem in far.problems]
    assert said == [str(problem) for problem in near.problems]
    assert not shards.is_file(shards.place(f"{server.url}/set/val-0.tar/gone.jpg"))


def test_servers_and_disks_in_one_list(tmp_path, server, directory):
    server.serve(directory)
    names = [f"{server.url}/train-{{00..03}}.tar", "set/val-00.tar", f"{directory}/test-00.tar"]
    (tmp_path / "list.txt").write_text("\n".join(names))
    found = read_captions(tmp_path / "list.txt").examples
    expected = {e.path.parts[-2:]: (e.captions, e.split) for e in read_captions(directory).examples}
    assert {e.path.parts[-2:]: (e.captions, e.split) for e in found} == expected


def test_a_caption_file_names_no_server(tmp_path, server, monkeypatch):
    """Also where its directory is the present one, and the name's path begins as a URL does."""
    serve(server, "x.tar", [("a.jpg", b"content")])
    monkeypatch.chdir(tmp_path)
    row = {"image": f"{server.url}/x.tar/a.jpg", "caption": "a dog"}
    Path("captions.jsonl").write_text(json.dumps(row))
    for data in (".", "captions.jsonl", tmp_path):
        with pytest.raises(InputError, match=r"x.tar/a.jpg is missing"):
            read_captions(data)
    with pytest.raises(InputError, match="no such file"):
        load_image(Path(row["image"]))
    assert server.asked == []


@pytest.mark.parametrize("name", ["http:/z.txt", "a/https:/z.txt", "a,http:/z.txt", "{http:/z.txt"])
def test_a_file_may_be_called_as_an_address_begins(tmp_path, server, name):
    serve(server, "x.tar", [(name, b"a dog")])
    write_tar(tmp_path / "near.tar", [(name, b"a dog")])
    for tar in (tmp_path / "near.tar", shards.place(f"{server.url}/x.tar")):
        assert shards.read(tar / name) == b"a dog" and str(tar / name) == f"{tar}/{name}"


def test_an_address_comes_back_as_it_was_written():
    for text in ("http://host:80/a b/x.tar", "https://host/x.tar", "{https://a/x,http://b/y}.tar"):
        assert pickle.loads(pickle.dumps(shards.place(text))) == shards.place(text)
        assert str(shards.place(text)) == str(shards.place(Path(text))) == text
        assert str(shards.absolute(Path(text))) == text
    assert str(shards.place("http.tar", Path("directory"))) == "directory/http.tar"


# ---- reading forward ----------------------------------------------------------------------------


def test_files_in_any_order_cost_one_way_through(server, members):
    for path, content in random.Random(0).sample(members, 30):
        assert shards.read(path) == content
    assert server.opened("x.tar") == 2  # once for what it holds
    assert shards.read(members[29][0]) == members[29][1]
    assert len(server.asked) == 2


@pytest.mark.parametrize(("kept", "times"), [(10_000, 1), (9_999, 2)])
def test_no_more_is_kept_than_may_be(server, members, monkeypatch, kept, times):
    """Windows of ten, read backwards: each fits, or its first file has to be fetched again."""
    monkeypatch.setattr(streams, "KEPT", kept)
    sizes = []
    for first, opened in ((0, times), (10, 2 * times - 1)):
        for path, content in reversed(members[first : first + 10]):
            assert shards.read(path) == content
            sizes.append(streams._kept.size)
        assert server.opened("x.tar") == 1 + opened
    assert max(sizes) <= kept


def test_what_was_taken_goes_before_what_was_not(monkeypatch):
    monkeypatch.setattr(streams, "KEPT", 3)
    kept = streams.Kept()
    for key in "abc":
        kept.put(key, key.encode())
    assert kept.take("c") == b"c" and kept.take("z") is None
    kept.put("d", b"d")
    assert [kept.take(key) for key in "abcd"] == [b"a", b"b", None, b"d"]
    kept.put("b", b"b")  # anew
    kept.put("e", b"e")
    assert kept.take("d") is None and kept.take("b") == b"b" and kept.size == 3
    kept.put("large", b"large")
    assert kept.take("large") is None and kept.size == 0


def test_threads_share_one_way_through(server, members):
    shuffled = random.Random(1).sample(members, 30)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda member: shards.read(member[0]), shuffled))
    assert found == [content for _, content in shuffled]
    assert server.opened("x.tar") == 2


def test_of_many_tar_files_few_are_open(server, monkeypatch):
    monkeypatch.setattr(streams, "OPEN", 2)
    for i in range(3):
        serve(server, f"{i}.tar", [("a", b"a"), ("b", b"b" * 20_000), ("c", b"c")])
    for name in "abc":
        for i in range(3):
            assert shards.read(shards.place(f"{server.url}/{i}.tar/{name}"))[:1] == name.encode()
    assert len(streams._shards) == 2


# ---- connections --------------------------------------------------------------------------------


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("breaks", [[3000], [0, 511, 700, 0], [(503, {}), 20_000, (429, {})]])
def test_a_lost_connection_goes_on_where_it_was(server, members, ranges, breaks):
    server.tell -= set() if ranges else {"ranges"}
    server.fail["x.tar"] = [(503, {}), None, *breaks]
    assert [shards.read(path) for path, _ in members] == [content for _, content in members]
    assert not server.fail["x.tar"]
    assert any(first for _, first in server.asked) == ranges


def test_an_ever_broken_connection_ends_it(server, members):
    server.fail["x.tar"] = [None, 15000, *[0] * 5]
    message = r"x.tar cannot be read beyond byte 15,000, tried 6 times: it ends too early; look at"
    for path, _ in members[:2]:
        shards.read(path)
    with pytest.raises(Unreachable, match=message) as caught:
        shards.read(members[9][0])
    assert " @ " not in str(caught.value)
    assert shards.read(members[9][0]) == members[9][1]  # later, when the server is there again


def test_a_file_that_changes_is_not_read_on(server, members):
    shards.read(members[3][0])
    forget_readers = streams._shards.clear
    serve(server, "x.tar", [(f"{i:02}.jpg", b"other" * 200) for i in range(30)])
    for shard in streams._shards.values():
        shard.download.close()
    forget_readers()
    with pytest.raises(Unreachable, match=r"x.tar has changed since it was gone through; start"):
        shards.read(members[5][0])
    server.tell -= {"state", "length"}  # the server tells nothing
    forget()
    assert shards.read(members[3][0]) == b"other" * 200
    serve(server, "x.tar", [("new.jpg", b"new")])
    streams._shards[members[0][0].parent].begin()
    with pytest.raises(Unreachable, match=r"x.tar has changed since it was gone through; start"):
        shards.read(members[5][0])


def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "gone-{0..1}.tar",
            r"/gone-0.tar cannot be had: the server says 404 Not Found; check the address",
        ),
        ("gone.tar", r"/gone.tar cannot be had: the server says 404 Not Found; check the address"),
        ("moved.tar", r"moved.tar cannot be opened, tried 6 times: .*ftp.*; check the address"),
        (
            "busy.tar",
            r"busy.tar cannot be opened, tried 6 times: Service Unavailable; check the address",
        ),
        ("a b.tar", r"a b.tar cannot be opened, .*; check the address"),
        ("ä.tar", r"ä.tar cannot be opened, .*; check the address"),
        ("set/", "/set is no address of a tar file, which ends in .tar; correct it"),
        ("x.tar?key=1", "is no address of a tar file"),
        ("y.tar/x.tar", "is no address of a tar file"),
    ],
)
def test_addresses_that_lead_nowhere(server, name, message):
    server.fail["moved.tar"] = [(302, {"Location": "ftp://127.0.0.1/x.tar"})] * 6
    server.fail["busy.tar"] = [(503, {})] * 6
    with pytest.raises(InputError, match=message):
        read_captions(f"{server.url}/{name}", on_error="skip")


def test_a_server_that_is_not_there():
    with pytest.raises(Unreachable, match=r"/x.tar cannot be opened, .*refused; check the address"):
        read_captions(f"http://127.0.0.1:{closed_port()}/x.tar")


def test_a_secured_server(tmp_path, monkeypatch):
    authority, secured = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(secured)
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    with loopback_files.running(secured) as server:
        serve(server, "x.tar", [("a.jpg", b"content"), ("a.txt", b"a dog")])
        with pytest.raises(Unreachable, match=r"not trusted.*SSL_CERT_FILE"):
            read_captions(f"{server.url}/x.tar")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
        server.fail["x.tar"] = [700]
        (example,) = read_captions(f"{server.url}/x.tar").examples
        assert shards.read(example.path) == b"content"
        assert server.url.startswith("https://") and example.captions == ("a dog",)


def test_a_server_that_sends_on(server, members):
    server.files["other.tar"] = b""
    server.fail["other.tar"] = [(302, {"Location": "/x.tar"})] * 2
    assert shards.read(shards.place(f"{server.url}/other.tar/03.jpg")) == members[3][1]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: b"no tar file at all" * 100, "x.tar is no tar file that can be read"),
        (lambda content: b"", "x.tar is no tar file that can be read"),
        (lambda content: content[:1200], r"\(unexpected end of data\); decompress it, or"),
        (
            lambda content: content[:1536],
            r"\(no end at byte 1536\); decompress it, or copy it there",
        ),
        (lambda content: content[: 30 * 1536], r"\(no end at byte 46080\); decompress it, or copy"),
        (lambda content: content[: 30 * 1536] + b"x" * 512, r"\(no header at byte 46080\)"),
        (lambda content: content + b"x", r"\(no header where one should be\)"),
        (lambda content: content[:20000] + b"x" * 20000, r"\((no header|unexpected end)"),
    ],
)
def test_tar_files_that_are_damaged_on_the_server(server, members, damage, message):
    server.files["x.tar"] = damage(server.files["x.tar"])
    with pytest.raises(InputError, match=message) as caught:
        read_captions(f"{server.url}/x.tar", on_error="skip")
    assert not isinstance(caught.value, Unreachable) and " @ " not in str(caught.value)


GIGABYTES = 4 * 2**30


def disguised():
    """A tar file that begins as what gzip writes."""
    about = tarfile.TarInfo("\x1f\x8b\x08\x04name.jpg")
    header = bytearray(about.tobuf(tarfile.USTAR_FORMAT, "latin-1"))
    return bytes(header) + bytes(1024)


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz", "disguised"])
def test_compressed_tar_files_on_a_server_are_refused(server, kind):
    if kind == "disguised":
        server.files["x.tar"] = disguised()
    else:
        serve(server, "x.tar", [("a.jpg", bytes(10**6)), ("a.txt", b"a dog")])
        compress = importlib.import_module({"gz": "gzip", "xz": "lzma"}.get(kind, kind)).compress
        server.files["x.tar"] = compress(server.files["x.tar"])
    with pytest.raises(
        InputError, match=r"can be read \(it is compressed\); decompress it, or copy"
    ):
        read_captions(f"{server.url}/x.tar", on_error="skip")


def sparse(name):
    """A file of GNU's old sparse format: gigabytes of zeros in a header."""
    header = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT))
    header[156:157], header[483:495] = tarfile.GNUTYPE_SPARSE, b"%011o\0" % GIGABYTES
    header[148:156] = b"%06o\0 " % tarfile.calc_chksums(header)[0]
    return bytes(header)


def test_sparse_files_are_passed_over(tmp_path, server):
    serve(server, "x.tar", [("b.jpg", b"b"), ("__about__", b""), ("c.jpg", b"c")])
    server.files["x.tar"] = sparse("a.jpg") + sparse("b.jpg") + server.files["x.tar"]
    (tmp_path / "x.tar").write_bytes(server.files["x.tar"])
    for tar in (tmp_path / "x.tar", shards.place(f"{server.url}/x.tar")):
        assert not shards.is_file(tar / "a.jpg")
        assert (shards.read(tar / "c.jpg"), shards.read(tar / "b.jpg")) == (b"c", b"b")


def test_files_that_are_too_large_are_not_read(server, monkeypatch):
    assert streams.LARGEST == images.MAX_BYTES
    monkeypatch.setattr(streams, "LARGEST", 999)
    monkeypatch.setattr(images, "MAX_BYTES", 999)
    serve(server, "x.tar", [("a.jpg", b"a" * 999), ("b.jpg", bytes(1000)), ("c.txt", bytes(1000))])
    tar = shards.place(f"{server.url}/x.tar")
    assert shards.read(tar / "a.jpg") == b"a" * 999 and shards.size(tar / "b.jpg") == 1000
    assert [
        number for number, _, _ in streams._members(streams.Stream(tar), streams.contents(tar))
    ] == [0]
    with pytest.raises(InputError, match=r"x.tar/b.jpg': 1,000 bytes, at most 999 are read"):
        load_image(tar / "b.jpg")
    with pytest.raises(InputError, match=r"x.tar/c.txt: 1,000 bytes, at most 999 are read; shrink"):
        shards.read(tar / "c.txt")


# ---- the package --------------------------------------------------------------------------------

SECURE = """
import sys
from captioner.data.storage import tar as shards
assert shards.read(shards.place(sys.argv[1])) == b"content"
import webdataset
for name in ("pipe:true", "pipe:cat /etc/hostname"):
    try:
        webdataset.gopen(name)
    except ValueError as error:
        print(error)
"""


def test_the_package_runs_no_commands(server):
    serve(server, "x.tar", [("a.jpg", b"content")])
    environment = {k: v for k, v in os.environ.items() if k != "WDS_SECURE"}
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", SECURE, f"{server.url}/x.tar/a.jpg"],
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.stderr == "" and run.stdout.count("cannot open pipe URLs") == 2


def test_without_the_package(server, members, monkeypatch):
    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(InputError, match=r"need the webdataset package: pip install 'captioner\["):
        read_captions(f"{server.url}/x.tar")


# ---- training and all that follows --------------------------------------------------------------


@pytest.fixture
def start(tmp_path, server, directory, monkeypatch):
    """Trains in a directory of its own, on the shards in place or on the server, in windows of 8."""
    server.serve(directory)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(features, "WINDOW", 8)
    torch.manual_seed(3)
    torch.save(SmallCNN().state_dict(), "encoder.pth")

    def call(run, data, *options):
        forget()
        train.main(["--data", data, "--run", run, *tiny.OPTIONS, *options])
        rows = Path("checkpoints", run, "log.jsonl").read_text().splitlines()
        return checkpoint.load(f"checkpoints/{run}"), [tiny.untimed(json.loads(r)) for r in rows]

    return call


FROZEN = ["--encoder-weights", "encoder.pth", "--attention"]


@pytest.mark.parametrize("options", [[], ["--workers", "3"], FROZEN, ["--batch-size", "5"]])
def test_training_is_what_it_is_in_place(start, server, options):
    near, near_log = start("near", f"set/{PATTERN}", *options)
    far, far_log = start("far", f"{server.url}/{PATTERN}", *options)
    assert far_log == near_log and len(far_log) == 2
    assert far.weights.keys() == near.weights.keys()
    assert all(torch.equal(value, near.weights[name]) for name, value in far.weights.items())
    changed = {k for k, v in far.config["data"].items() if v != near.config["data"][k]}
    assert changed == {"name", "path"}


def test_an_epoch_opens_each_tar_file_once(start, server, directory, monkeypatch):
    """At most: with room for a window and not for the set; looked into, and checked, before."""
    images = [e.path for e in read_captions(directory).examples]
    monkeypatch.setattr(streams, "KEPT", 16 * max(map(shards.size, images)))
    start("run", f"{server.url}/{PATTERN}", "--epochs", "4", "--patience", "9")
    assert all(2 < server.opened(name) <= 2 + 4 for name in SHARDS[:4])
    assert server.opened("val-00.tar") <= 2 + 4 + 1 and server.opened("test-00.tar") == 1
    server.asked.clear()
    start("run", f"{server.url}/{PATTERN}", "--epochs", "4", "--patience", "9", "--resume")
    assert {server.opened(name) for name in SHARDS[:4]} == {1}  # checked before, and trained


def test_large_images_are_shuffled_in_smaller_windows(members, tmp_path, monkeypatch):
    paths = [path for path, _ in members]
    for kept, expected in [(2**30, 2000), (20_000, 10), (10, 0)]:
        monkeypatch.setattr(streams, "KEPT", kept)
        assert ImageSource(paths, Transform(32)).window() == expected
    assert ImageSource([tmp_path / "a.jpg"], Transform(32)).window() == 10 // 2  # never used


def test_frozen_features_are_computed_once_for_a_state_of_the_tar_files(start, server):
    url = f"{server.url}/{PATTERN}"
    start("a", url, *FROZEN)
    assert {server.opened(name) for name in SHARDS[:5]} == {2}  # told, checked; then they are kept
    server.asked.clear()
    start("b", url, *FROZEN)
    assert {server.opened(name) for name in SHARDS[:5]} == {1}
    server.files["val-00.tar"] += bytes(10240)
    server.asked.clear()
    start("c", url, *FROZEN)
    assert {server.opened(name) for name in SHARDS[:4]} == {1} and server.opened(SHARDS[4]) == 2


def test_a_streamed_training_that_was_stopped_goes_on_exactly(start, server, monkeypatch):
    url, load, loaded = f"{server.url}/{PATTERN}", batches.Source.batch, []

    def stopping(self, *arguments):
        loaded.append(1)
        if len(loaded) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return load(self, *arguments)

    straight, log = start("straight", url, "--batch-size", "4", "--dropout", "0.5")
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(batches.Source, "batch", stopping)
        start("stopped", url, "--batch-size", "4", "--dropout", "0.5")
    server.fail["train-02.tar"] = [None, 2000, 100]
    again, log_again = start("stopped", url, "--batch-size", "4", "--dropout", "0.5", "--resume")
    assert log_again == log
    assert all(torch.equal(value, again.weights[key]) for key, value in straight.weights.items())


def test_a_server_that_fails_is_no_image_that_cannot_be_decoded(start, server):
    server.fail["train-01.tar"] = [None, *[0] * 6]
    with pytest.raises(Unreachable, match=r"train-01.tar cannot be read beyond byte 0"):
        start("run", f"{server.url}/{PATTERN}", "--on-error", "skip")
    assert not Path("checkpoints/run").exists()


def test_images_that_cannot_be_decoded_are_told_by_address(start, server):
    broken = [("a.png", b"no image"), ("a.txt", b"a dog"), ("b.png", b""), ("b.txt", b"a dog")]
    serve(server, "train-03.tar", broken)
    with pytest.raises(InputError) as caught:
        start("run", f"{server.url}/{PATTERN}")
    _, first, second = str(caught.value).split("\n")
    assert first.startswith(f"  {server.url}/train-03.tar/a.png: not an image in any")
    assert second.startswith(f"  {server.url}/train-03.tar/b.png: the file is empty; replace")


def test_commands_on_what_a_server_has(start, server, directory, capsys, monkeypatch):
    url = f"{server.url}/{PATTERN}"
    start("run", url)
    said = capsys.readouterr().out
    image = f"{server.url}/val-00.tar/100.png"
    assert f"captioner caption {image} --checkpoint checkpoints/run" in said
    evaluate.main(["--checkpoint", "checkpoints/run", "--workers", "2"])
    said = capsys.readouterr().out
    assert "val split, 7 images" in said and "% novel" in said
    commands.main(["caption", image, "--checkpoint", "checkpoints/run"])
    assert capsys.readouterr().out.startswith(f"{image}\t")
    commands.main(["data", url])
    assert f"{url}: webdataset (tar files)\n" in capsys.readouterr().out
    here = load_image(directory / "val-00.tar" / "100.png")
    assert load_image(image).tobytes() == here.tobytes()


def test_converting_copies_the_images_of_a_server(tmp_path, server, directory, monkeypatch):
    server.serve(directory)
    url = f"{server.url}/{PATTERN}"
    commands.main(["data", url, "--convert", "jsonl", str(tmp_path / "out")])
    server.files.clear()
    found, expected = read_captions(tmp_path / "out"), read_captions(directory)
    assert {(e.id, e.captions, e.split) for e in found.examples} == {
        (e.id, e.captions, e.split) for e in expected.examples
    }
    images = {e.id: shards.read(e.path) for e in expected.examples}
    assert {e.id: e.path.read_bytes() for e in found.examples} == images
    assert load_image(tmp_path / "out" / "images" / "val-00.tar" / "100.png").size == (36, 24)
