"""Linear maps of image vectors and text vectors into a shared space.

Kiros et al. 2015 (Skip-thought vectors), section 3.3: both encoders are frozen, and only the maps
are fitted (in closed form) or trained (with a ranking loss). Shapes: B images, N texts, X image
dimensions, Y text dimensions, E embedding dimensions.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import InputError
from ...vision.encoders import Encoder
from ..losses import Loss
from .cca import fit_cca
from .contrastive import RELATIVE, relative_loss, sum_of_hinges
from .options import LinearOptions
from .texts import Texts


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
    """Two affine maps; an image and a text are scored by the cosine of their embeddings.

    encoder: frozen image encoder, whose features are mapped; None if the user computed the image
    vectors. dimensions: E, which is at most min(X, Y) if the maps are fitted by CCA.
    """

    features = "pooled"  # kind of stored features that images are encoded from

    def __init__(
        self,
        image_size: int,
        text_size: int,
        options: LinearOptions,
        encoder: Encoder | None = None,
    ) -> None:
        """Create the maps. image_size: X. text_size: Y. encoder: None for given image vectors."""
        super().__init__()
        self.options = options
        limit = min(image_size, text_size) if options.solver == "cca" else options.dimensions
        self.dimensions = min(options.dimensions, limit)
        self.encoder = encoder
        self.image = nn.Linear(image_size, self.dimensions)
        self.text = nn.Linear(text_size, self.dimensions)

    def encode_images(self, features: Tensor) -> Tensor:
        """Map the features of images to embeddings (B, E) of norm 1.

        features: feature maps (B, X, h, w), pooled features (B, 2, X) as in the feature
        store, or image vectors (B, X), which are mapped without any normalisation.
        """
        return F.normalize(self.image(image_vectors(features)), dim=-1)

    def encode_texts(self, texts: Tensor | Texts) -> Tensor:
        """Map texts, or their vectors (N, Y), to embeddings (N, E) of norm 1."""
        vectors = texts.vectors if isinstance(texts, Texts) else texts
        return F.normalize(self.text(vectors), dim=-1)

    def fit(
        self, images: Tensor, texts: Tensor | Iterable[Tensor], image_of_text: Tensor
    ) -> Tensor:
        """Fit both maps by regularised CCA over all pairs; return the correlations (E,).

        images (I, X): image vectors. texts (N, Y): text vectors, or an iterable over blocks of
        their rows. image_of_text (N,): the row of each text's image. Raises InputError in the same
        cases as `fit_cca`.
        """
        options = self.options
        image_map, text_map, correlations = fit_cca(
            images,
            texts,
            image_of_text,
            dimensions=self.dimensions,
            ridge=options.ridge,
            power=options.correlation_power,
        )
        with torch.no_grad():
            for layer, affine in ((self.image, image_map), (self.text, text_map)):
                layer.weight.copy_(affine.weight)
                layer.bias.copy_(affine.bias)
        return correlations

    def loss(self, batch: PairBatch) -> Loss:
        """Return the sum of the hinge losses of all negative pairs, divided by the number of texts.

        Each text is compared with every other image of the batch, and its image with every text of
        another image, as in the ranking loss of Kiros et al. 2015, section 3.3. The loss's `count`
        is the number of texts.
        """
        scores = self.encode_images(batch.images) @ self.encode_texts(batch.texts).T  # (B, N)
        count = len(batch.texts)
        hinges = partial(
            sum_of_hinges, image_of_text=batch.image_of_text, margin=self.options.margin
        )
        value = hinges(scores)
        return Loss(value / count, count, {RELATIVE: relative_loss(hinges, scores, value)})

    forward = loss


def image_vectors(features: Tensor, *, scaled: bool = True, grid: int = 1) -> Tensor:
    """Return image vectors (B, X), float32, as `LinearMap.encode_images` uses them.

    Features of an encoder are averaged over positions; if `scaled`, the square roots of the means,
    with their signs, are scaled to norm 1, so that a few strong channels do not dominate the
    vector. Image vectors are only converted. features: as in `LinearMap.encode_images`. grid:
    number of rows and columns of a grid; feature maps are averaged in each of its cells, and the
    means are concatenated, so that X is grid**2 times the number of channels. Raises InputError
    for features with any other number of dimensions, and for pooled features if `grid` is not 1.
    """
    if features.ndim == 2:
        return features.float()
    if features.ndim == 4:
        mean = F.adaptive_avg_pool2d(features.float(), grid).flatten(1)
    elif features.ndim == 3 and grid == 1:
        mean = features[:, 0].float()
    else:
        allowed = "2, 3 or 4 dimensions" if grid == 1 else "2 or 4 dimensions if image_grid > 1"
        raise InputError(f"image features must have {allowed}, got {features.ndim}")
    if not scaled:
        return mean
    # Clamped, as the gradient of the square root at 0 would be NaN for a trained encoder.
    return F.normalize(mean.sign() * mean.abs().clamp_min(1e-12).sqrt(), dim=1)
