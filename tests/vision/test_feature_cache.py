"""The feature cache: what it holds, when it is made anew, and what a run that dies leaves."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from captioner.data import sources
from captioner.data.images import Transform
from captioner.data.sources import ImageSource
from captioner.errors import InputError
from captioner.vision import feature_cache as features
from captioner.vision.encoders import Encoder, SmallCNN
from captioner.vision.feature_cache import FeatureCache, cache_key, cached_features

TRANSFORM = Transform(32)
CPU = torch.device("cpu")


def small_encoder(seed: int = 0, name: str = "small_cnn") -> Encoder:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Encoder(name, SmallCNN(16))  # frozen


def norms(encoder: Encoder) -> list[nn.BatchNorm2d]:
    return [module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]


def draw(path: Path, seed: int) -> Path:
    noise = np.random.default_rng(seed).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


@pytest.fixture
def paths(tmp_path):
    return [draw(tmp_path / f"{i}.png", i) for i in range(7)]


def compute(directory, paths, *, encoder=None, transform=TRANSFORM, **options):
    encoder, files = encoder or small_encoder(), ImageSource(paths, transform)
    return cached_features(directory, encoder, files, device=CPU, batch_size=2, **options)


def encode(paths, encoder=None, transform=TRANSFORM):
    encoder = (encoder or small_encoder()).eval()
    with torch.no_grad():
        return encoder(ImageSource(paths, transform).load(range(len(paths))))


def assert_holds(cache, paths, **what):
    expected = encode(paths, **what)
    torch.testing.assert_close(
        cache.load(range(len(paths))).float(), expected, rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_the_cache_holds_what_the_encoder_gives(tmp_path, paths, workers):
    encoder = small_encoder().train()
    cache = compute(tmp_path / "cache", paths, encoder=encoder, workers=workers)
    loaded = cache.load([5, 0, 5])
    assert loaded.shape == (3, 16, 2, 2) and loaded.dtype == torch.float16
    torch.testing.assert_close(loaded.float(), encode(paths)[[5, 0, 5]], rtol=1e-3, atol=1e-4)
    assert loaded.is_contiguous(memory_format=torch.channels_last)
    assert_holds(cache, paths)


def test_the_cache_holds_half_precision_maps_and_reads_any_of_them(tmp_path, paths):
    cache = compute(tmp_path / "cache", paths)
    assert cache.shape == (7, 2, 2, 16) and cache.dtype == np.float16
    (file,) = (tmp_path / "cache").rglob("maps.npy")
    stored = torch.from_numpy(np.load(file)).permute(0, 3, 1, 2)
    assert torch.equal(cache.load([6, 0, 3, 3]), stored[[6, 0, 3, 3]])
    assert cache.load([]).shape == (0, 16, 2, 2)
    os.truncate(file, file.stat().st_size - 1)
    assert torch.equal(cache.load([5]), stored[[5]])
    with pytest.raises(InputError, match=r"maps.npy is cut short; delete its directory"):
        cache.load([6])


def test_the_cache_is_computed_once(tmp_path, paths, monkeypatch):
    first = compute(tmp_path / "cache", paths)
    monkeypatch.setattr(sources, "load_image", None)  # a second time would fail
    second = compute(tmp_path / "cache", paths)
    assert torch.equal(first.load(range(7)), second.load(range(7)))
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_the_key_changes_with_whatever_the_features_depend_on(tmp_path, paths):
    def key(encoder=None, transform=TRANSFORM, paths=paths):
        return cache_key(encoder or small_encoder(), ImageSource(paths, transform))

    statistics = small_encoder()
    norms(statistics)[0].running_mean += 1e-3
    other = [
        key(small_encoder(seed=1)),
        key(small_encoder(name="another")),
        key(statistics),
        key(transform=Transform(33)),
        key(transform=replace(TRANSFORM, mean=(0.5, 0.5, 0.5))),
        key(transform=replace(TRANSFORM, std=(0.5, 0.5, 0.5))),
        key(paths=paths[:-1]),
        key(paths=paths[::-1]),
        key(paths=[*paths[:-1], draw(tmp_path / "other.png", 6)]),
    ]
    assert len({key(), *other}) == len(other) + 1
    assert key() == key(small_encoder().train())
    was = key()
    os.utime(paths[3], ns=(0, 5))
    assert key() != was


def test_a_stale_cache_is_not_used(tmp_path, paths):
    directory = tmp_path / "cache"
    compute(directory, paths)
    draw(paths[2], 100)
    assert_holds(compute(directory, paths), paths)
    assert_holds(compute(directory, paths[1:]), paths[1:])
    encoder = small_encoder(seed=1)
    assert_holds(compute(directory, paths, encoder=encoder), paths, encoder=encoder)
    transform = Transform(48)
    assert_holds(compute(directory, paths, transform=transform), paths, transform=transform)
    assert len(list(directory.iterdir())) == 5


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_leaves_no_half_cache(tmp_path, paths, workers):
    paths[5].write_bytes(b"no image")
    with pytest.raises(InputError) as caught:
        compute(tmp_path / "cache", paths, workers=workers)
    assert str(caught.value).startswith(f"'{paths[5]}': not an image in any of the formats")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "cache").iterdir()) == []
    draw(paths[5], 5)
    assert_holds(compute(tmp_path / "cache", paths), paths)


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.vision import test_feature_cache as test_features
from captioner.data import sources

load_image, directory, *paths = sources.load_image, *map(Path, sys.argv[1:])

def load(path):
    if path == paths[5]:
        os.kill(os.getpid(), signal.SIGKILL)
    return load_image(path)

sources.load_image = load
test_features.compute(directory, paths)
"""


