"""Regularised canonical correlation analysis in closed form.

The text vectors are read in blocks, because long ones, such as word counts, may not all fit into
memory.

Shapes: I images, N texts, X image dimensions, Y text dimensions, E embedding dimensions.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from ...errors import InputError

BLOCK = 4096  # texts read at once
COLUMNS = 256  # of a covariance computed at once


class AffineMap(NamedTuple):
    """rows (N, X) -> rows @ weight.T + bias (N, E); weight (E, X), bias (E,), float32."""

    weight: Tensor
    bias: Tensor


def fit_cca(
    images: Tensor,
    texts: Tensor | Iterable[Tensor],
    image_of_text: Tensor,
    *,
    dimensions: int,
    ridge: float,
    power: float,
) -> tuple[AffineMap, AffineMap, Tensor]:
    """Fit affine maps of images and texts so that their outputs are maximally correlated.

    images (I, X) and texts (N, Y) must have the same floating dtype; texts may also be an iterable
    over blocks of rows, which is read once. image_of_text (N,): index of each text's image.
    Every text forms one pair with its image; images without texts are ignored. ridge: value added
    to the diagonal of each covariance, as a multiple of the diagonal's mean. power: exponent of the
    canonical correlations by which the output dimensions are scaled on both sides (Gong et al.
    2014), so that highly correlated dimensions have more weight in the cosine of two outputs; if
    power and ridge are 0, each dimension has unit variance.

    Returns the map of images, the map of texts, and the correlations (E,) in [0, 1], highest first.
    The method is that of Hotelling (1936) with the ridge of Vinod (1976): the maps are computed
    from the singular vectors of the cross-covariance of images and texts, after both have been
    whitened with their Cholesky factors.

    Raises InputError if there are no texts, if the shapes do not match, if an index is out of
    range, if a value is not finite, if `dimensions` is below 1 or exceeds X or Y, or if a
    covariance is singular despite the ridge.
    """
    _check(images, image_of_text)
    # Summing the texts of each image yields the moments of all N pairs from only I rows.
    counts = torch.bincount(image_of_text, minlength=len(images)).to(images)
    image_mean = counts @ images / len(image_of_text)
    x = images - image_mean
    blocks = torch.split(texts, BLOCK) if isinstance(texts, Tensor) else texts
    text_mean, text_covariance, sums = _text_moments(blocks, images, image_of_text)
    _check_dimensions(dimensions, x.shape[1], len(text_mean))
    image_factor = _cholesky(_gram(x, x * counts[:, None]) / len(image_of_text), ridge)
    text_factor = _cholesky(text_covariance, ridge)
    cross = (x.T @ sums / len(image_of_text)).double()
    whitened = torch.linalg.solve_triangular(image_factor, cross, upper=False)
    whitened = torch.linalg.solve_triangular(text_factor, whitened.T, upper=False).T  # (X, Y)
    left, correlations, right = _leading_singular(whitened, dimensions)

    def affine(factor: Tensor, basis: Tensor, mean: Tensor) -> AffineMap:
        weight = torch.linalg.solve_triangular(factor.T, basis, upper=True)
        weight = (weight * correlations**power).T.contiguous()
        return AffineMap(weight.float(), -(weight @ mean.double()).float())

    image_map = affine(image_factor, left, image_mean)
    text_map = affine(text_factor, right, text_mean)
    return image_map, text_map, correlations.float()


def _text_moments(
    blocks: Iterable[Tensor], images: Tensor, image_of_text: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean (Y,) and covariance (Y, Y) of the texts, and the sums (I, Y) by image.

    The mean and the covariance are float64. The mean of the first block is subtracted from all
    texts before they are summed by image and before their products are summed, so that no digits
    are lost by subtracting large means at the end.
    """
    start, shift = 0, torch.empty(0)
    for block in blocks:
        fits = block.ndim == 2 and start + len(block) <= len(image_of_text)
        if not fits or (start and block.shape[1:] != shift.shape):
            raise _shape_error(images, (start + len(block), *block.shape[1:]), image_of_text)
        if not block.isfinite().all():
            raise InputError("text vectors must be finite, got NaN or infinity")
        if not start:
            shift = block.mean(0)
            sums = block.new_zeros(len(images), len(shift))
            products = block.new_zeros(len(shift), len(shift), dtype=torch.float64)
        centred = block - shift
        products += _gram(centred, centred)
        sums.index_add_(0, image_of_text[start : start + len(block)], centred)
        start += len(block)
    if start != len(image_of_text):
        raise _shape_error(images, (start, len(shift)), image_of_text)
    difference = sums.double().sum(0) / start
    covariance = products.div_(start).sub_(difference.outer(difference))
    return shift.double() + difference, covariance, sums


