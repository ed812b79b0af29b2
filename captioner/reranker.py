"""Reranker: score the best results of a linking model again, with models that score pairs.

Shapes: K candidates.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from .captioner import Captioner
from .checkpoints import checkpoint as checkpoints
from .checkpoints import hub
from .data.images import ImageInput
from .errors import InputError
from .linker import Linker
from .pair_scorers import CaptionerScorer, McnnScorer, PairScorer
from .retrieval.reranking import SHARED_WEIGHT, evidence_for_texts


class Reranker:
    """One or more models that score pairs of images and texts, in addition to a linking model.

    The models are captioners and m-CNNs. The score of an image for a text is the linking model's
    cosine plus the sum over the models of weight * s, where s is a captioner's log p(text | image)
    in nats, or the score of an m-CNN. The score of a text for an image is the same, but s of a
    captioner is that of `evidence_for_texts`: log p(text | image) - log p(text), limited softly.
    p(text) is the mean of p(text | image) over a sample of images.
    """

    def __init__(
        self,
        models: Captioner | Linker | Sequence[Captioner | Linker],
        *,
        weight: float | None = None,
        sample: Sequence[ImageInput] = (),
        cache: str | Path | None = None,
    ) -> None:
        """Wrap one or more models; a Linker must have an m-CNN.

        weight: of each model, at least 0; None selects the default of each, and several m-CNNs
        share a default equally. sample: images over which p(text) is estimated, ideally a few
        training images of the captioner; if there are none, a uniform image takes their place,
        which is less exact. cache: directory of stored features, so that a frozen encoder does not
        run again for image files that it has seen; None stores nothing. Raises InputError for an
        invalid weight, if there is no model, for a Linker of any other model, and if a captioner's
        tokenizer is a function that is not available.
        """
        if weight is not None and not 0 <= weight < np.inf:
            raise InputError(f"weight must be finite and at least 0, got {weight}")
        listed = [models] if isinstance(models, Captioner | Linker) else list(models)
        if not listed:
            raise InputError("re-ranking needs at least one model, got none; pass a model")
        self.scorers: list[PairScorer] = [
            CaptionerScorer(model, sample, cache)
            if isinstance(model, Captioner)
            else McnnScorer(model, cache)
            for model in listed
        ]
        self.weights = _default_weights(self.scorers)
        if weight is not None:
            self.weights = [weight] * len(self.scorers)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path | Sequence[str | Path],
        device: str | torch.device | None = None,
        *,
        weight: float | None = None,
        sample: Sequence[ImageInput] = (),
        cache: str | Path | None = None,
    ) -> "Reranker":
        """Load one or more captioners or m-CNNs, and wrap them.

        path: a directory or, for a captioner, a repository "user/name" on the Hugging Face hub.
        Several paths are separate models, not an ensemble. device: as in
        `Captioner.from_pretrained`. weight, sample, cache: as in the constructor. Raises InputError
        as the constructor does, for a missing or damaged checkpoint, a failed download, and an
        unavailable device.
        """
        paths = [path] if isinstance(path, str | Path) else path
        models = [load_scoring_model(each, device) for each in paths]
        return cls(models, weight=weight, sample=sample, cache=cache)

    def score_images(
        self, text: str, images: Sequence[ImageInput], cosines: Sequence[float]
    ) -> np.ndarray:
        """Return the scores (K,) of the images for a text, float64.

        cosines (K,): the cosine of each image with the text. Raises InputError for an image that
        cannot be read.
        """
        pairs = np.stack([np.arange(len(images)), np.zeros(len(images), int)], 1)
        scores = np.asarray(cosines, np.float64)
        for scorer, weight in zip(self.scorers, self.weights, strict=True):
            scores = scores + weight * scorer.score(images, [text], pairs)
        return scores

    def score_texts(
        self, image: ImageInput, texts: Sequence[str], cosines: Sequence[float]
    ) -> np.ndarray:
        """Return the scores (K,) of the texts for an image, float64.

        cosines (K,): the cosine of each text with the image. A score depends on all texts that are
        passed, so only scores from the same call are comparable. Raises InputError for an image
        that cannot be read.
        """
        pairs = np.stack([np.zeros(len(texts), int), np.arange(len(texts))], 1)
        scores = np.asarray(cosines, np.float64)
        for scorer, weight in zip(self.scorers, self.weights, strict=True):
            found = scorer.score([image], texts, pairs)
            scores = scores + weight * evidence_for_texts(found, scorer.log_priors(texts))
        return scores


def _default_weights(scorers: Sequence[PairScorer]) -> list[float]:
    """Return the default weight of each model.

    M-CNNs of the same images and captions make much the same errors, so that their sum would count
    for too much beside the cosine: several share a weight. It is higher than that of one, since
    their mean is less noisy.
    """
    count = sum(isinstance(scorer, McnnScorer) for scorer in scorers)
    return [
        SHARED_WEIGHT / count if count > 1 and isinstance(each, McnnScorer) else each.weight
        for each in scorers
    ]


def load_scoring_model(
    path: str | Path, device: str | torch.device | None = None, precision: str = "float32"
) -> Captioner | Linker:
    """Load a captioner or a linking model from a checkpoint.

    precision: as in `Captioner.from_pretrained`; ignored for a linking model. Raises InputError for
    a checkpoint that cannot be loaded and for one of a relation model.
    """
    read = checkpoints.load(hub.local(path))
    if read.task == "captioning":
        return Captioner.from_checkpoints([read], device, precision)
    return Linker.from_checkpoint(read, device)
