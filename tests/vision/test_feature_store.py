"""The feature store: rows per image, computed once, whole whatever happens."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from captioner.data.images import Transform
from captioner.data.sources import ImageSource
from captioner.errors import InputError
from captioner.vision import feature_store
from captioner.vision.encoders import Encoder
from captioner.vision.feature_store import FeatureStore, Runtime
from captioner.vision.store_files import list_stores, read_segments

CPU = Runtime(torch.device("cpu"), batch_size=4)


class Pixels:
    """A source of pixels that records which images are loaded, and calls `interrupt` before."""

    def __init__(self, count):
        self.values = torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        self.loaded = []
        self.interrupt = lambda: None

    def load(self, indices):
        self.interrupt()
        self.loaded.extend(indices)
        return self.values[list(indices)]


def stamps(numbers):
    return [f"image {number}".encode() for number in numbers]


@pytest.fixture
def store(tmp_path, tiny_encoder):
    return FeatureStore(tmp_path, tiny_encoder(), Transform(32))


def draw(path, seed):
    noise = np.random.default_rng(seed).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


@pytest.fixture
def paths(tmp_path):
    return [draw(tmp_path / f"{i}.png", i) for i in range(7)]


def files_of(store, kind="maps"):
    """The files of rows of a store."""
    return [segment.path for segment, _ in read_segments(store.directory, kind)]


def assert_holds(store, paths):
    """The rows of these files are what the encoder makes of them."""
    images = ImageSource(paths, store.transform)
    with torch.no_grad():
        expected = store.encoder.eval()(images.load(range(len(paths))))
    found = store.open_files(images, CPU).load(range(len(paths)))
    torch.testing.assert_close(found.float(), expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("workers", [0, 1])
def test_rows_are_the_encoders_and_their_pools(store, workers):
    store.encoder.train()
    pixels, runtime = Pixels(10), replace(CPU, workers=workers)
    maps = store.open(pixels, stamps(range(10)), runtime)
    with torch.no_grad():
        expected = store.encoder.eval()(pixels.values)
    found = maps.load([7, 0, 3, 3])
    assert found.dtype == torch.float16
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found.float(), expected[[7, 0, 3, 3]], atol=1e-3, rtol=1e-3)
    assert maps.load([]).shape == (0, 10, 4, 4)
    assert torch.equal(maps.load((1, 2)), maps.load(range(1, 3)))
    pooled = store.open(pixels, stamps(range(10)), runtime, "pooled").load(range(10)).float()
    half = expected.half().float()
    torch.testing.assert_close(pooled[:, 0], half.mean((2, 3)), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(pooled[:, 1], half.amax((2, 3)), atol=1e-3, rtol=1e-3)
    assert sorted(pixels.loaded) == list(range(10))  # each once, for both kinds


def test_rows_need_no_grouping(store):
    rows = store.open(Pixels(2), stamps(range(2)), CPU)
    assert (len(rows), rows.are_features, rows.groups, rows.window) == (2, True, (), 0)


def test_no_images(store):
    store.open(Pixels(2), stamps(range(2)), CPU)
    assert len(store.open(Pixels(0), [], CPU)) == 0


def test_few_files_are_open_at_once(store, monkeypatch):
    monkeypatch.setattr(feature_store, "SEGMENT", 1)
    monkeypatch.setattr(feature_store, "OPEN_FILES", 2)
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir())) if descriptors.exists() else 0
    rows = store.open(Pixels(8), stamps(range(8)), CPU)
    assert torch.equal(rows.load(range(8))[5], rows.load([5])[0])
    if before:
        assert len(list(descriptors.iterdir())) <= before + 2


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


def test_whatever_the_features_depend_on_has_a_store_of_its_own(store, tmp_path, tiny_encoder):
    renamed, statistics = tiny_encoder(), tiny_encoder()
    renamed.name = "another"
    norm = next(module for module in statistics.modules() if isinstance(module, nn.BatchNorm2d))
    norm.running_mean += 1e-3
    others = [
        FeatureStore(tmp_path, tiny_encoder(seed=1), Transform(32)),
        FeatureStore(tmp_path, renamed, Transform(32)),
        FeatureStore(tmp_path, statistics, Transform(32)),
        FeatureStore(tmp_path, tiny_encoder(), Transform(64)),
        FeatureStore(tmp_path, tiny_encoder(), Transform(32, mean=(0, 0, 0))),
        FeatureStore(tmp_path, tiny_encoder(), Transform(32, std=(1, 1, 1))),
    ]
    assert len({each.directory for each in [store, *others]}) == 7
    same = FeatureStore(tmp_path, tiny_encoder().train(), Transform(32))
    assert same.directory == store.directory


def test_a_changed_image_is_computed_again(store, paths):
    assert_holds(store, paths)
    draw(paths[2], 100)
    assert_holds(store, paths)
    assert_holds(store, paths[::-1])
    (info,) = list_stores(store.directory.parent)
    assert info.maps == 8


@pytest.mark.parametrize("workers", [0, 1])
def test_a_corrupt_image_leaves_nothing_half_written(store, paths, workers):
    paths[5].write_bytes(b"not an image")
    with pytest.raises(InputError) as caught:
        store.open_files(ImageSource(paths, store.transform), replace(CPU, workers=workers))
    assert str(caught.value).startswith(f"'{paths[5]}': not an image in any of the formats")
    assert [path.name for path in store.directory.iterdir()] == ["store.json"]
    draw(paths[5], 5)
    assert_holds(store, paths)


def test_pooled_rows_alone_store_no_maps(store):
    pixels = Pixels(5)
    store.open(pixels, stamps(range(5)), CPU, "pooled")
    assert not list(store.directory.glob("maps-*"))
    (info,) = list_stores(store.directory.parent)
    assert (info.maps, info.pooled, info.encoder, info.size) == (0, 5, "tiny", 32)


def test_a_segment_that_was_cut_short(store):
    rows = store.open(Pixels(5), stamps(range(5)), CPU)
    (file,) = files_of(store)
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size - 10)
    message = f"{file} is truncated; run the command again to recompute it"
    with pytest.raises(InputError, match=message):
        rows.load([0, 4])
    pixels = Pixels(5)
    assert torch.isfinite(store.open(pixels, stamps(range(5)), CPU).load([4])).all()
    assert sorted(pixels.loaded) == list(range(5))  # as if it were not there


def test_a_segment_that_was_pruned(store):
    rows = store.open(Pixels(5), stamps(range(5)), CPU)
    (file,) = files_of(store)
    file.unlink()
    with pytest.raises(InputError, match=f"{file} cannot be read: No such file"):
        rows.load([0])


def test_damaged_rows_are_refused(store):
    """A value of half precision with all exponent bits set; stored ones are finite."""
    rows = store.open(Pixels(5), stamps(range(5)), CPU)
    (file,) = files_of(store)
    with file.open("r+b") as opened:
        opened.seek(-2, os.SEEK_END)
        opened.write(b"\xff\xff")
    rows.load([0, 3])
    with pytest.raises(InputError, match=f"rows in {file} are damaged; delete the file"):
        rows.load([0, 4])
    file.unlink()
    pixels = Pixels(5)
    assert torch.isfinite(store.open(pixels, stamps(range(5)), CPU).load([4])).all()
    assert sorted(pixels.loaded) == list(range(5))


@pytest.mark.parametrize("ending", [".npy", ".keys.npy"])
def test_headers_damaged_in_any_byte_are_passed_over(store, ending):
    rows = store.open(Pixels(3), stamps(range(3)), CPU).load(range(3))
    (file,) = files_of(store)
    file = file.with_name(file.name.replace(".npy", ending))
    whole = file.read_bytes()
    for at in range(128):
        file.write_bytes(whole[:at] + b"[" + whole[at + 1 :])
        for segment, keys in read_segments(store.directory, "maps"):
            assert len(keys) == segment.count == 3  # such as a changed space
    file.write_bytes(whole)
    assert torch.equal(store.open(Pixels(3), stamps(range(3)), CPU).load(range(3)), rows)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x93NUMPY\x01\x00"])
@pytest.mark.parametrize("ending", [".npy", ".keys.npy"])
def test_damaged_files_are_passed_over(store, content, ending):
    store.open(Pixels(3), stamps(range(3)), CPU)
    (file,) = files_of(store)
    file.with_name(file.name.replace(".npy", ending)).write_bytes(content)
    pixels = Pixels(3)
    store.open(pixels, stamps(range(3)), CPU)
    assert pixels.loaded == [0, 1, 2]


def test_values_that_half_precision_cannot_hold(store):
    pixels = Pixels(2)
    pixels.values = pixels.values * 1e30
    with pytest.raises(InputError, match="features of tiny cannot be stored: they are not finite"):
        store.open(pixels, stamps(range(2)), CPU)
    assert not list(store.directory.glob("maps-*"))


def test_a_directory_that_cannot_be_written(tmp_path, tiny_encoder):
    (tmp_path / "file").write_text("x")
    store = FeatureStore(tmp_path / "file", tiny_encoder(), Transform(32))
    with pytest.raises(InputError, match=r"feature store .* cannot be written: "):
        store.open(Pixels(2), stamps(range(2)), CPU)


# ---- processes ----------------------------------------------------------------------------------


def test_a_faster_process_leaves_one_row_per_image(store):
    pixels = Pixels(4)
    pixels.interrupt = lambda: store.open(Pixels(4), stamps(range(4)), CPU)
    assert len(store.open(pixels, stamps(range(4)), CPU).load(range(4))) == 4
    assert len(files_of(store)) == len(files_of(store, "pooled")) == 1


def test_files_of_killed_processes_are_deleted_after_an_hour(store):
    store.open(Pixels(2), stamps(range(2)), CPU)
    names = (".maps-1.npy.part", ".maps-1.keys.npy.part", "maps-2.keys.npy", "maps-3.npy")
    left = [store.directory / name for name in names]
    for path in left:
        path.write_bytes(b"x")
    (store.directory / ".maps-4.npy.part").symlink_to("renamed meanwhile")
    store.open(Pixels(2), stamps(range(2)), CPU)
    assert all(path.exists() for path in left)  # their process may still write
    for path in left:
        os.utime(path, (0, 0))
    store.open(Pixels(2), stamps(range(2)), CPU)
    assert not any(path.exists() for path in left)


FULL = """
import resource, sys
from pathlib import Path
from captioner.errors import InputError
from tests.vision.test_feature_store import process_store, CPU, Pixels, stamps

