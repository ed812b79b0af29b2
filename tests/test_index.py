"""Index: search by vectors and queries, and the checkpoints it refuses."""

import json
import logging
import os
import shutil

import numpy as np
import pytest

import captioner
from captioner import Index, Linker
from captioner.checkpoints.checkpoint import identity
from captioner.errors import InputError
from captioner.index import find_last_index
from captioner.inference.indexing import IndexOptions, index_images
from captioner.retrieval.index_writer import open_writer
from captioner.retrieval.line_file import LineFile
from captioner.retrieval.query import parse
from tests.support import linking, tiny


@pytest.fixture
def run(tmp_path_factory):
    return linking.run(tmp_path_factory)


@pytest.fixture
def linker(run):
    return Linker.from_pretrained(run, "cpu")


@pytest.fixture
def images(tmp_path_factory):
    return [str(p) for p in sorted((tiny.data(tmp_path_factory) / "val").glob("*.png"))]


@pytest.fixture
def directory(run, images, tmp_path_factory):
    """An index of the val images; tests must not write into it."""
    base = tmp_path_factory.getbasetemp()
    if not (base / "val.index").exists():
        options = IndexOptions(cache=base / "cache", workers=0, device="cpu")
        index_images(run, images, base / "val.index", options)
    return base / "val.index"


def test_the_package_exports_it():
    assert captioner.Index is Index


def test_rows_and_paths(directory, run, linker, images):
    index = Index.open(str(directory))
    size = index.rows.shape[1]
    assert repr(index) == f"Index({directory}: {len(index)} {index.kind}, {size} dimensions)"
    with pytest.raises(InputError, match=r"use Index.open\("):
        Index(directory)
    assert len(index) == 7
    assert index.paths == images
    assert index.checkpoint == str(run)
    assert (index.rows.shape, index.rows.dtype) == ((7, linker.model.dimensions), np.float16)
    np.testing.assert_allclose(index.rows, linker.encode_images(images), atol=2e-3)


@pytest.mark.parametrize(
    "query", ["red", "red + blue", "2*white - 0.5*black", "- grey", "image:{} - red"]
)
def test_hits_are_ordered_by_the_cosine_with_the_query(directory, linker, images, query):
    query = query.format(images[2])
    hits = Index.open(directory, linker).search(query, top=3)
    vector = sum(
        term.weight * (linker.encode_images if term.is_image else linker.encode_texts)(term.text)[0]
        for term in parse(query).terms
    )
    cosines = linker.encode_images(images) @ vector / np.linalg.norm(vector)
    best = np.argsort(-cosines)[:3]
    assert [path for path, _ in hits] == [images[i] for i in best]
    assert [score for _, score in hits] == pytest.approx(cosines[best], abs=2e-3)


def test_an_image_finds_itself(directory, images):
    index = Index.open(directory, device="cpu")
    for image in images:
        hit = index.search(f"image:{image}")[0]
        assert hit.path == image
        assert hit.score == pytest.approx(1, abs=1e-3)


def test_text_queries_find_their_colour(directory, linker, images):
    """The run has learned the colours of its training images."""
    found = Index.open(directory, linker).search("red and nothing else", top=1)[0].path
    assert found == images[0]


TEXTS = ("red and nothing else", "blue and nothing else", "white")


@pytest.fixture
def texts(run, linker, tmp_path):
    """An index of TEXTS."""
    about = (str(run), identity(run / "best"), linker.model.dimensions, "texts")
    with open_writer(tmp_path / "texts.index", *about) as writer:
        writer.append(linker.encode_texts(TEXTS), [{"text": text} for text in TEXTS])
        writer.finish([])
    return tmp_path / "texts.index"


def test_an_index_of_texts(texts, linker, images):
    index = Index.open(texts, device="cpu")
    assert (index.kind, index.texts, len(index)) == ("texts", list(TEXTS), 3)
    assert index.search("blue", top=1)[0].text == TEXTS[1]
    cosines = linker.similarity(images[0], TEXTS)[0]
    hits = index.search(f"image:{images[0]}")
    assert [hit.text for hit in hits] == [TEXTS[i] for i in np.argsort(-cosines)]
    assert [hit.score for hit in hits] == pytest.approx(sorted(cosines, reverse=True), abs=2e-3)


