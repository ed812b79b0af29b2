"""Training, evaluation and commands on tar files of a server, against the same files on disk."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch

import evaluate
import train
from captioner import __main__ as commands
from captioner.checkpoints import checkpoint
from captioner.data import sources
from captioner.data.images import Transform, load_image
from captioner.data.readers import read_captions
from captioner.data.sources import ImageSource
from captioner.data.storage import files as storage
from captioner.data.storage import location, remote_tar
from captioner.data.storage.location import UnreachableError
from captioner.errors import InputError, Interrupted
from captioner.vision.encoders import SmallCNN
from tests.support import tiny

pytestmark = pytest.mark.slow

SHARDS = [f"train-{i:02}.tar" for i in range(4)] + ["val-00.tar", "test-00.tar"]
PATTERN = "{train-{00..03},val-00,test-00}.tar"


@pytest.fixture
def start(tmp_path, server, directory, monkeypatch):
    """Train in a new directory, on the tar files on disk or on the server, in windows of 8."""
    server.serve_directory(directory)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sources, "WINDOW", 8)
    monkeypatch.setattr(sources, "KEPT_BYTES", 0)  # as for large sets: images are read every epoch
    torch.manual_seed(3)
    torch.save(SmallCNN().state_dict(), "encoder.pth")

    def call(run, data, *options):
        remote_tar.forget()
        train.main(["--data", data, "--run", run, *tiny.OPTIONS, *options])
        rows = Path("checkpoints", run, "log.jsonl").read_text().splitlines()
        return checkpoint.load(f"checkpoints/{run}"), [tiny.untimed(json.loads(r)) for r in rows]

    return call


FROZEN = ["--encoder-weights", "encoder.pth", "--attention"]


@pytest.mark.parametrize("options", [[], ["--workers", "3"], FROZEN, ["--batch-size", "5"]])
def test_training_from_a_server_equals_training_from_disk(start, server, options):
    on_disk, expected_log = start("on_disk", f"set/{PATTERN}", *options)
    remote, log = start("remote", f"{server.url}/{PATTERN}", *options)
    assert log == expected_log
    assert len(log) == 2
    assert remote.weights.keys() == on_disk.weights.keys()
    assert all(torch.equal(value, on_disk.weights[name]) for name, value in remote.weights.items())
    changed = {k for k, v in remote.config["data"].items() if v != on_disk.config["data"][k]}
    assert changed == {"name", "path", "image_sizes"}  # images on servers have no stored sizes


def test_each_tar_file_is_downloaded_at_most_once_per_epoch(start, server, directory, monkeypatch):
    """With memory for one window only, and one download each to index and to check the images."""
    images = [e.path for e in read_captions(directory).examples]
    monkeypatch.setattr(location, "KEPT_BYTES", 16 * max(map(storage.size, images)))
    start("run", f"{server.url}/{PATTERN}", "--epochs", "4", "--patience", "9")
    assert all(2 < server.downloads(name) <= 2 + 4 for name in SHARDS[:4])
    assert server.downloads("val-00.tar") <= 2 + 4 + 1
    assert server.downloads("test-00.tar") == 1
    server.requests.clear()
    start("run", f"{server.url}/{PATTERN}", "--epochs", "4", "--patience", "9", "--resume")
    assert {server.downloads(name) for name in SHARDS[:4]} == {1}  # the check and the last epoch


def test_large_images_are_shuffled_in_smaller_windows(members, tmp_path, monkeypatch):
    paths = [path for path, _ in members]
    for kept, expected in [(2**30, 2000), (20_000, 10), (10, 0)]:
        monkeypatch.setattr(location, "KEPT_BYTES", kept)
        assert ImageSource(paths, Transform(32)).window == expected
    assert ImageSource([tmp_path / "a.jpg"], Transform(32)).window == 10 // 2  # not used


def test_frozen_features_are_computed_once_for_each_version_of_the_tar_files(start, server):
    url = f"{server.url}/{PATTERN}"
    start("a", url, *FROZEN)
    # For the index and for the check of the images, which are then kept.
    assert {server.downloads(name) for name in SHARDS[:5]} == {2}
    server.requests.clear()
    start("b", url, *FROZEN)
    assert {server.downloads(name) for name in SHARDS[:5]} == {1}
    server.files["val-00.tar"] += bytes(10240)
    server.requests.clear()
    start("c", url, *FROZEN)
    assert {server.downloads(name) for name in SHARDS[:4]} == {1}
    assert server.downloads(SHARDS[4]) == 2


def test_training_from_a_server_resumes_exactly(start, server, monkeypatch):
    """Stopped in the last epoch, by the number of images read."""
    read, reads, stop_at = storage.read, [], None

    def counted_read(path):
        reads.append(path)
        if len(reads) == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return read(path)

    monkeypatch.setattr(storage, "read", counted_read)
    url, options = f"{server.url}/{PATTERN}", ("--batch-size", "4", "--dropout", "0.5")
    straight, log = start("straight", url, *options)
    # The check of the images is not repeated. The last epoch reads 16 images to train and 7 to
    # validate, and the best model reads these 7 again.
    stop_at = len(reads) - len(set(reads)) - 7 - 7 - 8
    reads.clear()
    with pytest.raises(Interrupted):
        start("stopped", url, *options)
    server.failures["train-02.tar"] = [None, 2000, 100]
    resumed, resumed_log = start("stopped", url, *options, "--resume")
    assert resumed_log == log
    assert all(torch.equal(value, resumed.weights[key]) for key, value in straight.weights.items())


def test_a_failing_server_is_an_error_and_not_a_corrupt_image(start, server):
    server.failures["train-01.tar"] = [None, *[0] * 6]
    with pytest.raises(UnreachableError, match=r"train-01.tar cannot be read beyond byte 0"):
        start("run", f"{server.url}/{PATTERN}", "--on-error", "skip")
    assert not Path("checkpoints/run").exists()


def test_corrupt_images_are_listed_by_address(start, server):
    broken = [("a.png", b"not an image"), ("a.txt", b"a dog"), ("b.png", b""), ("b.txt", b"a dog")]
    server.serve_tar("train-03.tar", broken)
    with pytest.raises(InputError) as caught:
        start("run", f"{server.url}/{PATTERN}")
    _, first, second = str(caught.value).split("\n")
    assert first.startswith(f"  {server.url}/train-03.tar/a.png: not an image in any")
    assert second.startswith(f"  {server.url}/train-03.tar/b.png: the file is empty; replace")


def test_commands_read_from_a_server(start, server, directory, capsys):
    url = f"{server.url}/{PATTERN}"
    start("run", url)
    output = capsys.readouterr().out
    image = f"{server.url}/val-00.tar/100.png"
    assert f"captioner caption {image} --checkpoint checkpoints/run" in output
    evaluate.main(["--checkpoint", "checkpoints/run", "--workers", "2"])
    output = capsys.readouterr().out
    assert "val split, 7 images" in output
    assert "% novel" in output
    commands.main(["caption", image, "--checkpoint", "checkpoints/run"])
    assert capsys.readouterr().out.startswith(f"{image}\t")
    commands.main(["data", url])
    assert f"{url}: webdataset (tar files)\n" in capsys.readouterr().out
    on_disk = load_image(directory / "val-00.tar" / "100.png")
    assert load_image(image).tobytes() == on_disk.tobytes()


def test_conversion_copies_the_images_of_a_server(tmp_path, server, directory):
    server.serve_directory(directory)
    url = f"{server.url}/{PATTERN}"
    commands.main(["data", url, "--convert", "jsonl", str(tmp_path / "out")])
    server.files.clear()
    copied, expected = read_captions(tmp_path / "out"), read_captions(directory)
    assert {(e.id, e.captions, e.split) for e in copied.examples} == {
        (e.id, e.captions, e.split) for e in expected.examples
    }
    images = {e.id: storage.read(e.path) for e in expected.examples}
    assert {e.id: e.path.read_bytes() for e in copied.examples} == images
    assert load_image(tmp_path / "out" / "images" / "val-00.tar" / "100.png").size == (36, 24)
