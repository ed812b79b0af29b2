"""Canonical correlations against the eigenproblem over all pairs, and on synthetic data."""

import numpy as np
import pytest
import torch

from captioner.errors import InputError
from captioner.models.linking.cca import fit_cca


def correlated(pairs=400, image_size=6, text_size=4, seed=0):
    """Vectors of both sides from a shared latent, with offsets and noise, float64."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    latent = normal(pairs, 3)
    images = latent @ normal(3, image_size) + normal(pairs, image_size) + 5
    texts = latent @ normal(3, text_size) + normal(pairs, text_size) - 2
    return images, texts


def ragged(images, texts):
    """Texts of random images; several images have none."""
    generator = torch.Generator().manual_seed(1)
    image_of_text = torch.randint(0, len(images) // 2, (len(texts),), generator=generator) * 2
    mixing = torch.randn(images.shape[1], texts.shape[1], generator=generator).double()
    return images, texts + images[image_of_text] @ mixing, image_of_text


def apply(affine, rows):
    return rows.float() @ affine.weight.T + affine.bias


def cosines(first, second):
    return (
        torch.nn.functional.normalize(first, dim=1) @ torch.nn.functional.normalize(second, dim=1).T
    )


@pytest.mark.parametrize("sizes", [(6, 4), (4, 6)])
@pytest.mark.parametrize("ridge", [0.0, 0.7])
@pytest.mark.parametrize("power", [0.0, 1.0, 4.0])
def test_maps_solve_the_eigenproblem_over_all_pairs(sizes, ridge, power):
    images, texts, image_of_text = ragged(*correlated(200, *sizes))
    image_map, text_map, correlations = fit_cca(
        images, texts, image_of_text, dimensions=3, ridge=ridge, power=power
    )
    x, y = images[image_of_text].numpy(), texts.numpy()
    x, y = x - x.mean(0), y - y.mean(0)
    cxx, cyy, cxy = x.T @ x / len(x), y.T @ y / len(y), x.T @ y / len(x)
    cxx += ridge * np.trace(cxx) / len(cxx) * np.eye(len(cxx))
    cyy += ridge * np.trace(cyy) / len(cyy) * np.eye(len(cyy))
    squares = np.linalg.eigvals(np.linalg.inv(cxx) @ cxy @ np.linalg.inv(cyy) @ cxy.T).real
    expected = np.sqrt(np.sort(squares)[::-1][:3])
    np.testing.assert_allclose(correlations, expected, rtol=1e-5)

    wx, wy = image_map.weight.double().numpy(), text_map.weight.double().numpy()
    scales = np.diag(expected ** (2 * power))
    np.testing.assert_allclose(wx @ cxx @ wx.T, scales, atol=1e-5)
    np.testing.assert_allclose(wy @ cyy @ wy.T, scales, atol=1e-5)
    np.testing.assert_allclose(wx @ cxy @ wy.T, scales * expected, atol=1e-5)
    # Over the pairs, both outputs have mean 0.
    for mean in (apply(image_map, images[image_of_text]).mean(0), apply(text_map, texts).mean(0)):
        torch.testing.assert_close(mean, torch.zeros(3), atol=1e-5, rtol=0)


def test_known_correlations_are_found():
    generator = torch.Generator().manual_seed(0)
    known = torch.tensor([0.9, 0.5, 0.2])
    shared, noise, mixing = (
        torch.randn(size, 3, generator=generator) for size in (20_000, 20_000, 3)
    )
    texts = (known * shared + (1 - known**2).sqrt() * noise) @ mixing
    *_, correlations = fit_cca(shared, texts, torch.arange(20_000), dimensions=3, ridge=0, power=1)
    torch.testing.assert_close(correlations, known, atol=0.02, rtol=0)


def test_scores_do_not_depend_on_the_basis_of_the_vectors():
    images, texts = correlated()
    rows = torch.arange(len(images))
    generator = torch.Generator().manual_seed(2)
    mixed = images @ torch.randn(6, 6, generator=generator, dtype=torch.float64) + 1
    turned = texts @ torch.randn(4, 4, generator=generator, dtype=torch.float64) - 3
    scores = []
    for x, y in ((images, texts), (mixed, turned)):
        image_map, text_map, _ = fit_cca(x, y, rows, dimensions=2, ridge=1e-10, power=1)
        scores.append(cosines(apply(image_map, x), apply(text_map, y)))
    torch.testing.assert_close(*scores, atol=1e-4, rtol=0)


def test_held_out_pairs_of_one_latent_are_matched():
    generator = torch.Generator().manual_seed(3)
    latent, to_image, to_text = (
        torch.randn(*shape, generator=generator) for shape in ((300, 8), (8, 20), (8, 12))
    )
    images, texts = latent @ to_image + 4, latent @ to_text
    image_map, text_map, correlations = fit_cca(
        images[:200], texts[:200], torch.arange(200), dimensions=8, ridge=1e-4, power=1
    )
    assert correlations.min() > 0.98
    scores = cosines(apply(image_map, images[200:]), apply(text_map, texts[200:]))
    assert scores.argmax(0).tolist() == scores.argmax(1).tolist() == list(range(100))


def test_images_without_a_text_do_not_count():
    images, texts, image_of_text = ragged(*correlated())
    kept, renumbered = image_of_text.unique(return_inverse=True)
    assert len(kept) < len(images)
    found = fit_cca(images, texts, image_of_text, dimensions=2, ridge=0.1, power=1)
    expected = fit_cca(images[kept], texts, renumbered, dimensions=2, ridge=0.1, power=1)
    torch.testing.assert_close(found[2], expected[2])
    torch.testing.assert_close(found[1].weight.abs(), expected[1].weight.abs())


def test_float32_is_enough():
    images, texts, image_of_text = ragged(*correlated())
    *_, expected = fit_cca(images, texts, image_of_text, dimensions=3, ridge=0.1, power=1)
    *maps, found = fit_cca(
        images.float(), texts.float(), image_of_text, dimensions=3, ridge=0.1, power=1
    )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert {tensor.dtype for affine in maps for tensor in affine} == {torch.float32}


ROWS = torch.arange(8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"dimensions": 4},
            "dimensions must be between 1 and 3 for image vectors of size 5 and .* size 3, got 4",
        ),
        ({"dimensions": 0}, "^dimensions must be between 1 and 3 .* got 0$"),
        (
            {"image_of_text": ROWS[:7]},
            r"^images must .*, texts \(8, 3\), image_of_text \(7,\)$",
        ),
        (
            {"images": torch.zeros(8)},
            r"^images must .* got images \(8,\), image_of_text \(8,\)$",
        ),
        ({"image_of_text": ROWS + 1}, "^image_of_text must contain indices from 0 to 7, got 1 to"),
        ({"image_of_text": ROWS - 1}, "^image_of_text must contain indices from 0 to 7, got -1 to"),
        ({"texts": torch.full((8, 3), torch.nan)}, "^text vectors must be finite"),
        ({"images": torch.full((8, 5), torch.inf)}, "^image vectors must be finite"),
        ({"texts": torch.zeros(0, 3), "image_of_text": ROWS[:0]}, "there are no texts; pass at le"),
        ({"texts": torch.zeros(8, 3)}, "a covariance is singular; use a larger ridge"),
    ],
)
def test_bad_input_is_refused(change, message):
    generator = torch.Generator().manual_seed(0)
    images, texts = torch.randn(8, 5, generator=generator), torch.randn(8, 3, generator=generator)
    arguments = {"images": images, "texts": texts, "image_of_text": ROWS, "dimensions": 2}
    with pytest.raises(InputError, match=message):
        fit_cca(**(arguments | change), ridge=0.1, power=1)


@pytest.mark.parametrize("size", [1, 7, 50, 500])
def test_texts_in_blocks_give_the_same_maps(size):
    images, texts, image_of_text = ragged(*correlated())
    options = {"dimensions": 3, "ridge": 0.1, "power": 1}
    expected = fit_cca(images, texts, image_of_text, **options)
    found = fit_cca(images, iter(texts.split(size)), image_of_text, **options)
    for first, second in zip((*found[0], *found[1]), (*expected[0], *expected[1]), strict=True):
        torch.testing.assert_close(first.abs(), second.abs(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[2], expected[2])


def test_large_means_do_not_cost_digits():
    images, texts, image_of_text = ragged(*correlated())
    options = {"dimensions": 3, "ridge": 0.1, "power": 1}
    *_, expected = fit_cca(images, texts, image_of_text, **options)
    far = (texts + 1000).float()
    *_, found = fit_cca(images.float(), far.split(50), image_of_text, **options)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("sizes", [(5, 4), (4,), (4, 3, 0, 2)])
def test_blocks_of_another_number_of_texts_are_refused(sizes):
    images = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
    blocks = (torch.ones(size, 3) for size in sizes)
    message = rf"got images \(8, 5\), texts \({sum(sizes)}, 3\), image_of_text \(8,\)$"
    with pytest.raises(InputError, match=message):
        fit_cca(images, blocks, ROWS, dimensions=2, ridge=0.1, power=1)


def test_blocks_of_other_dimensions_are_refused():
    images = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
    blocks = [torch.ones(4, 3), torch.ones(4, 4)]
    message = r"^images must have .*, texts \(8, 4\), image_of_text \(8,\)$"
    with pytest.raises(InputError, match=message):
        fit_cca(images, blocks, ROWS, dimensions=2, ridge=0.1, power=1)
