"""The feature cache: its contents, its key, and what killed and concurrent processes leave."""

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

from captioner.data.images import Transform
from captioner.data.sources import ImageSource
from captioner.errors import InputError
from captioner.vision.encoders import Encoder, SmallCNN
from captioner.vision.feature_cache import FeatureSource, cache_key, cached_features

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


class InterruptedSource(ImageSource):
    """Images, with a call of `interrupt` before the batch that holds image 5."""

    def __init__(self, paths, interrupt):
        super().__init__(paths, TRANSFORM)
        self.interrupt = interrupt

    def load(self, indices):
        if 5 in indices:
            self.interrupt()
        return super().load(indices)


def compute(directory, paths, *, encoder=None, transform=TRANSFORM, **options):
    return compute_from(directory, ImageSource(paths, transform), encoder=encoder, **options)


def compute_from(directory, images, *, encoder=None, **options):
    """The cached features of the images, in batches of 2 if they have to be computed."""
    encoder = encoder or small_encoder()
    return cached_features(directory, encoder, images, device=CPU, batch_size=2, **options)


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
def test_the_cache_holds_the_encoders_features(tmp_path, paths, workers):
    encoder = small_encoder().train()
    cache = compute(tmp_path / "cache", paths, encoder=encoder, workers=workers)
    loaded = cache.load([5, 0, 5])
    assert loaded.shape == (3, 16, 2, 2)
    assert loaded.dtype == torch.float16
    torch.testing.assert_close(loaded.float(), encode(paths)[[5, 0, 5]], rtol=1e-3, atol=1e-4)
    assert loaded.is_contiguous(memory_format=torch.channels_last)
    assert_holds(cache, paths)


def test_maps_are_half_precision_and_load_in_any_order(tmp_path, paths):
    cache = compute(tmp_path / "cache", paths)
    assert cache.shape == (7, 2, 2, 16)
    assert cache.dtype == np.float16
    (file,) = (tmp_path / "cache").rglob("maps.npy")
    stored = torch.from_numpy(np.load(file)).permute(0, 3, 1, 2)
    assert torch.equal(cache.load([6, 0, 3, 3]), stored[[6, 0, 3, 3]])
    assert cache.load([]).shape == (0, 16, 2, 2)
    os.truncate(file, file.stat().st_size - 1)
    assert torch.equal(cache.load([5]), stored[[5]])
    with pytest.raises(InputError, match=r"maps.npy is cut short; delete its directory"):
        cache.load([6])


def test_the_cache_is_computed_once(tmp_path, paths):
    loads = []
    images = InterruptedSource(paths, lambda: loads.append(1))
    first = compute_from(tmp_path / "cache", images)
    second = compute_from(tmp_path / "cache", images)
    assert loads == [1]
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
    before = key()
    os.utime(paths[3], ns=(0, 5))
    assert key() != before


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
def test_a_corrupt_image_leaves_no_partial_cache(tmp_path, paths, workers):
    paths[5].write_bytes(b"not an image")
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
from tests.vision.test_feature_cache import InterruptedSource, compute_from

directory, *paths = map(Path, sys.argv[1:])
images = InterruptedSource(paths, lambda: os.kill(os.getpid(), signal.SIGKILL))
compute_from(directory, images)
"""


@pytest.mark.slow
def test_a_killed_process_leaves_no_partial_cache(tmp_path, paths):
    directory = tmp_path / "cache"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, directory, *paths],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    (left,) = directory.iterdir()
    assert left.name.startswith("features-part-")
    assert (left / "maps.npy").is_file()
    whole = 7 * 2 * 2 * 16 * 2
    assert (left / "maps.npy").stat().st_size < whole  # not a sparse file
    assert_holds(compute(directory, paths), paths)
    assert left.exists()  # it may belong to a process that still writes
    for path in (left, left / "maps.npy"):
        os.utime(path, (0, 0))
    compute(directory, paths[1:])
    assert not left.exists()


FULL = """
import resource, sys
from pathlib import Path
from captioner.errors import InputError
from tests.vision.test_feature_cache import compute

directory, *paths = map(Path, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
try:
    compute(directory, paths)
except InputError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_full_disk(tmp_path, paths):
    """A limit on the size of files stands in for a full disk; the second batch exceeds it."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, tmp_path / "cache", *paths],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"the feature cache in {tmp_path / 'cache'} cannot be written: ")
    assert "File too large" in done.stdout
    assert done.stdout.count("\n") == 1
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_part_may_be_renamed_while_its_age_is_checked(tmp_path, paths):
    """A dangling link is listed, and then missing, as another process's part is."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "features-part-of-another").symlink_to("renamed")
    assert_holds(compute(tmp_path / "cache", paths), paths)


def test_a_part_that_is_still_written_is_kept(tmp_path, paths):
    part = tmp_path / "cache" / "features-part-of-another"
    part.mkdir(parents=True)
    (part / "maps.npy").write_bytes(b"")
    os.utime(part, (0, 0))  # an old directory with a new file
    compute(tmp_path / "cache", paths)
    assert part.exists()


def test_another_process_may_be_faster(tmp_path, paths):
    images = InterruptedSource(paths, lambda: compute(tmp_path / "cache", paths))
    assert_holds(compute_from(tmp_path / "cache", images), paths)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_features_that_exceed_half_precision_are_an_error(tmp_path, paths):
    encoder = small_encoder()
    norms(encoder)[-1].weight.data *= 1e6
    with pytest.raises(InputError, match="features of small_cnn exceed half precision"):
        compute(tmp_path / "cache", paths, encoder=encoder)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_directory_that_cannot_be_written_is_an_error(paths):
    with pytest.raises(InputError, match=r"the feature cache in .*0\.png cannot be written"):
        compute(paths[0], paths)


def test_a_directory_is_named_by_its_key(tmp_path, paths):
    cache = compute(tmp_path / "cache", paths)
    (directory,) = (tmp_path / "cache").iterdir()
    assert directory.name == f"features-{cache_key(small_encoder(), ImageSource(paths, TRANSFORM))}"
    assert torch.equal(FeatureSource(directory).load([1]), cache.load([1]))


def test_features_need_no_grouping(tmp_path, paths):
    source = compute(tmp_path / "cache", paths)
    assert source.are_features
    assert (source.groups, source.window) == ((), 0)
