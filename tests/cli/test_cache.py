"""`captioner cache`: what it lists, and what each flag deletes."""

import os
import time

import pytest
import torch

from captioner import __main__ as commands
from captioner.data.images import Transform
from captioner.errors import InputError
from captioner.vision.feature_store import FeatureStore, Runtime
from captioner.vision.store_files import list_stores, read_segments

DAY = 24 * 60 * 60


class Pixels:
    def load(self, indices):
        return torch.zeros(len(indices), 3, 32, 32)


@pytest.fixture
def stores(tmp_path, tiny_encoder):
    """Two stores in a cache: one with maps of 3 images, an older one with pooled rows of 2."""
    runtime = Runtime(torch.device("cpu"))
    maps = FeatureStore(tmp_path, tiny_encoder(), Transform(32))
    maps.open(Pixels(), [b"a", b"b", b"c"], runtime)
    pooled = FeatureStore(tmp_path, tiny_encoder(), Transform(64))
    pooled.open(Pixels(), [b"a", b"b"], runtime, "pooled")
    age(pooled.directory, 10)
    return maps, pooled


def age(directory, days):
    when = time.time() - days * DAY
    for path in [*directory.iterdir(), directory]:
        os.utime(path, (when, when))


def cache(tmp_path, *flags):
    commands.main(["cache", "--cache", str(tmp_path), *flags])


def size(*directories):
    return sum(path.stat().st_size for each in directories for path in each.iterdir())


def test_list(stores, tmp_path, capsys):
    maps, pooled = stores
    cache(tmp_path)
    head, first, second, total = capsys.readouterr().out.splitlines()
    assert head.split() == "encoder pixels maps pooled size last written directory".split()
    assert first.split()[:4] == ["tiny", "64", "0", "2"]
    assert first.split()[-1] == pooled.directory.name
    assert second.split()[:4] == ["tiny", "32", "3", "3"]
    assert second.split()[-1] == maps.directory.name
    assert time.strftime("%Y-%m-%d", time.localtime()) in second
    megabytes = size(maps.directory, pooled.directory) / 1e6
    assert total == f"2 stores in {tmp_path}, {megabytes:.1f} MB"


def test_an_empty_cache(tmp_path, capsys):
    cache(tmp_path / "none")
    assert capsys.readouterr().out == f"{tmp_path / 'none'} contains no stored features\n"
    assert not (tmp_path / "none").exists()


def test_prune_deletes_only_what_is_not_needed(stores, tmp_path, capsys):
    maps, pooled = stores
    (segment, _) = next(read_segments(maps.directory, "maps"))
    kept = {path.name for path in maps.directory.iterdir()}
    for file in (segment.path, segment.keys_path):  # a second segment with the same images
        duplicate = file.with_name(file.name.replace("maps-", "maps-0"))
        duplicate.write_bytes(file.read_bytes())
    (maps.directory / "maps-x.keys.npy").write_bytes(b"damaged")
    (maps.directory / ".maps-y.npy.part").write_bytes(b"abandoned")
    older = tmp_path / "features-0123"
    older.mkdir()
    (older / "maps.npy").write_bytes(b"x" * 1000)
    (tmp_path / "demo").mkdir()
    cache(tmp_path, "--prune")
    assert older.exists()  # files of the last hour stay
    for directory in (maps.directory, older):
        age(directory, 1)
    capsys.readouterr()
    cache(tmp_path, "--prune")
    assert capsys.readouterr().out.startswith("deleted: 0.0 MB\nencoder ")
    assert not older.exists()
    assert len(kept) == len(list(maps.directory.iterdir()))
    assert [len(keys) for _, keys in read_segments(maps.directory, "maps")] == [3]
    assert {store.directory for store in list_stores(tmp_path)} == {
        maps.directory,
        pooled.directory,
    }


@pytest.mark.parametrize("content", ["", "[]", '{"encoder": "tiny"}'])
def test_a_damaged_store_is_listed_as_such_kept_and_repaired(
    stores, tmp_path, tiny_encoder, capsys, content
):
    maps, _ = stores
    (maps.directory / "store.json").write_text(content)
    age(maps.directory, 1)
    cache(tmp_path, "--prune")
    assert capsys.readouterr().out.splitlines()[3].split()[:4] == ["(damaged)", "-", "3", "3"]
    runtime = Runtime(torch.device("cpu"))
    FeatureStore(tmp_path, tiny_encoder(), Transform(32)).open(Pixels(), [b"a"], runtime)
    cache(tmp_path)
    assert capsys.readouterr().out.splitlines()[2].split()[:4] == ["tiny", "32", "3", "3"]


@pytest.mark.parametrize(
    ("flags", "left"),
    [
        (("--prune-older-than", "11"), 2),
        (("--prune-older-than", "9.5"), 1),
        (("--prune", "--prune-older-than", "9"), 1),
        (("--prune", "--all"), 0),
    ],
)
def test_prune_by_age(stores, tmp_path, capsys, flags, left):
    (tmp_path / "decoded-v1.txt").write_text("kept")
    cache(tmp_path, *flags)
    assert capsys.readouterr().out.startswith("deleted: ")
    found = list_stores(tmp_path)
    assert len(found) == left
    if left == 1:
        assert found[0].directory == stores[0].directory
    assert (tmp_path / "decoded-v1.txt").exists()


def test_flags_without_effect(tmp_path):
    with pytest.raises(InputError, match="--all has no effect without --prune"):
        cache(tmp_path, "--all")
    with pytest.raises(InputError, match="--all cannot be combined with --prune-older-than"):
        cache(tmp_path, "--prune", "--all", "--prune-older-than", "30")
    with pytest.raises(InputError, match=r"--prune-older-than must be at least 0, got -1\.0"):
        cache(tmp_path, "--prune-older-than", "-1")
