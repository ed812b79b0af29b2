"""Spatial embedding: words and the regions of images in one space.

The cosines of all regions with the vector of a label form a map of where the label is; training
needs only labels of whole images (Kovacs and Bremner 2019). Shapes: B images, S image side, L
labels, K blocks of region embeddings, D channels, (h, w) grid, E embedding dimensions.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import InputError
from ...vision.encoders import Encoder
from ..losses import Loss
from .options import SpatialOptions
from .texts import Texts

CENTRE_RATE = 0.02  # of the running mean of regions


@dataclass(frozen=True)
class SpatialBatch:
    """Images, and their positive and negative labels for a training step.

    images: pixels (B, 3, S, S) if `are_features` is false, otherwise feature maps (B, D, h, w).
    vectors (B, L, E): unit vectors of each image's labels. targets (B, L): 1 for positive labels,
    which the image has, and 0 for negative ones. weights (B, L): 0 for padding, otherwise 1.
    ids: one id per image, for error messages.
    """

    images: Tensor
    are_features: bool
    vectors: Tensor
    targets: Tensor
    weights: Tensor
    ids: tuple[int | str, ...] = ()

    def to(self, device: torch.device) -> "SpatialBatch":
        """Return the batch on a device; copies from pinned memory do not block."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "SpatialBatch":
        """Return the batch in pinned memory."""
        return self._map(Tensor.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor]) -> "SpatialBatch":
        return replace(
            self,
            images=change(self.images),
            vectors=change(self.vectors),
            targets=change(self.targets),
            weights=change(self.weights),
        )


