"""Linker and Index of a spatial model on images of two halves."""

from pathlib import Path

import numpy as np
import pytest
import torch

from captioner import Index, Linker
from captioner.data.images import load_image
from captioner.errors import InputError
from captioner.inference.indexing import IndexOptions, index_images
from captioner.retrieval.painting import Layer, painted_scores, parse_layer
from tests.support import linking, spatial

WORDS = ["red", "green", "blue"]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return spatial.run(tmp_path_factory)


@pytest.fixture(scope="module")
def linker(run):
    return Linker.from_pretrained(run, "cpu")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return sorted((spatial.data(tmp_path_factory) / "val").glob("*.png"))


@pytest.fixture(scope="module")
def index(run, images, linker, tmp_path_factory):
    where = tmp_path_factory.mktemp("indexes")
    options = IndexOptions(cache=where / "cache", workers=0, device="cpu", batch_size=5)
    index_images(run, [str(image) for image in images], where / "halves.index", options)
    return Index.open(where / "halves.index", linker)


def colours(image):
    """The colours of the left and of the right half."""
    return image.stem.split("-")[1:]


def test_labels_are_the_colours_of_the_halves(linker, images):
    scores = linker.labels(images, WORDS)
    assert (scores.dtype, scores.shape) == (np.float32, (len(images), 3))
    for image, row in zip(images, scores, strict=True):
        for word, score in zip(WORDS, row, strict=True):
            assert (score > 0.5) == (word in colours(image))


def test_maps_show_the_half(linker, images):
    """Swapping the halves swaps the maps."""
    for image in images:
        left, right = colours(image)
        if left == right:
            continue
        maps = dict(zip(WORDS, linker.label_maps(image, WORDS)[0], strict=True))
        middle = maps[left].shape[1] // 2
        assert maps[left][:, :middle].mean() > 2 * maps[left][:, middle:].mean()
        assert maps[right][:, middle:].mean() > 2 * maps[right][:, :middle].mean()


def test_scores_are_computed_from_maps(linker, images):
    maps = linker.label_maps(images[:3], WORDS).astype(np.float64)
    logits = np.log(maps / (1 - maps))
    share = linker.model.mix.sigmoid().item()
    expected = share * logits.max((2, 3)) + (1 - share) * logits.mean((2, 3))
    expected = 1 / (1 + np.exp(-expected))
    np.testing.assert_allclose(linker.labels(images[:3], WORDS), expected, atol=1e-3)


def test_regions_of_an_image(linker, images):
    regions = linker.region_embeddings(images[:2])
    blocks = linker.model.options.blocks
    assert regions.shape == (2, blocks, linker.model.dimensions, 8, 8)
    np.testing.assert_allclose(np.linalg.norm(regions, axis=2), 1, atol=1e-5)
    rows = linker.encode_images(images[:2])
    expected = linker.model.pool(torch.from_numpy(regions)).numpy()
    np.testing.assert_allclose(rows, expected, atol=1e-5)
    assert linker.region_shape == (blocks, linker.model.dimensions, 8, 8)


def test_clusters_find_the_seam(linker, images):
    image = next(image for image in images if len(set(colours(image))) == 2)
    groups = linker.regions(image, 2)
    true = np.repeat([[0, 0, 0, 0, 1, 1, 1, 1]], 8, 0)
    assert (groups == true).mean() > 0.8


def test_two_colours_are_more_diverse_than_one(linker, images):
    values = linker.diversity(images)
    two = [len(set(colours(image))) == 2 for image in images]
    assert values[two].min() > values[np.logical_not(two)].max()


def test_unknown_words_and_other_models(linker, images, tmp_path_factory):
    with pytest.raises(InputError, match="the texts contain unknown words: 'zebra'"):
        linker.labels(images[0], ["red", "zebra"])
    with pytest.raises(InputError, match="unknown words: 'zebra'"):
        linker.label_maps("gone.png", "zebra")
    plain = Linker.from_pretrained(linking.run(tmp_path_factory), "cpu")
    for call in (
        lambda: plain.labels(images[0], "red"),
        lambda: plain.label_maps(images[0], "red"),
        lambda: plain.regions(images[0], 2),
        lambda: plain.diversity(images[0]),
    ):
        with pytest.raises(InputError, match="the model is not spatial"):
            call()
    assert plain.region_shape is None


# ---- the index ----


