"""How well an autoencoder reconstructs the texts and thumbnails of a split.

Shapes: B images, h thumbnail side.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...data.sources import Source
from ...models.relation.articles import ArticleStore
from ...relation import RelationClassifier
from .options import RECONSTRUCTION

TEXTS_AT_ONCE = 64


@dataclass(frozen=True)
class Reconstruction:
    """The errors of an autoencoder on a split, and those of constant predictions.

    perplexity: that of the texts. unigram: their perplexity if each word is predicted by its
    frequency in training. image_error: the squared error of thumbnails, as a multiple of that of
    the mean training thumbnail.
    """

    perplexity: float
    unigram: float
    image_error: float

    @property
    def text_error(self) -> float:
        """The perplexity as a multiple of that of word frequencies, `unigram`."""
        return self.perplexity / self.unigram

    @property
    def numbers(self) -> dict[str, float]:
        """The scores by name.

        RECONSTRUCTION is one minus the mean of text_error and image_error: close to 1 for perfect
        reconstructions, 0 for constant predictions, and negative for worse ones.
        """
        return {
            RECONSTRUCTION: 1 - (self.text_error + self.image_error) / 2,
            "text_error": self.text_error,
            "image_error": self.image_error,
            "perplexity": self.perplexity,
        }

    def describe(self) -> str:
        """Return the errors as lines of text."""
        return (
            f"text: perplexity {self.perplexity:.1f}, {self.text_error:.3f} times that of word "
            f"frequencies ({self.unigram:.1f})\n"
            f"thumbnail: squared error {self.image_error:.3f} times that of the mean thumbnail"
        )


def measure(
    classifier: RelationClassifier,
    images: Source,
    texts: ArticleStore,
    image_of_text: np.ndarray,
    rows: Sequence[int],
    thumbnails: Tensor,
) -> Reconstruction:
    """Measure the reconstruction of the texts at `rows`, in ascending order, and of their images.

    images, texts, image_of_text: as in `RelationClassifier.embed`. rows: at least one.
    thumbnails (B, 3, h, h), uint8: those of all images.
    """
    model, device = classifier.model, classifier.device
    embedded = classifier.embed(images, texts, image_of_text, rows)
    decoder, pixels = model.text_decoder, model.image_decoder
    text = unigram = squared = mean = 0.0
    words = 0
    for first in range(0, len(rows), TEXTS_AT_ONCE):
        chosen = rows[first : first + TEXTS_AT_ONCE]
        articles = texts.take(chosen).map(lambda tensor: tensor.to(device))
        vectors = torch.from_numpy(embedded[first : first + TEXTS_AT_ONCE]).to(device)
        targets = pixels.normalise(thumbnails[image_of_text[chosen]].to(device))
        with torch.inference_mode():
            tokens = articles.tokens[articles.tokens != 0]
            loss = decoder.cross_entropy(vectors, articles, model.articles.words.weight)
            text += float(loss) * len(tokens)
            unigram -= float(decoder.log_frequency[tokens].double().sum())
            squared += float(F.mse_loss(pixels(vectors), targets, reduction="sum"))
            mean += float(targets.double().square().sum())
            words += len(tokens)
    return Reconstruction(math.exp(text / words), math.exp(unigram / words), squared / mean)
