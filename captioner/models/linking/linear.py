"""A linear map from image vectors and text vectors into one space, fitted or trained.

Kiros et al. 2015, section 3, with either encoder frozen. Shapes: B images, N texts, X image
dimensions, Y text dimensions, E embedding dimensions.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...options import check_at_least, option
from ..losses import Loss
from .cca import fit_cca

SOLVERS = ("cca", "ranking")


@dataclass(frozen=True)
class LinearOptions:
    """How the two maps are found, and the size of the shared space."""

    solver: str = option("cca", "closed form, or the ranking loss by gradient", choices=SOLVERS)
    dimensions: int = option(300, "dimensions of the shared space")
    ridge: float = option(1.0, "cca: ridge on both covariances, in mean variances")
    correlation_power: float = option(1.0, "cca: power of the correlations that scale dimensions")
    margin: float = option(0.2, "ranking: margin between a right and a wrong pair")

    def __post_init__(self) -> None:
        check_at_least(self, 1, "dimensions")
        check_at_least(self, 0, "ridge", "correlation_power", "margin")


@dataclass(frozen=True)
class PairBatch:
    """Image vectors (B, X), text vectors (N, Y), and the row of each text's image (N,)."""

    images: Tensor
    texts: Tensor
    image_of_text: Tensor
    ids: tuple[int | str, ...] = ()

    def to(self, device: torch.device) -> "PairBatch":
        tensors = (self.images, self.texts, self.image_of_text)
        return PairBatch(*(tensor.to(device, non_blocking=True) for tensor in tensors), self.ids)

    def pin_memory(self) -> "PairBatch":
        tensors = (self.images, self.texts, self.image_of_text)
        return PairBatch(*(tensor.pin_memory() for tensor in tensors), self.ids)


class LinearMap(nn.Module):
    """Two affine maps; the score of an image and a text is the cosine of what they map to."""

    def __init__(self, image_size: int, text_size: int, options: LinearOptions) -> None:
        super().__init__()
        self.options = options
        self.image = nn.Linear(image_size, options.dimensions)
        self.text = nn.Linear(text_size, options.dimensions)

    def encode_images(self, vectors: Tensor) -> Tensor:
        """Image vectors (B, X) -> unit rows (B, E)."""
        return F.normalize(self.image(vectors), dim=-1)

    def encode_texts(self, vectors: Tensor) -> Tensor:
        """Text vectors (N, Y) -> unit rows (N, E)."""
        return F.normalize(self.text(vectors), dim=-1)

    def fit(self, images: Tensor, texts: Tensor, image_of_text: Tensor) -> Tensor:
        """Set both maps by regularised CCA of all pairs; returns the correlations (E,).

        images (I, X), texts (N, Y), image_of_text (N,): the row of each text's image.
        """
        options = self.options
        maps = fit_cca(
            images,
            texts,
            image_of_text,
            dimensions=options.dimensions,
            ridge=options.ridge,
            power=options.correlation_power,
        )
        with torch.no_grad():
            for layer, affine in ((self.image, maps[0]), (self.text, maps[1])):
                layer.weight.copy_(affine.weight)
                layer.bias.copy_(affine.bias)
        return maps[2]

    def loss(self, batch: PairBatch) -> Loss:
        """The sum of hinges over all wrong pairs of the batch, both ways, per text.

        An image's other texts are not wrong ones. Kiros et al. 2015, equation 2.
        """
        scores = self.encode_images(batch.images) @ self.encode_texts(batch.texts).T  # (B, N)
        own = torch.arange(len(batch.images), device=scores.device)[:, None] == batch.image_of_text
        right = scores[batch.image_of_text, torch.arange(len(batch.texts), device=scores.device)]
        margin = self.options.margin
        wrong_images = (margin - right + scores).clamp_min(0).masked_fill(own, 0)
        by_text = scores[batch.image_of_text]  # (N, N): of each text's image, all texts
        wrong_texts = (margin - right[:, None] + by_text).clamp_min(0)
        wrong_texts = wrong_texts.masked_fill(own[batch.image_of_text], 0)
        count = len(batch.texts)
        return Loss((wrong_images.sum() + wrong_texts.sum()) / count, count)

    forward = loss
