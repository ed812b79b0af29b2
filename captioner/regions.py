"""Localising words in images: label maps, regions and masks, computed by spatial models.

Shapes: B images, L labels, K blocks, E embedding dimensions, (h, w) grid, P cells of the grid.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .errors import InputError
from .models.linking.build import LinkingModel
from .models.linking.spatial import SpatialEmbedding

ROUNDS, STARTS = 50, 4  # maximum iterations of k-means, and random starts


@dataclass(frozen=True)
class LabelledImages:
    """The embeddings `rows` (B, E) and the label `scores` (B, L) in [0, 1] of images, float32."""

    rows: np.ndarray
    scores: np.ndarray


def spatial(model: LinkingModel) -> SpatialEmbedding:
    """Return the model; raise InputError if it is not spatial."""
    if not isinstance(model, SpatialEmbedding):
        raise InputError(
            "the model is not spatial, so it has no label maps or regions; use a model trained "
            "with --system spatial"
        )
    return model


def label_maps(model: SpatialEmbedding, features: Tensor, vectors: Tensor) -> Tensor:
    """Return label maps (B, L, h, w) in [0, 1], the sigmoids of the model's logits.

    features: feature maps (B, D, h, w). vectors (L, E): unit vectors of the labels.
    """
    return model.map_logits(model.regions(features), vectors).sigmoid()


def label_images(
    model: SpatialEmbedding, features: Iterable[Tensor], vectors: Tensor
) -> LabelledImages:
    """Embed images and score labels on them in one pass.

    features: batches of feature maps (B, D, h, w). vectors: as in `label_maps`.
    """
    rows, scores = [], []
    for batch in features:
        regions = model.regions(batch)
        scores.append(model.score_logits(model.map_logits(regions, vectors)).sigmoid().cpu())
        rows.append(model.pool(regions).cpu())
    return LabelledImages(torch.cat(rows).numpy(), torch.cat(scores).numpy())


def diversity(regions: Tensor) -> Tensor:
    """Return the variance of each image's region embeddings (B,), in [0, 1]; 0 if all are equal.

    regions: (B, K, E, h, w), of norm 1 over E. The variance over blocks and cells is therefore
    1 - |m|^2, where m is the mean embedding.
    """
    return 1 - regions.mean((1, 3, 4)).square().sum(-1)


def cluster_regions(
    regions: np.ndarray, labels: np.ndarray, count: int, seed: int = 0
) -> np.ndarray:
    """Group the cells of one image by k-means of their embeddings; return the groups (h, w).

    regions (K, E, h, w): region embeddings of the image. labels (L, E): unit vectors of labels.
    Cells are compared by the cosines of their embeddings with the labels, averaged over the blocks,
    so that differences that no label describes do not count; positions are ignored. count: maximum
    number of groups; there are fewer if fewer cells are distinct. Groups are numbered from 0, in
    reading order of their first cells. Raises InputError unless `count` is from 1 to the number of
    cells.
    """
    height, width = regions.shape[-2:]
    cells = height * width
    if not 1 <= count <= cells:
        raise InputError(
            f"count, the number of regions, must be from 1 to {cells}, the number of cells of the "
            f"feature map, got {count}"
        )
    embedded = regions.mean(0).reshape(-1, cells).astype(np.float64)  # (E, P)
    points = (labels @ embedded).T  # (P, L)
    generator = np.random.default_rng(seed)
    found = min((_k_means(points, count, generator) for _ in range(STARTS)), key=lambda f: f[1])[0]
    _, first, inverse = np.unique(found, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))
    numbered: np.ndarray = order[inverse].reshape(height, width)
    return numbered


def _k_means(
    points: np.ndarray, count: int, generator: np.random.Generator
) -> tuple[np.ndarray, float]:
    """Return the group of each point (P,), and the sum of squared distances to the groups' means.

    The means are initialised as in k-means++ (Arthur and Vassilvitskii 2007).
    """
    means = points[[generator.integers(len(points))]]
    while len(means) < count:
        nearest = _distances(points, means).min(1)
        total = nearest.sum()
        chances = nearest / total if total > 0 else np.full(len(points), 1 / len(points))
        means = np.concatenate([means, points[[generator.choice(len(points), p=chances)]]])
    groups = np.full(len(points), -1)
    for _ in range(ROUNDS):
        distances = _distances(points, means)
        nearest_mean = distances.argmin(1)
        if (nearest_mean == groups).all():
            break
        groups = nearest_mean
        for group in range(count):
            if (groups == group).any():
                means[group] = points[groups == group].mean(0)
    return groups, float(_distances(points, means).min(1).sum())


def _distances(points: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Return the squared distance of each point to each mean (P, means)."""
    squared = (points**2).sum(1)[:, None] - 2 * points @ means.T + (means**2).sum(1)
    distances: np.ndarray = np.maximum(squared, 0)
    return distances


def segment(maps: np.ndarray, threshold: float) -> np.ndarray:
    """Return the mask (H, W), int64, of maps (L, H, W): 0 is the background, i + 1 the label i.

    Each pixel gets the label with the largest map value, or the background if that value is below
    `threshold`.
    """
    best = maps.argmax(0)
    mask: np.ndarray = np.where(maps.max(0) >= threshold, best + 1, 0)
    return mask