store = process_store(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    store.open(Pixels(40), stamps(range(40)), CPU)
except InputError as error:
    print(error)
"""


def process_store(directory):
    """A store that is the same in every process; a map has 2 kB."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    encoder = Encoder("tiny", nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1)))
    return FeatureStore(Path(directory), encoder, Transform(32))


@pytest.mark.slow
def test_a_full_disk(tmp_path):
    """A limit on the size of files stands in for a full disk; the first batch exceeds it."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, tmp_path],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    (directory,) = tmp_path.iterdir()
    assert done.stdout.startswith(f"the feature store {directory} cannot be written: ")
    assert "File too large" in done.stdout
    assert done.stdout.count("\n") == 1
    assert [path.name for path in directory.iterdir()] == ["store.json"]


IMAGES = 200  # of the processes that are killed, in segments of 4


def check(store):
    """The number of whole rows in a store, each of which must be what the encoder makes."""
    pixels = Pixels(IMAGES)
    with torch.no_grad():
        expected = store.encoder.eval()(pixels.values)
    number = {key: i for i, key in enumerate(feature_store.keys_of(stamps(range(IMAGES))))}
    rows = set()
    for segment, keys in read_segments(store.directory, "maps"):
        for key, row in zip(keys, np.load(segment.path), strict=True):
            found = torch.from_numpy(row).permute(2, 0, 1).float()
            assert torch.allclose(found, expected[number[key]], atol=2e-3)
            rows.add(key)
    return len(rows)


def fill(directory, result=None):
    """Fill a store slowly; puts the number of images that were computed on the queue."""
    feature_store.SEGMENT = 4
    pixels = Pixels(IMAGES)
    pixels.interrupt = lambda: time.sleep(0.01)
    store = process_store(directory)
    store.open(pixels, stamps(range(IMAGES)), CPU)
    if result:
        result.put(len(pixels.loaded))


def kill_many(directory, kills=50):
    """Kill processes that fill a store at random moments; prints what is whole after each."""
    forks, randomness = multiprocessing.get_context("fork"), np.random.default_rng(0)
    store, counts = process_store(directory), []
    for _ in range(kills):
        process = forks.Process(target=fill, args=(directory,))
        process.start()
        time.sleep(float(randomness.uniform(0, 0.12)))
        process.kill()
        process.join()
        counts.append(check(store))
        assert process.exitcode in (-signal.SIGKILL, 0)
    print(*counts)


def fill_together(directory):
    """Two processes fill one store; prints how many images each computed, and whole rows."""
    forks = multiprocessing.get_context("fork")
    result = forks.Queue()
    processes = [forks.Process(target=fill, args=(directory, result)) for _ in range(2)]
    for process in processes:
        process.start()
    counts = [result.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    print(*counts, check(process_store(directory)))


def run_alone(function, *arguments):
    """The numbers that a function of this module prints in a process without threads."""
    code = f"from tests.vision.test_feature_store import {function}\n{function}(*{arguments!r})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split()]


@pytest.mark.slow
def test_fifty_kills_at_random_moments(tmp_path):
    """What was whole stays, nothing half-written is read, and the next run does the rest."""
    counts = run_alone("kill_many", str(tmp_path))
    print("whole rows after each kill:", *counts)
    assert len(counts) == 50
    assert counts == sorted(counts)
    store, pixels = process_store(tmp_path), Pixels(IMAGES)
    store.open(pixels, stamps(range(IMAGES)), CPU)
    assert len(pixels.loaded) == IMAGES - counts[-1]
    assert check(store) == IMAGES


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_share_the_work(tmp_path):
    *counts, whole = run_alone("fill_together", str(tmp_path))
    print("images computed by each process:", *counts)
    assert whole == IMAGES
    assert max(counts) < IMAGES <= sum(counts)
    # segments are drawn at random, so a few are computed twice; without drawing, nearly all are
    assert len(files_of(process_store(tmp_path))) <= 1.5 * IMAGES / 4


def test_reading_without_preadv(tmp_path, monkeypatch):
    """As on Windows: many threads share the position of a file."""
    rows = np.random.default_rng(0).integers(0, 2**15, (64, 3, 5), np.int16)
    path = tmp_path / "rows"
    path.write_bytes(rows.tobytes())
    descriptor = os.open(path, os.O_RDONLY)

    def read(row):
        values = np.empty(rows.shape[1:], rows.dtype)
        assert feature_store._read_at(descriptor, values, row * values.nbytes) == values.nbytes
        return np.array_equal(values, rows[row])

    assert read(5)
    monkeypatch.delattr(os, "preadv", raising=False)
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, list(range(64)) * 4))
    assert feature_store._read_at(descriptor, np.empty(9, np.int16), rows.nbytes - 4) == 4
    os.close(descriptor)