def test_a_killed_run_leaves_no_half_cache(tmp_path, paths):
    directory = tmp_path / "cache"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, directory, *paths],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    (left,) = directory.iterdir()  # it had begun
    assert left.name.startswith("features-part-") and (left / "maps.npy").is_file()
    whole = 7 * 2 * 2 * 16 * 2
    assert (left / "maps.npy").stat().st_size < whole  # mapping a sparse file, a full disk kills
    assert_holds(compute(directory, paths), paths)
    assert left.exists()  # it may be another run's, still at work
    for path in (left, left / "maps.npy"):
        os.utime(path, (0, 0))
    compute(directory, paths[1:])
    assert not left.exists()


FULL = """
import resource, sys
from pathlib import Path
from tests.vision import test_feature_cache as test_features
from captioner.errors import InputError

directory, *paths = map(Path, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
try:
    test_features.compute(directory, paths)
except InputError as error:
    print(error)
"""


def test_a_full_disk(tmp_path, paths):
    """A limit on the length of files stands in for it: the second batch is above."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, tmp_path / "cache", *paths],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"the feature cache in {tmp_path / 'cache'} cannot be written: ")
    assert "File too large" in done.stdout and done.stdout.count("\n") == 1
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_part_that_is_gone_at_a_second_look(tmp_path, paths):
    """Another run renames its part between our listing and our asking how old it is."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "features-part-of-another").symlink_to("renamed")
    assert_holds(compute(tmp_path / "cache", paths), paths)


def test_what_another_run_still_writes_is_let_be(tmp_path, paths):
    part = tmp_path / "cache" / "features-part-of-another"
    part.mkdir(parents=True)
    (part / "maps.npy").write_bytes(b"")
    os.utime(part, (0, 0))  # made long ago, but written to just now
    compute(tmp_path / "cache", paths)
    assert part.exists()


def test_another_run_may_be_quicker(tmp_path, paths, monkeypatch):
    compute_maps = features._compute

    def overtaken(*args):
        compute_maps(*args)
        monkeypatch.setattr(features, "_compute", compute_maps)
        compute(tmp_path / "cache", paths)

    monkeypatch.setattr(features, "_compute", overtaken)
    assert_holds(compute(tmp_path / "cache", paths), paths)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_features_beyond_half_precision(tmp_path, paths):
    encoder = small_encoder()
    norms(encoder)[-1].weight.data *= 1e6
    with pytest.raises(InputError, match="small_cnn gives features that half precision cannot hol"):
        compute(tmp_path / "cache", paths, encoder=encoder)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_directory_that_cannot_be_written(tmp_path, paths):
    with pytest.raises(InputError, match=r"the feature cache in .*0\.png cannot be written"):
        compute(paths[0], paths)


def test_a_cache_reads_again(tmp_path, paths):
    cache = compute(tmp_path / "cache", paths)
    (directory,) = (tmp_path / "cache").iterdir()
    assert directory.name == f"features-{cache_key(small_encoder(), ImageSource(paths, TRANSFORM))}"
    assert torch.equal(FeatureCache(directory).load([1]), cache.load([1]))