def test_the_index_computes_what_the_linker_computes(index, linker, images):
    assert [Path(path) for path in index.paths] == images
    np.testing.assert_allclose(index.label_scores(WORDS), linker.labels(images, WORDS), atol=0.01)
    maps = np.concatenate(list(index.label_maps(WORDS)))
    np.testing.assert_allclose(maps, linker.label_maps(images, WORDS), atol=0.03)
    np.testing.assert_allclose(index.diversity(), linker.diversity(images), atol=0.01)
    np.testing.assert_allclose(index.rows, linker.encode_images(images), atol=0.002)


def test_a_painting_finds_the_half(index, images):
    hits = index.paint([parse_layer("red=left")], top=len(images))
    with_red_left = [image for image in images if colours(image)[0] == "red"]
    assert {Path(hit.path) for hit in hits[: len(with_red_left)]} == set(with_red_left)
    exact = index.paint([parse_layer("red=left"), parse_layer("-red=right")], top=1)
    left, right = colours(Path(exact[0].path))
    assert left == "red" != right
    wide = Layer("green", [[0, 0, 0, 1, 1]])
    assert colours(Path(index.paint([wide], top=1)[0].path))[1] == "green"


def test_a_painting_and_a_query_are_added(index, images):
    layers = [parse_layer("red=left")]
    hits = index.paint(layers, "blue - 0.5*green", top=len(images))
    maps = np.concatenate(list(index.label_maps(["red"])))
    labels = index.label_scores(["blue", "green"])
    expected = painted_scores(maps, layers) + labels @ [1, -0.5]
    order = np.argsort(-expected, kind="stable")
    assert [Path(hit.path) for hit in hits] == [images[i] for i in order]
    np.testing.assert_allclose([hit.score for hit in hits], expected[order], atol=1e-5)
    like = index.paint(layers, f"image:{images[0]}", top=1)
    assert like[0].score > hits[-1].score


def test_paintings_that_are_refused(index, tmp_path, tmp_path_factory, images):
    with pytest.raises(InputError, match="nothing is painted"):
        index.paint([])
    with pytest.raises(InputError, match="unknown words: 'zebra'"):
        index.paint([parse_layer("zebra=left")])
    with pytest.raises(InputError, match="top must be at least 1"):
        index.paint([parse_layer("red=left")], top=0)
    plain = linking.run(tmp_path_factory)
    options = IndexOptions(cache=tmp_path / "cache", workers=0, device="cpu")
    index_images(plain, [str(images[0])], tmp_path / "plain.index", options)
    with pytest.raises(InputError, match="the model is not spatial"):
        Index.open(tmp_path / "plain.index").paint([parse_layer("red=left")])


def test_rows_and_regions_are_added_and_removed_together(run, images, linker, tmp_path, capsys):
    names = [tmp_path / f"{image.stem}.png" for image in images[:5]]
    for name, image in zip(names, images, strict=False):
        name.write_bytes(image.read_bytes())
    options = IndexOptions(cache=tmp_path / "cache", workers=0, device="cpu", batch_size=2)
    output = tmp_path / "some.index"
    index_images(run, [str(name) for name in names[:3]], output, options)
    names[1].unlink()
    index_images(run, [str(name) for name in names[3:]], output, options)
    kept = [names[0], *names[2:]]
    index = Index.open(output, linker)
    assert [Path(path) for path in index.paths] == kept
    expected = linker.labels([load_image(name) for name in kept], WORDS)
    np.testing.assert_allclose(index.label_scores(WORDS), expected, atol=0.01)
    assert len(list(output.glob("regions-*.bin"))) == 1
    bytes_per_image = linker.region_shape.bytes
    assert next(output.glob("regions-*.bin")).stat().st_size == 4 * bytes_per_image
    capsys.readouterr()


def test_truncated_regions_are_refused_and_repaired(run, images, linker, tmp_path, capsys):
    options = IndexOptions(cache=tmp_path / "cache", workers=0, device="cpu")
    output = tmp_path / "some.index"
    index_images(run, [str(image) for image in images[:3]], output, options)
    file = next(output.glob("regions-*.bin"))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"regions-1.bin is truncated: it has 2 of 3 rows; run"):
        Index.open(output, linker)
    index_images(run, [str(image) for image in images[:3]], output, options)
    assert len(Index.open(output, linker)) == 3
    capsys.readouterr()