def _gram(rows: Tensor, weighted: Tensor) -> Tensor:
    """Return weighted.T @ rows (X, X), which must be symmetric; the upper blocks are computed."""
    products = rows.new_empty(rows.shape[1], rows.shape[1])
    for first in range(0, len(products), COLUMNS):
        columns = weighted[:, first : first + COLUMNS]
        products[first : first + COLUMNS, first:] = columns.T @ rows[:, first:]
    return products.triu() + products.triu(1).T


def _check(images: Tensor, image_of_text: Tensor) -> None:
    if images.ndim != 2 or image_of_text.ndim != 1:
        raise _shape_error(images, None, image_of_text)
    if not len(image_of_text):
        raise InputError(
            "canonical correlations cannot be computed: there are no texts; pass at least one"
        )
    low, high = (int(value) for value in image_of_text.aminmax())
    if low < 0 or high >= len(images):
        raise InputError(
            f"image_of_text must contain indices from 0 to {len(images) - 1}, got {low} to {high}"
        )
    if not images.isfinite().all():
        raise InputError("image vectors must be finite, got NaN or infinity")


def _check_dimensions(dimensions: int, images: int, texts: int) -> None:
    limit = min(images, texts)
    if not 1 <= dimensions <= limit:
        raise InputError(
            f"dimensions must be between 1 and {limit} for image vectors of size {images} and "
            f"text vectors of size {texts}, got {dimensions}"
        )


def _shape_error(
    images: Tensor, texts: tuple[int, ...] | None, image_of_text: Tensor
) -> InputError:
    """Return the error for mismatched shapes; `texts` is the shape of the texts, if known."""
    found = {"images": tuple(images.shape), "texts": texts, "image_of_text": image_of_text.shape}
    return InputError(
        "images must have shape (I, X), texts (N, Y) and image_of_text (N,), got "
        + ", ".join(f"{name} {tuple(shape)}" for name, shape in found.items() if shape is not None)
    )


def _leading_singular(matrix: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the leading left vectors (X, E), singular values (E,) and right vectors (Y, E).

    The values are in [0, 1]. All three are computed from the eigenvectors of the smaller Gram
    matrix, which is several times faster than a full decomposition. The vectors of the larger
    dimension have a norm below 1 if their singular value is near 0.
    """
    if matrix.shape[0] > matrix.shape[1]:
        right, values, left = _leading_singular(matrix.T, count)
        return left, values, right
    eigenvalues, vectors = torch.linalg.eigh(matrix @ matrix.T)
    values = eigenvalues.flip(0)[:count].clamp(0, 1).sqrt()
    left = vectors.flip(1)[:, :count]
    return left, values, matrix.T @ left / values.clamp_min(1e-6)


def _cholesky(covariance: Tensor, ridge: float) -> Tensor:
    """Return the lower Cholesky factor (float64) of a covariance with a ridge on its diagonal."""
    covariance = covariance.to(torch.float64, copy=True)
    covariance.diagonal().add_(ridge * covariance.diagonal().mean())
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if failed:
        raise InputError(
            "canonical correlations cannot be computed: a covariance is singular; use a larger "
            "ridge, or vectors that vary in every dimension"
        )
    return factor
