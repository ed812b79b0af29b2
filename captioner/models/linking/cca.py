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
    """The maps of images and of texts whose outputs correlate most over all pairs.

    images (I, X), texts (N, Y), float32; image_of_text (N,): the row of each text's image. ridge:
    added to the diagonal of either covariance, as a share of its mean diagonal. Every dimension is
    scaled on both sides by its canonical correlation to the given power, so that the cosine of two
    outputs trusts the well correlated ones more (Gong et al. 2014, section 3.3).
    Returns the map of images, that of texts, and the correlations (E,), largest first. Hotelling
    1936, solved by two Cholesky factors and one symmetric eigenproblem.
    Raises InputError for more dimensions than X or Y.
    """
    limit = min(images.shape[1], texts.shape[1])
    if dimensions > limit:
        raise InputError(
            f"dimensions must be at most {limit} for image vectors of {images.shape[1]} and text "
            f"vectors of {texts.shape[1]}, got {dimensions}"
        )
    # Texts of one image share its row: sums over texts give the moments of all N pairs from I rows.
    counts = torch.bincount(image_of_text, minlength=len(images)).to(images)
    image_mean = counts @ images / len(texts)
    text_mean = texts.mean(0)
    x, y = images - image_mean, texts - text_mean
    sums = torch.zeros(len(images), texts.shape[1]).index_add_(0, image_of_text, y)
    image_factor = _cholesky((x * counts[:, None]).T @ x / len(texts), ridge)
    text_factor = _cholesky(y.T @ y / len(texts), ridge)
    cross = (x.T @ sums / len(texts)).double()
    whitened = torch.linalg.solve_triangular(image_factor, cross, upper=False)
    whitened = torch.linalg.solve_triangular(text_factor, whitened.T, upper=False).T  # (X, Y)
    left, correlations, right = _leading_singular(whitened, dimensions)

    def affine(factor: Tensor, basis: Tensor, mean: Tensor) -> AffineMap:
        weight = torch.linalg.solve_triangular(factor.T, basis, upper=True)
        weight = (weight * correlations**power).T.float().contiguous()
        return AffineMap(weight, -(weight @ mean))

    image_map = affine(image_factor, left, image_mean)
    text_map = affine(text_factor, right, text_mean)
    return image_map, text_map, correlations.float()


def _leading_singular(matrix: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The leading singular vectors (X, E), values (E,) in 0..1, and right vectors (Y, E).

    By the eigenvectors of the smaller Gram matrix, several times as fast as a full decomposition.
    """
    if matrix.shape[0] > matrix.shape[1]:
        right, values, left = _leading_singular(matrix.T, count)
        return left, values, right
    eigenvalues, vectors = torch.linalg.eigh(matrix @ matrix.T)
    values = eigenvalues.flip(0)[:count].clamp(0, 1).sqrt()
    left = vectors.flip(1)[:, :count]
    return left, values, matrix.T @ left / values.clamp_min(1e-6)


def _cholesky(covariance: Tensor, ridge: float) -> Tensor:
    """The lower Cholesky factor of a covariance with a ridge on its diagonal, float64."""
    covariance = covariance.double()
    covariance.diagonal().add_(ridge * covariance.diagonal().mean())
    return torch.linalg.cholesky(covariance)
