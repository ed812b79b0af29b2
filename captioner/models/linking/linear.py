"""Linear maps of image vectors and text vectors into a shared space.

Kiros et al. 2015 (Skip-thought vectors), section 3.3: both encoders are frozen, and only the maps
are fitted (in closed form) or trained (by a ranking loss). Shapes: B images, N texts, X image
dimensions, Y text dimensions, E embedding dimensions.
"""

from collections.abc import Callable
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
    """The solver for the two maps, and the size of the shared space."""

    solver: str = option("cca", "cca: closed form; ranking: ranking loss", choices=SOLVERS)
    dimensions: int = option(300, "number of dimensions of the shared space")
    ridge: float = option(1.0, "cca: ridge on both covariances, as a multiple of the mean variance")
    correlation_power: float = option(
        1.0, "cca: exponent of the correlation that scales each dimension"
    )
    margin: float = option(0.2, "ranking: cosine margin between correct and wrong pairs")

    def __post_init__(self) -> None:
        check_at_least(self, 1, "dimensions")
        check_at_least(self, 0, "ridge", "correlation_power", "margin")


@dataclass(frozen=True)
class PairBatch:
    """Vectors of images and their texts.

    images (B, X), texts (N, Y); image_of_text (N,): index of each text's image. ids: one id per
    image, for error messages.
    """

    images: Tensor
    texts: Tensor
    image_of_text: Tensor
    ids: tuple[int | str, ...] = ()

    def to(self, device: torch.device) -> "PairBatch":
        """Return the batch on `device`; copies from pinned memory do not block."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "PairBatch":
        """Return the batch in pinned memory."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, change: Callable[[Tensor], Tensor]) -> "PairBatch":
        return PairBatch(
            change(self.images), change(self.texts), change(self.image_of_text), self.ids
        )


class LinearMap(nn.Module):
    """Two affine maps; an image and a text are scored by the cosine of their embeddings."""

    def __init__(self, image_size: int, text_size: int, options: LinearOptions) -> None:
        super().__init__()
        self.options = options
        self.image = nn.Linear(image_size, options.dimensions)
        self.text = nn.Linear(text_size, options.dimensions)

    def encode_images(self, vectors: Tensor) -> Tensor:
        """Map image vectors (B, X) to embeddings (B, E) of norm 1."""
        return F.normalize(self.image(vectors), dim=-1)

    def encode_texts(self, vectors: Tensor) -> Tensor:
        """Map text vectors (N, Y) to embeddings (N, E) of norm 1."""
        return F.normalize(self.text(vectors), dim=-1)

    def fit(self, images: Tensor, texts: Tensor, image_of_text: Tensor) -> Tensor:
        """Fit both maps by regularised CCA of all pairs and return the correlations (E,).

        images (I, X), texts (N, Y), image_of_text (N,): index of each text's image. Raises
        InputError in the same cases as `fit_cca`.
        """
        options = self.options
        image_map, text_map, correlations = fit_cca(
            images,
            texts,
            image_of_text,
            dimensions=options.dimensions,
            ridge=options.ridge,
            power=options.correlation_power,
        )
        with torch.no_grad():
            for layer, affine in ((self.image, image_map), (self.text, text_map)):
                layer.weight.copy_(affine.weight)
                layer.bias.copy_(affine.bias)
        return correlations

    def loss(self, batch: PairBatch) -> Loss:
        """Return the hinge losses of all wrong pairs in both directions, summed, per text.

        Each text is compared with every other image, and its image with every text of another
        image: the ranking loss of Kiros et al. 2015, section 3.3, with the rest of the batch as
        contrastive examples. The loss's `count` is the number of texts.
        """
        scores = self.encode_images(batch.images) @ self.encode_texts(batch.texts).T  # (B, N)
        rows = torch.arange(len(batch.images), device=scores.device)
        own = rows[:, None] == batch.image_of_text  # (B, N)
        right = scores.gather(0, batch.image_of_text[None])[0]  # (N,)
        wrong_images = (self.options.margin - right + scores).clamp_min(0).masked_fill(own, 0)
        wrong_texts = self.options.margin - right[:, None] + scores[batch.image_of_text]  # (N, N)
        wrong_texts = wrong_texts.clamp_min(0).masked_fill(own[batch.image_of_text], 0)
        count = len(batch.texts)
        return Loss((wrong_images.sum() + wrong_texts.sum()) / count, count)

    forward = loss
