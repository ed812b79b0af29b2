"""Regression of text vectors from images: the text vectors are fixed, and an image network learns.

See Gomez et al. 2018 (Learning to learn from web data through deep semantic embeddings). Shapes: B
images, S image side, N texts, X image dimensions, (h, w) grid, Y dimensions of the text vectors and
of the shared space.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...vision.encoders import Encoder
from ..losses import Loss
from .contrastive import info_nce, sum_of_hinges
from .linear import image_vectors
from .options import RegressionOptions
from .texts import Texts

MAX_SCALE = 100.0  # of cosines in InfoNCE, as in CLIP: a temperature of at least 0.01


@dataclass(frozen=True)
class RegressionBatch:
    """Images with the vectors of their texts.

    images: pixels (B, 3, S, S) if `are_features` is false, otherwise features as in
    `TextRegression.encode_images`. vectors (N, Y): vectors of the texts. image_of_text (N,): index
    of each text's image. ids: one id per image, for error messages.
    """

    images: Tensor
    are_features: bool
    vectors: Tensor
    image_of_text: Tensor
    ids: tuple[int | str, ...] = ()

    def to(self, device: torch.device) -> "RegressionBatch":
        """Return the batch on a device; copies from pinned memory do not block."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "RegressionBatch":
        """Return the batch in pinned memory."""
        return self._map(Tensor.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor]) -> "RegressionBatch":
        return replace(
            self,
            images=change(self.images),
            vectors=change(self.vectors),
            image_of_text=change(self.image_of_text),
        )


class TextRegression(nn.Module):
    """Maps image features into the space of fixed text vectors with one or two layers.

    The score of an image and a text is the cosine of their embeddings. dimensions: Y.
    """

    features = "pooled"  # kind of stored features that images are encoded from

    def __init__(
        self,
        image_size: int,
        text_size: int,
        options: RegressionOptions,
        encoder: Encoder | None = None,
    ) -> None:
        """Create the layers. image_size: X. text_size: Y. encoder: None for given image vectors."""
        super().__init__()
        self.options = options
        self.encoder = encoder
        self.dimensions = text_size
        hidden = options.hidden_size
        self.image = nn.Linear(image_size, hidden or text_size)
        self.output = nn.Linear(hidden, text_size) if hidden else None
        # Frozen for the other losses: DistributedDataParallel needs a gradient of all it trains.
        self.log_scale = nn.Parameter(
            torch.tensor(math.log(1 / options.temperature)),
            requires_grad=options.loss == "contrastive",
        )

    def encode_images(self, features: Tensor) -> Tensor:
        """Map the features of images to embeddings (B, Y) of norm 1.

        features: feature maps (B, X, h, w), pooled features (B, 2, X) or image vectors (B, X). With
        the loss "bce", a sigmoid is applied before the embeddings are normalised.
        """
        regressed = self.regress(features)
        if self.options.loss == "bce":
            regressed = regressed.sigmoid()
        return F.normalize(regressed, dim=-1)

    def regress(self, features: Tensor) -> Tensor:
        """Return the output (B, Y) of the last layer for features as in `encode_images`."""
        rate = self.options.dropout
        values: Tensor = self.image(F.dropout(image_vectors(features), rate, self.training))
        if self.output is not None:
            values = self.output(F.dropout(F.relu(values), rate, self.training))
        return values

    def encode_texts(self, texts: Tensor | Texts) -> Tensor:
        """Return the vectors of texts, scaled to norm 1, as embeddings (N, Y).

        texts: text vectors (N, Y), or `Texts` that contain them. With the loss "bce", `min_max` is
        applied first, as to the targets in training.
        """
        vectors = texts.vectors if isinstance(texts, Texts) else texts
        assert vectors is not None
        if self.options.loss == "bce":
            vectors = min_max(vectors)
        return F.normalize(vectors, dim=-1)

    def loss(self, batch: RegressionBatch) -> Loss:
        """Return the mean loss over the texts; its `count` is the number of texts."""
        features = batch.images
        if not batch.are_features:
            assert self.encoder is not None
            features = self.encoder(features)
        count, owner = len(batch.vectors), batch.image_of_text
        if self.options.loss == "bce":
            logits = self.regress(features)[owner]  # (N, Y)
            targets = min_max(batch.vectors)
            value = F.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
            return Loss(value / count, count)
        cosines = self.encode_images(features) @ self.encode_texts(batch.vectors).T  # (B, N)
        if self.options.loss == "contrastive":
            value = info_nce(cosines * self.log_scale.exp().clamp_max(MAX_SCALE), owner)
        else:
            value = sum_of_hinges(cosines, owner, self.options.margin)
        return Loss(value / count, count)

    forward = loss


def min_max(vectors: Tensor) -> Tensor:
    """Shift and scale each vector (N, Y) to [0, 1], as for the targets of Gomez et al. 2018.

    A vector of equal values, such as that of a text without known words, becomes 0.
    """
    low, high = vectors.aminmax(dim=-1, keepdim=True)
    return (vectors - low) / (high - low).clamp_min(1e-12)