def test_items_of_some_rows(directory, images, texts):
    index = Index.open(directory)
    assert index.items(np.array([5, 0])) == [images[5], images[0]]
    assert Index.open(texts).items([2]) == [TEXTS[2]]
    for row in (7, -1):
        with pytest.raises(
            InputError, match=rf"val.index has 7 rows, counted from 0; got row {row}$"
        ):
            index.items([0, row])


def test_only_the_chosen_items_are_read(directory, images, monkeypatch):
    index = Index.open(directory)
    read, lines = LineFile.read, []
    monkeypatch.setattr(LineFile, "read", lambda file, i: lines.append(i) or read(file, i))
    assert index.items([3, 1]) == [images[3], images[1]]
    assert lines == [3, 1]


def test_images_have_paths_and_texts_have_none(directory, texts):
    assert Index.open(directory).kind == "images"
    with pytest.raises(InputError, match="contains texts, so it has no paths; open an index of im"):
        _ = Index.open(texts).paths
    with pytest.raises(InputError, match="contains images, so it has no texts; open an index of t"):
        _ = Index.open(directory).texts


@pytest.mark.parametrize(("kind", "query"), [("images", "red"), ("texts", "image:{}")])
def test_an_empty_index_has_no_hits(run, linker, images, tmp_path, kind, query):
    about = (str(run), identity(run / "best"), linker.model.dimensions, kind)
    with open_writer(tmp_path / "empty.index", *about) as writer:
        writer.finish([])
    index, query = Index.open(tmp_path / "empty.index", linker), query.format(images[0])
    assert index.search(query) == []
    assert index.search(query, reranker=object()) == []  # nothing is scored


def test_top_may_be_a_numpy_integer(directory):
    index = Index.open(directory)
    assert len(index.search(np.ones(index.rows.shape[1]), np.int64(2))) == 2


def test_a_vector_is_scaled(directory, images):
    index = Index.open(directory)
    hits = index.search(1000 * index.rows[3].astype(np.float64), top=100)
    assert len(hits) == 7
    assert hits[0].path == images[3]
    assert hits[0].score == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("query", "top", "message"),
    [
        ("red", 0, "^top must be at least 1, got 0$"),
        ("red", 1.5, "^top must be an integer, got 1.5$"),
        ("red", "3", "^top must be an integer, got '3'$"),
        (
            np.ones(3),
            1,
            r"^a query vector must be numeric with shape \(\d+,\), got float64 \(3,\)$",
        ),
        ("", 1, "^the query is empty"),
        ("rde", 1, r"^the query contains unknown words: 'rde' \(similar: red\)"),
        ("red - red", 1, "^the terms of red - red cancel each other"),
        ("image:nothing.png", 1, "^'nothing.png': no such file"),
    ],
)
def test_invalid_searches(directory, linker, query, top, message):
    with pytest.raises(InputError, match=message):
        Index.open(directory, linker).search(query, top)


@pytest.mark.parametrize("value", [0, np.nan, np.inf])
def test_vectors_without_direction(directory, value):
    index = Index.open(directory)
    with pytest.raises(InputError, match=r"^a query vector must be finite and not zero, got norm"):
        index.search(np.full(index.rows.shape[1], value))


def test_damaged_rows(directory, tmp_path):
    copy = shutil.copytree(directory, tmp_path / "copy")
    content = bytearray((copy / "rows-1.npy").read_bytes())
    content[-2:] = np.float16(np.nan).tobytes()
    (copy / "rows-1.npy").write_bytes(content)
    index = Index.open(copy)
    with pytest.raises(InputError, match="copy is damaged: a row contains values that are not fi"):
        index.search(np.ones(index.rows.shape[1]))


