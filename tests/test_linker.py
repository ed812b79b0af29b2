"""Linker: embeddings of images and texts, their cosines, and what it refuses."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import captioner
from captioner import Linker
from captioner.data.images import load_image
from captioner.errors import InputError
from captioner.models.linking.linear import image_vectors
from tests.support import linking, tiny

TEXTS = ["red and nothing else", "blue", "a text with blue"]


@pytest.fixture(params=linking.SOLVERS)
def linker(request, tmp_path_factory):
    return Linker.from_pretrained(linking.run(tmp_path_factory, request.param), "cpu")


@pytest.fixture
def images(tmp_path_factory):
    return sorted((tiny.data(tmp_path_factory) / "val").glob("*.png"))


def test_the_package_exports_it():
    assert captioner.Linker is Linker


def test_repr_and_paths(linker):
    assert repr(linker) == (
        f"Linker(LinearMap with small_cnn; {linker.model.dimensions} dimensions, cpu)"
    )
    with pytest.raises(InputError, match=r"use Linker.from_pretrained\('run'\)$"):
        Linker("run")


def test_images_of_every_kind(linker, images):
    expected = linker.encode_images(images)
    frames = np.stack([np.asarray(Image.open(path)) for path in images])
    for given in (images[0].parent, frames, iter(images), [path.read_bytes() for path in images]):
        assert np.array_equal(linker.encode_images(given), expected)
    assert np.array_equal(linker.encode_images(frames[..., ::-1], bgr=True), expected)
    assert np.array_equal(linker.encode_images(frames[0]), linker.encode_images(images[0]))


def test_images_are_mapped_as_in_training(linker, images):
    """Pooled features, through the affine map, divided by the norm."""
    model, transform = linker.model, linker.transform
    with torch.no_grad():
        pixels = transform.batch([load_image(path) for path in images])
        vectors = image_vectors(model.encoder(pixels))
        expected = model.image(vectors)
        expected /= expected.norm(dim=1, keepdim=True)
    rows = linker.encode_images(images)
    assert (rows.dtype, rows.shape) == (np.float32, (7, model.dimensions))
    np.testing.assert_allclose(rows, expected, atol=1e-5)


def test_texts_are_mapped_as_in_training(linker):
    vectors = torch.from_numpy(linker.texts.sentences.encode(TEXTS[:2]))
    with torch.no_grad():
        expected = linker.model.text(vectors)
    expected /= expected.norm(dim=1, keepdim=True)
    rows = linker.encode_texts(TEXTS[:2])
    assert (rows.dtype, rows.shape) == (np.float32, (2, linker.model.dimensions))
    np.testing.assert_allclose(rows, expected, atol=1e-5)


def test_rank_by_sorting(linker, images):
    """Text to image, image to image, text to text and image to text."""
    image_rows = linker.encode_images(images)
    text_rows, _ = linker.encode_texts(TEXTS, on_unknown="return")
    for query in ("red - blue", f"image:{images[3]}"):
        vector = linker.encode_query(query)
        for rows, given in (
            (image_rows, {"images": images}),
            (text_rows, {"texts": TEXTS, "on_unknown": "ignore"}),
        ):
            order = np.argsort(-(rows @ vector))[:3]
            found = linker.rank(query, top=3, **given)
            assert [index for index, _ in found] == order.tolist()
            cosines = (rows @ vector)[order]
            assert [cosine for _, cosine in found] == pytest.approx(cosines, abs=1e-5)
    assert linker.rank("red", texts=TEXTS[:2], top=100)[1][0] == 1
    assert linker.rank("red", images=[]) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "^rank needs either images or texts; pass one of them$"),
        ({"images": [], "texts": []}, "^rank needs either images or texts; pass one of them$"),
        ({"texts": TEXTS, "on_unknown": "return"}, "^on_unknown must be raise or ignore, got 'ret"),
        ({"texts": TEXTS, "top": 0}, "^top must be at least 1, got 0$"),
        ({"texts": TEXTS, "top": 2.0}, r"^top must be an integer, got 2\.0$"),
        ({"texts": ["zebra"]}, "^the texts contain unknown words: 'zebra'"),
    ],
)
def test_invalid_ranks(linker, given, message):
    with pytest.raises(InputError, match=message):
        linker.rank("red", **given)


def test_similarity_is_the_cosine(linker, images):
    cosines = linker.similarity(images[:3], TEXTS[:2])
    assert cosines.shape == (3, 2)
    for i, image in enumerate(images[:3]):
        for j, text in enumerate(TEXTS[:2]):
            a, b = linker.encode_images(image)[0], linker.encode_texts(text)[0]
            expected = a @ b / np.sqrt((a @ a) * (b @ b))
            assert cosines[i, j] == pytest.approx(expected, abs=1e-5)


def test_one_image_and_one_text_are_single_rows(linker, images):
    path = images[0]
    with Image.open(path) as image:
        pixels = image.convert("RGB")
    forms = [path, str(path), pixels, np.asarray(pixels)]
    rows = [linker.encode_images(form) for form in forms]
    assert {row.shape for row in rows} == {(1, linker.model.dimensions)}
    for row in rows[1:]:
        np.testing.assert_array_equal(row, rows[0])
    assert linker.encode_texts("red").shape == (1, linker.model.dimensions)
    assert linker.similarity(str(path), "red").shape == (1, 1)
    assert linker.encode_images([]).shape == (0, linker.model.dimensions)
    assert linker.encode_texts([]).shape == (0, linker.model.dimensions)


@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_batches_change_nothing(linker, images, size):
    rows = linker.encode_images(images, batch_size=size)
    np.testing.assert_allclose(rows, linker.encode_images(images), atol=1e-5)


def test_unknown_words_raise_or_are_returned(linker):
    with pytest.raises(InputError, match=r"words: 'a', 'text', 'with'; replace or omit them"):
        linker.encode_texts(TEXTS)
    rows, unknown = linker.encode_texts(TEXTS, on_unknown="return")
    assert unknown == [[], [], ["a", "text", "with"]]
    np.testing.assert_allclose(rows[2], rows[1], atol=1e-6)  # without the unknown words
    with pytest.raises(InputError, match=r"unknown words: 'dog'"):
        linker.similarity("gone.png", "dog")
    with pytest.raises(InputError, match=r"on_unknown must be raise or return, got 'ignore'"):
        linker.encode_texts("red", on_unknown="ignore")


@pytest.mark.parametrize("text", ["", "?!", "zebra"])
def test_a_text_without_known_words_has_no_row(linker, text):
    with pytest.raises(InputError, match=r"^a text must contain at least one known word, got '"):
        linker.encode_texts(["red", text], on_unknown="return")


def test_images_that_cannot_be_read(linker, images, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    mixed = [images[0], broken, images[1], Path("gone.png")]
    with pytest.raises(InputError, match=r"broken.png': not an image in any of the formats"):
        linker.encode_images(mixed)
    for size in (1, 2, 3, 9):
        rows = list(linker.stream_images(mixed, batch_size=size, on_error="yield"))
        assert "broken.png" in str(rows.pop(1))
        assert "gone.png" in str(rows.pop(2))
        np.testing.assert_allclose(rows, linker.encode_images(images[:2]), atol=1e-5)
    with pytest.raises(InputError, match=r"on_error must be stop or yield, got 'skip'"):
        next(linker.stream_images(mixed, on_error="skip"))
    with pytest.raises(InputError, match=r"batch_size must be at least 1, got 0"):
        linker.encode_images(images, batch_size=0)


def test_streaming_reads_a_few_batches_ahead_only(linker, images, monkeypatch):
    read = []

    def load(image, least):
        read.append(image)
        return load_image(image, least)

    monkeypatch.setattr("captioner.data.sources.load_image", load)
    rows = linker.stream_images(images * 10, batch_size=2, workers=1)
    next(rows)
    rows.close()
    assert len(read) <= 6


# ---- queries ------------------------------------------------------------------------------------


def test_a_query_is_the_weighted_sum_of_its_terms(linker, images):
    red, blue = linker.encode_texts(["red", "blue and nothing else"])
    total = 2 * red - 0.5 * blue + linker.encode_images(images[0])[0]
    vector = linker.encode_query(f'2*red - 0.5*"blue and nothing else" + image:"{images[0]}"')
    assert (vector.dtype, vector.shape) == (np.float32, (linker.model.dimensions,))
    np.testing.assert_allclose(vector, total / np.linalg.norm(total), atol=1e-5)


def test_rows_of_images_may_come_from_elsewhere(linker, images):
    rows = linker.encode_images(images)
    numbers = {f"no file {i}": i for i in range(len(images))}
    vector = linker.encode_query(
        'image:"no file 2" - red + image:"no file 0"',
        embed_images=lambda names: rows[[numbers[name] for name in names]],
    )
    query = f'image:"{images[2]}" - red + image:"{images[0]}"'
    np.testing.assert_allclose(vector, linker.encode_query(query), atol=1e-6)


def test_the_words_of_a_phrase_are_embedded_together(linker):
    phrase = linker.encode_query("red and nothing else")
    np.testing.assert_allclose(phrase, linker.encode_texts("red and nothing else")[0], atol=1e-6)
    assert not np.allclose(phrase, linker.encode_query("red + and + nothing + else"), atol=1e-3)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (
            "red + ywllow",
            r"^the query contains unknown words: 'ywllow' \(similar: y",
        ),
        ("rde blu", r"'rde' \(similar: red\), 'blu' \(similar: blue\); replace them$"),
        (
            "red-blue",
            r"'red-blue' \(.*to subtract, write red - blue\); replace them$",
        ),
        ("qqqqq", r"'qqqqq' \(no similar word\); replace them$"),
        ("red + ...", r"^each term of a query must contain a word, got '...'$"),
        ("red - red", "^the terms of red - red cancel each other"),
        ("red + image:missing.png", "^'missing.png': no such file"),
        ("red -", "^query 'red -' has nothing to add or subtract after a -"),
    ],
)
def test_queries_that_cannot_be_embedded(linker, query, message):
    with pytest.raises(InputError, match=message):
        linker.encode_query(query)


def test_only_strings_are_texts_and_queries(linker):
    """A missing value of a table is a number."""
    for texts in (["blue", float("nan")], [None], 3):
        with pytest.raises(InputError, match=r"^a text must be a string, got (nan|None|3)$"):
            linker.encode_texts(texts)
    with pytest.raises(
        InputError, match=r"^a query must be a string, such as 'dog \+ beach', got 3"
    ):
        linker.encode_query(3)
