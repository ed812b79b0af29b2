"""An index that keeps label maps computes what an Index computes, and no map twice."""

import shutil

import numpy as np
import pytest
import torch

from captioner import Index
from captioner.errors import InputError
from captioner.retrieval.index_files import open_files
from captioner.retrieval.index_writer import open_writer
from captioner.retrieval.painting import parse_layer
from captioner.serving.labelled_index import LabelledIndex
from tests.support import collections

pytestmark = pytest.mark.slow
LAYERS = [parse_layer("red=left"), parse_layer("-green=top"), parse_layer("red=bottom")]


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    directory = tmp_path_factory.mktemp("labelled")
    images = collections.copy_halves(tmp_path_factory, directory / "photos")
    return collections.collect_halves(tmp_path_factory, images, directory)


@pytest.fixture
def build(collection):
    files = collection.snapshot().files
    return lambda **options: LabelledIndex(files, collection.linker, **options)


@pytest.fixture
def computed(monkeypatch):
    """The labels whose maps are computed from regions, in order."""
    labels, compute = [], Index.label_logits

    def observe(self, names):
        labels.extend(names)
        return compute(self, names)

    monkeypatch.setattr(Index, "label_logits", observe)
    return labels


@pytest.mark.parametrize("max_bytes", [0, 2**28])
def test_scores_are_those_of_an_index(build, collection, max_bytes):
    index = build(max_bytes=max_bytes)
    plain = Index.open(collection.snapshot().files.directory, collection.linker)
    for _ in range(2):
        for query in (None, "blue - 0.5*green"):
            expected = plain.paint_scores(LAYERS, query)
            np.testing.assert_allclose(index.paint_scores(LAYERS, query), expected, atol=1e-6)
        words = ["blue", "red", "blue"]
        np.testing.assert_allclose(index.label_scores(words), plain.label_scores(words), atol=1e-6)
        np.testing.assert_array_equal(index.diversity(), plain.diversity())
    assert index.label_scores("red").shape == (12, 1)


def test_maps_are_computed_once(build, computed):
    index = build()
    index.paint_scores(LAYERS)
    index.paint_scores([parse_layer("green=right")], "red")
    index.label_scores(["blue", "red"])
    assert computed == ["red", "green", "blue"]


def test_the_maps_that_were_not_used_for_longest_are_dropped(build, computed):
    index = build(max_bytes=2 * 4 * 12 * 8 * 8)  # of two labels
    for word in ("red", "green", "red", "blue", "red", "green"):
        index.label_scores(word)
    assert computed == ["red", "green", "blue", "green"]
    index.label_scores(["red", "green", "blue"])  # more than can be stored
    assert computed[4:] == ["red", "green", "blue"]
    index.label_scores("red")
    assert len(computed) == 7


def test_an_error_leaves_no_maps(build, computed):
    index = build()
    with pytest.raises(InputError, match="unknown words: 'zebra'"):
        index.label_scores(["red", "zebra"])
    index.label_scores(["red"])
    assert computed == ["red", "zebra", "red"]
    assert torch.is_inference_mode_enabled() is False


def test_an_index_without_rows(collection, tmp_path):
    directory = tmp_path / "empty.index"
    shutil.copytree(collection.snapshot().files.directory, directory)
    manifest = collection.snapshot().files.manifest
    with open_writer(
        directory,
        manifest.checkpoint,
        manifest.weights,
        manifest.dimensions,
        regions=manifest.region_shape,
    ) as writer:
        writer.keep([])
        writer.finish([])
    index = LabelledIndex(open_files(directory), collection.linker)
    assert index.label_scores(["red", "blue"]).shape == (0, 2)
    assert index.paint_scores(LAYERS).shape == (0,)
    assert index.has_regions