class SpatialEmbedding(nn.Module):
    """Embeds every cell of a feature map K times (in K blocks), and scores labels in each cell.

    dimensions: E, the size of the label vectors, which are fixed. encoder: computes the feature
    maps, which are embedded by a 1 x 1 convolution, so that the scores of a cell depend only on
    the features of that cell.
    """

    features = "maps"  # kind of stored features that images are encoded from

    def __init__(self, channels: int, dimensions: int, options: SpatialOptions, encoder: Encoder):
        """Create the layers. channels: D. dimensions: E."""
        super().__init__()
        self.options = options
        self.encoder = encoder
        self.dimensions = dimensions
        self.blocks = nn.Conv2d(channels, options.blocks * dimensions, 1)
        self.log_gain = nn.Parameter(torch.tensor(math.log(options.gain)))
        self.hidden = nn.Linear(options.blocks, options.head_size)
        self.output = nn.Linear(options.head_size, 1)
        self.mix = nn.Parameter(torch.tensor(options.max_share).logit())  # of max pooling
        self.centre: Tensor  # (E,), mean region of training images
        self.register_buffer("centre", torch.zeros(dimensions))
        with torch.no_grad():  # a larger cosine means a larger score in all blocks at first
            self.hidden.weight.abs_()
            self.output.weight.abs_()
            self.output.bias.fill_(-options.gain / 4)  # most labels are absent from an image

    def regions(self, features: Tensor) -> Tensor:
        """Embed the regions of feature maps (B, D, h, w) as (B, K, E, h, w), of norm 1 over E.

        Raises InputError for pooled features and image vectors, which have no regions.
        """
        if features.ndim != 4:
            raise InputError(
                f"regions need feature maps (B, D, h, w), got shape {tuple(features.shape)}; pass "
                "maps that are not pooled"
            )
        maps = features.to(self.blocks.weight.dtype)  # stored maps have half precision
        maps = F.dropout2d(maps, self.options.dropout, self.training)
        embedded = self.blocks(maps)  # (B, K * E, h, w)
        return F.normalize(embedded.unflatten(1, (self.options.blocks, self.dimensions)), dim=2)

    def map_logits(self, regions: Tensor, vectors: Tensor) -> Tensor:
        """Return the logit of every label in every cell, (B, L, h, w).

        regions (B, K, E, h, w): as returned by `regions`. vectors: unit vectors of labels, (L, E)
        for all images or (B, L, E) for each image. The value of a map is the sigmoid of its logit.
        """
        batch, blocks, size, height, width = regions.shape
        rows = regions.flatten(3).transpose(2, 3).reshape(batch, -1, size)  # (B, K * h * w, E)
        if vectors.ndim == 2:
            cosines = rows @ vectors.T
        else:
            cosines = torch.bmm(rows, vectors.transpose(1, 2))  # (B, K * h * w, L)
        return self.head(cosines.reshape(batch, blocks, height * width, -1), (height, width))

    def head(self, cosines: Tensor, grid: tuple[int, int]) -> Tensor:
        """Map cosines (B, K, h * w, L) to logits (B, L, h, w); grid is (h, w).

        Both layers are 1 x 1 convolutions, written as matrix products, which are several times
        faster for so few channels.
        """
        size, labels = cosines.shape[2:]
        flat = cosines.flatten(2)  # (B, K, h * w * L)
        gained = self.hidden.weight * self.log_gain.exp()
        hidden = (gained @ flat + self.hidden.bias[:, None]).relu()
        logits = self.output.weight @ hidden + self.output.bias  # (B, 1, h * w * L)
        return logits.view(len(flat), size, labels).transpose(1, 2).reshape(-1, labels, *grid)

    def score_logits(self, maps: Tensor) -> Tensor:
        """Reduce the logits of maps (B, L, h, w) to one logit for each label, (B, L).

        The result is s * max + (1 - s) * mean over the cells, with a learned s in [0, 1].
        """
        flat, share = maps.flatten(2), self.mix.sigmoid()
        return share * flat.amax(2) + (1 - share) * flat.mean(2)

    def encode_images(self, features: Tensor) -> Tensor:
        """Return the embeddings (B, E) of whole images, of norm 1; see `pool`.

        features: feature maps (B, D, h, w).
        """
        return self.pool(self.regions(features))

    def pool(self, regions: Tensor) -> Tensor:
        """Average region embeddings (B, K, E, h, w) into one unit row per image (B, E).

        `centre`, a running mean of the regions of training images, is subtracted before the rows
        are scaled to norm 1; otherwise, a text close to this mean would be the best match of every
        image.
        """
        return F.normalize(regions.mean((1, 3, 4)) - self.centre, dim=-1)

    def encode_texts(self, texts: Tensor | Texts) -> Tensor:
        """Return text vectors (N, E), passed as a tensor or in `Texts`, scaled to norm 1.

        Zeros remain zeros.
        """
        vectors = texts.vectors if isinstance(texts, Texts) else texts
        assert vectors is not None
        return F.normalize(vectors, dim=-1)

    def loss(self, batch: SpatialBatch) -> Loss:
        """Return the mean binary cross-entropy (nats) over all labels of the batch's images.

        Its `count` is the number of images.
        """
        features = batch.images
        if not batch.are_features:
            features = self.encoder(features)
        regions = self.regions(self._drop_cells(features))
        logits = self.score_logits(self.map_logits(regions, batch.vectors))
        losses = F.binary_cross_entropy_with_logits(logits, batch.targets, reduction="none")
        value = (losses * batch.weights).sum() / batch.weights.sum().clamp_min(1)
        mean = regions.detach().float().mean((1, 3, 4)).sum(0)  # (E,)
        statistics = torch.cat([mean, mean.new_tensor([len(batch.images)])])
        return Loss(value, len(batch.images), statistics=statistics)

    forward = loss

    def _drop_cells(self, features: Tensor) -> Tensor:
        """In training, return the features (B, D, n, 1) of random cells, the same for all images.

        Without `cell_dropout`, and outside training, the features are returned unchanged. As any
        cell may be dropped, the model learns to recognise an object from several of its cells, so
        that maps cover more of the object (Singh and Lee 2017, Hide-and-Seek).
        """
        if not (self.training and self.options.cell_dropout):
            return features
        flat = features.flatten(2)
        count = max(1, round((1 - self.options.cell_dropout) * flat.shape[2]))
        kept = torch.randperm(flat.shape[2], device=flat.device)[:count]
        return flat[:, :, kept][..., None]

    def update_statistics(self, sums: Tensor) -> None:
        """Move `centre` towards the mean region of a batch.

        sums (E + 1,): the sum of the images' mean regions, and the number of images.
        """
        self.centre.lerp_(sums[:-1] / sums[-1].clamp_min(1), CENTRE_RATE)