def test_the_checkpoint_must_be_that_of_the_index(directory, tmp_path, tmp_path_factory):
    other = linking.run(tmp_path_factory, "ranking")
    index = Index.open(directory, other)
    with pytest.raises(InputError, match=r"was not written with the weights of .*ranking"):
        index.search("red")
    linker = Linker.from_pretrained(other, "cpu")
    with pytest.raises(InputError, match=r"has \d+ dimensions, but the linker has 12; use "):
        Index.open(directory, linker)
    copy = shutil.copytree(directory, tmp_path / "copy")
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "checkpoint": "/gone/run"}))
    with pytest.raises(InputError, match=r"^/gone/run, the checkpoint that .*copy, does not ex"):
        Index.open(copy).search("red")


def test_a_moved_checkpoint(directory, run, tmp_path):
    moved = shutil.copytree(run, tmp_path / "moved")
    assert Index.open(directory, moved, device="cpu").search("red", 1)


def test_the_last_index_of_a_directory(directory, tmp_path):
    with pytest.raises(
        InputError, match=r"^no index found in .*; pass one, or write one with captioner"
    ):
        find_last_index(tmp_path)
    for number in range(3):
        shutil.copytree(directory, tmp_path / f"{number}.index")
        (tmp_path / f"{number}.index" / "manifest.json").touch()
    os.utime(tmp_path / "1.index" / "manifest.json", (2e9, 2e9))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "manifest.json").write_text("{}")
    assert find_last_index(tmp_path) == tmp_path / "1.index"


def test_a_list_of_numbers_is_a_vector(directory):
    index = Index.open(directory)
    row = index.rows[2].astype(np.float32)
    assert index.search(row.tolist()) == index.search(row)
    with pytest.raises(InputError, match=r"^a query vector must be numeric with shape \("):
        index.search(None)


def prepare(run, images, directory):
    """Write an index of the images that is prepared for approximate search."""
    cache = directory.parent / "cache"
    options = IndexOptions(cache=cache, workers=0, device="cpu", approximate=True)
    index_images(run, images, directory, options)


def test_approximate_search_finds_the_same(run, linker, images, directory, tmp_path):
    prepare(run, images, tmp_path / "index")
    index = Index.open(tmp_path / "index", linker, approximate=True)
    for query in ("red", "red + blue", f"image:{images[2]} - red"):
        assert index.search(query) == Index.open(directory, linker).search(query)


def test_approximate_search_finds_images_added_later(run, linker, images, tmp_path):
    prepare(run, images[:5], tmp_path / "index")
    options = IndexOptions(cache=tmp_path / "cache", workers=0, device="cpu")
    index_images(run, images, tmp_path / "index", options)
    index = Index.open(tmp_path / "index", linker, approximate=True)
    assert index.search(f"image:{images[6]}")[0].path == images[6]
    prepare(run, images, tmp_path / "index")  # groups the new rows as well
    again = Index.open(tmp_path / "index", linker, approximate=True)
    assert again.search("red") == index.search("red")


def test_removed_images_end_approximate_search(run, linker, images, tmp_path, caplog):
    copies = [str(shutil.copy(image, tmp_path / f"{i}.png")) for i, image in enumerate(images)]
    prepare(run, copies, tmp_path / "index")
    os.remove(copies[0])
    options = IndexOptions(cache=tmp_path / "cache", workers=0, device="cpu")
    with caplog.at_level(logging.INFO, "captioner"):
        index_images(run, copies[1:], tmp_path / "index", options)
    assert "approximate search is no longer possible" in caplog.text
    with pytest.raises(InputError, match="run captioner index with --approximate, or"):
        Index.open(tmp_path / "index", linker, approximate=True)
    prepare(run, copies[1:], tmp_path / "index")
    assert len(Index.open(tmp_path / "index", linker, approximate=True).search("red")) == 6


def test_damaged_clusters_are_written_again(run, linker, images, tmp_path):
    prepare(run, images, tmp_path / "index")
    (path,) = (tmp_path / "index").glob("clusters-*")
    path.write_bytes(b"")
    with pytest.raises(InputError, match="is damaged"):
        Index.open(tmp_path / "index", linker, approximate=True)
    prepare(run, images, tmp_path / "index")
    Index.open(tmp_path / "index", linker, approximate=True)
