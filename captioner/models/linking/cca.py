"""Regularised canonical correlation analysis in closed form.

Shapes: I images, N texts, X image dimensions, Y text dimensions, E embedding dimensions.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ...errors import InputError


class AffineMap(NamedTuple):
    """rows (N, X) -> rows @ weight.T + bias (N, E); weight (E, X), bias (E,), float32."""

    weight: Tensor
    bias: Tensor


def fit_cca(
    images: Tensor,
    texts: Tensor,
    image_of_text: Tensor,
    *,
    dimensions: int,
    ridge: float,
    power: float,
) -> tuple[AffineMap, AffineMap, Tensor]:
    """Fit the maps of images and texts whose outputs are most correlated over all pairs.

    images (I, X), texts (N, Y), with the same floating dtype; image_of_text (N,): index of each
    text's image. Every text forms one pair with its image; images without texts are ignored. ridge:
    value added to the diagonal of each covariance, as a multiple of the diagonal's mean. Every
    output dimension is scaled on both sides by its canonical correlation to the given power (Gong
    et al. 2014), so that highly correlated dimensions have more weight in the cosine of two
    outputs; with power 0 and ridge 0, each dimension has unit variance.

    Returns the map of images, the map of texts, and the correlations (E,) in [0, 1], highest first.
    Hotelling 1936, with the ridge of Vinod 1976: the maps come from the singular vectors of the
    cross-covariance between X and Y, after whitening both with their Cholesky factors.

    Raises InputError if the shapes do not match, if a value is not finite, if `dimensions` exceeds
    X or Y, or if a covariance is singular despite the ridge.
    """
    _check(images, texts, image_of_text, dimensions)
    # Summing the texts of each image yields the moments of all N pairs from only I rows.
    counts = torch.bincount(image_of_text, minlength=len(images)).to(images)
    image_mean = counts @ images / len(texts)
    text_mean = texts.mean(0)
    x, y = images - image_mean, texts - text_mean
    sums = y.new_zeros(len(images), y.shape[1]).index_add_(0, image_of_text, y)
    image_factor = _cholesky((x * counts[:, None]).T @ x / len(texts), ridge)
    text_factor = _cholesky(y.T @ y / len(texts), ridge)
    cross = (x.T @ sums / len(texts)).double()
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


def _check(images: Tensor, texts: Tensor, image_of_text: Tensor, dimensions: int) -> None:
    if images.ndim != 2 or texts.ndim != 2 or image_of_text.shape != texts.shape[:1]:
        raise InputError(
            "images must be (I, X), texts (N, Y) and image_of_text (N,), got "
            f"{tuple(images.shape)}, {tuple(texts.shape)} and {tuple(image_of_text.shape)}"
        )
    if not len(texts):
        raise InputError("canonical correlations cannot be computed: there are no texts")
    low, high = (int(value) for value in image_of_text.aminmax())
    if low < 0 or high >= len(images):
        raise InputError(
            f"image_of_text must be between 0 and {len(images) - 1}, got {low} to {high}"
        )
    for name, vectors in (("image", images), ("text", texts)):
        if not vectors.isfinite().all():
            raise InputError(f"{name} vectors must be finite, got NaN or infinity")
    limit = min(images.shape[1], texts.shape[1])
    if not 1 <= dimensions <= limit:
        raise InputError(
            f"dimensions must be between 1 and {limit} for image vectors of size "
            f"{images.shape[1]} and text vectors of size {texts.shape[1]}, got {dimensions}"
        )


def _leading_singular(matrix: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the leading left vectors (X, E), singular values (E,) and right vectors (Y, E).

    The values are in [0, 1]. They are computed from the eigenvectors of the smaller Gram matrix,
    several times as fast as a full decomposition. One side's vectors have a norm below 1 if their
    singular value is near 0.
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
    covariance = covariance.double()
    diagonal = ridge * covariance.diagonal().mean()
    covariance = covariance + diagonal * torch.eye(len(covariance), device=covariance.device)
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if failed:
        raise InputError(
            "canonical correlations cannot be computed: a covariance is singular; use a larger "
            "ridge, or vectors that vary in every dimension"
        )
    return factor
