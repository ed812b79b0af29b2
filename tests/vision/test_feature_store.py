"""The feature store: rows per image, computed once, whole whatever happens."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from captioner.data.images import Transform
from captioner.errors import InputError
from captioner.vision import feature_store
from captioner.vision.feature_store import FeatureStore, Runtime, list_stores

CPU = Runtime(torch.device("cpu"), batch_size=4)


class Pixels:
    """A source of pixels that counts how often each image is loaded."""

    def __init__(self, count):
        self.values = torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        self.loaded = []

    def load(self, indices):
        self.loaded.extend(indices)
        return self.values[list(indices)]


def stamps(numbers):
    return [f"image {number}".encode() for number in numbers]


@pytest.fixture
def store(tmp_path, tiny_encoder):
    return FeatureStore(tmp_path, tiny_encoder(), Transform(32))


def test_rows_are_the_encoders_and_their_pools(store):
    pixels = Pixels(10)
    maps = store.open(pixels, stamps(range(10)), CPU)
    with torch.no_grad():
        expected = store.encoder.eval()(pixels.values)
    found = maps.load([7, 0, 3])
    torch.testing.assert_close(found.float(), expected[[7, 0, 3]], atol=1e-3, rtol=1e-3)
    pooled = store.open(pixels, stamps(range(10)), CPU, "pooled").load(range(10)).float()
    half = expected.half().float()
    torch.testing.assert_close(pooled[:, 0], half.mean((2, 3)), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(pooled[:, 1], half.amax((2, 3)))
    assert sorted(pixels.loaded) == list(range(10))  # each once, for both kinds


def test_only_what_is_new_is_computed(store, monkeypatch):
    monkeypatch.setattr(feature_store, "SEGMENT", 3)
    pixels = Pixels(12)
    first = store.open(pixels, stamps(range(8)), CPU).load(range(8))
    pixels.loaded.clear()
    again = store.open(pixels, stamps(range(12)), CPU)
    assert pixels.loaded == [8, 9, 10, 11]
    assert torch.equal(again.load(range(8)), first)
    pixels.loaded.clear()
    reordered = store.open(pixels, stamps([5, 11, 0]), CPU).load([0, 1, 2])  # another split
    assert pixels.loaded == []
    assert torch.equal(reordered, again.load([5, 11, 0]))


def test_the_same_image_twice_has_one_row(store):
    pixels = Pixels(4)
    rows = store.open(pixels, stamps([0, 1, 0, 1]), CPU)
    assert pixels.loaded == [0, 1]
    assert torch.equal(rows.load([0, 1]), rows.load([2, 3]))


def test_another_encoder_or_transform_has_a_store_of_its_own(store, tmp_path, tiny_encoder):
    others = [
        FeatureStore(tmp_path, tiny_encoder(seed=1), Transform(32)),
        FeatureStore(tmp_path, tiny_encoder(), Transform(64)),
        FeatureStore(tmp_path, tiny_encoder(), Transform(32, mean=(0, 0, 0))),
    ]
    assert len({each.directory for each in [store, *others]}) == 4
    assert FeatureStore(tmp_path, tiny_encoder(), Transform(32)).directory == store.directory


def test_pooled_rows_alone_store_no_maps(store):
    pixels = Pixels(5)
    store.open(pixels, stamps(range(5)), CPU, "pooled")
    assert not list(store.directory.glob("maps-*"))
    (info,) = list_stores(store.directory.parent)
    assert (info.maps, info.pooled, info.encoder, info.size) == (0, 5, "tiny", 32)


def test_a_segment_that_was_cut_short(store):
    rows = store.open(Pixels(5), stamps(range(5)), CPU)
    (file,) = (path for path in store.directory.glob("maps-*.npy") if "keys" not in path.name)
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size - 10)
    with pytest.raises(InputError, match=f"{file} was cut short; delete {store.directory}"):
        rows.load([0, 4])
    pixels = Pixels(5)
    assert torch.isfinite(store.open(pixels, stamps(range(5)), CPU).load([4])).all()
    assert sorted(pixels.loaded) == list(range(5))  # as if it were not there


def test_values_that_half_precision_cannot_hold(store):
    pixels = Pixels(2)
    pixels.values = pixels.values * 1e30
    with pytest.raises(InputError, match="features of tiny cannot be stored: half precision"):
        store.open(pixels, stamps(range(2)), CPU)
    assert not list(store.directory.glob("maps-*"))


def test_a_directory_that_cannot_be_written(tmp_path, tiny_encoder):
    (tmp_path / "file").write_text("x")
    store = FeatureStore(tmp_path / "file", tiny_encoder(), Transform(32))
    with pytest.raises(InputError, match="feature store .* cannot be written: "):
        store.open(Pixels(2), stamps(range(2)), CPU)


# ---- processes ----------------------------------------------------------------------------------

FILL = """
import sys, time
from pathlib import Path
import torch
from torch import nn
from captioner.data.images import Transform
from captioner.vision import feature_store
from captioner.vision.encoders import Encoder
from tests.vision.test_feature_store import CPU, Pixels, stamps

torch.manual_seed(0)
torch.set_num_threads(1)
encoder = Encoder("tiny", nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1)))
feature_store.SEGMENT = 4
class Slow(Pixels):
    def load(self, indices):
        time.sleep(float(sys.argv[2]))
        return super().load(indices)
store = feature_store.FeatureStore(Path(sys.argv[1]), encoder, Transform(32))
pixels = Slow(40)
print("ready", flush=True)
rows = store.open(pixels, stamps(range(40)), CPU)
with torch.no_grad():
    expected = encoder.eval()(pixels.values)
assert torch.allclose(rows.load(range(40)).float(), expected, atol=2e-3)
print(len(pixels.loaded))
"""


def fill(tmp_path, seconds):
    return subprocess.Popen(
        [sys.executable, "-c", FILL, str(tmp_path), str(seconds)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_killed_at_any_moment(tmp_path):
    """What was whole stays, nothing half-written is read, and the next run does the rest."""
    randomness = np.random.default_rng(0)
    for _ in range(5):
        with fill(tmp_path, 0.02) as process:
            assert process.stdout.readline() == "ready\n"
            time.sleep(float(randomness.uniform(0, 0.3)))
            process.send_signal(signal.SIGKILL)
    output, _ = fill(tmp_path, 0).communicate(timeout=60)
    assert int(output.split()[-1]) < 40  # the rest only


@pytest.mark.slow
def test_two_processes_fill_one_store(tmp_path):
    processes = [fill(tmp_path, 0.02) for _ in range(2)]
    counts = [int(each.communicate(timeout=60)[0].split()[-1]) for each in processes]
    assert all(each.returncode == 0 for each in processes)
    assert min(counts) < 40  # they share the work
