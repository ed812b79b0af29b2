"""Collections for the tests of the search service: the colours, many rows, and spatial models."""

import shutil
from functools import cache
from pathlib import Path

import numpy as np

from captioner import Linker
from captioner.checkpoints import checkpoint
from captioner.inference.indexing import IndexOptions, index_images
from captioner.retrieval.index_writer import open_writer
from captioner.serving.collections import Collection
from tests.support import linking, spatial, tiny


@cache
def load(run: Path) -> tuple[Linker, str]:
    """Return the linker of a run and the hash of its weights."""
    return Linker.from_pretrained(run, "cpu"), checkpoint.identity(run)


def copy_images(factory, directory: Path) -> list[Path]:
    """Copy the val images of the colours: red, green, blue, yellow, purple, white, black."""
    source = tiny.data(factory) / "val"
    shutil.copytree(source, directory)
    return sorted(directory.glob("*.png"))


def write_index(factory, images, directory: Path, name="val.index") -> Path:
    """Index images with the linear run of the colours."""
    output = directory / name
    cache_directory = factory.getbasetemp() / "cache"
    options = IndexOptions(cache=cache_directory, workers=0, device="cpu")
    index_images(linking.run(factory), list(map(str, images)), output, options)
    return output


def write_many(factory, images, directory: Path, count: int, name="many.index") -> Path:
    """Write an index of random vectors whose paths are links to the images."""
    linker, weights = load(linking.run(factory))
    size = linker.model.dimensions
    rows = np.random.default_rng(0).standard_normal((count, size))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    places = [directory / f"many/{i:06}.png" for i in range(count)]
    (directory / "many").mkdir()
    for i, place in enumerate(places):
        place.hardlink_to(images[i % len(images)])
    with open_writer(directory / name, "RUN", weights, size) as writer:
        writer.append(rows, ({"image": str(place)} for place in places))
        writer.finish([])
    return directory / name


def collect(factory, directory: Path) -> Collection:
    """Open an index that was written with the linear run of the colours."""
    linker, weights = load(linking.run(factory))
    return Collection(directory.name, directory, linker, weights)


def copy_halves(factory, directory: Path) -> list[Path]:
    """Copy the val images of the halves, whose names are NUMBER-LEFT-RIGHT.png."""
    shutil.copytree(spatial.data(factory) / "val", directory)
    return sorted(directory.glob("*.png"))


def collect_halves(factory, images, directory: Path, name="halves.index") -> Collection:
    """Index images with the spatial run of the halves, and open the index."""
    run = spatial.run(factory)
    options = IndexOptions(cache=factory.getbasetemp() / "cache", workers=0, device="cpu")
    index_images(run, list(map(str, images)), directory / name, options)
    linker, weights = load(run)
    return Collection(name, directory / name, linker, weights)
