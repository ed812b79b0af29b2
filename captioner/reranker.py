"""Reranker: re-rank the best results of a linking model by a captioner's log p(text | image).

Shapes: B images, N texts, P pairs of an image and a text, K candidates.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from .captioner import Captioner
from .data.images import ImageInput
from .data.sources import FunctionSource, ImageSource, InputSource, Source
from .data.storage import files as storage
from .data.storage.location import Location
from .decoding.options import DecodingOptions
from .decoding.teacher_forcing import score_pairs
from .devices import products_in
from .errors import InputError
from .prefetch import WORKERS, load_ahead
from .retrieval.reranking import WEIGHT, evidence_for_texts
from .vision.encoders import Encoder
from .vision.feature_store import FeatureStore, Runtime

IMAGES_AT_ONCE = 8  # images whose feature maps are in memory


class Reranker:
    """Adds log-probabilities of a captioner to the cosines of a linking model.

    The score of an image for a text is cosine + weight * log p(text | image), in nats. The score of
    a text for an image is cosine + weight * evidence, where the evidence is the difference between
    log p(text | image) and log p(text), limited by `evidence_for_texts`. p(text) is the mean of
    p(text | image) over a sample of images.
    """

    def __init__(
        self,
        captioner: Captioner,
        *,
        weight: float = WEIGHT,
        sample: Sequence[ImageInput] = (),
        cache: str | Path | None = None,
    ) -> None:
        """Wrap a captioner.

        weight: at least 0. sample: images over which p(text) is averaged, ideally a few of the
        captioner's training images; if empty, a single image of uniform colour is used instead,
        which is less accurate. cache: directory of stored features, which saves encoding the same
        image files again; None stores nothing. Raises InputError for an invalid weight, and if the
        captioner's tokenizer is a function that is not available.
        """
        if not 0 <= weight < np.inf:
            raise InputError(f"weight must be finite and at least 0, got {weight}")
        captioner.vocabulary.tokenizer.split("a")
        self.captioner, self.weight, self._sample = captioner, weight, list(sample)
        self._cache = None if cache is None else Path(cache)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        device: str | torch.device | None = None,
        *,
        weight: float = WEIGHT,
        sample: Sequence[ImageInput] = (),
        cache: str | Path | None = None,
    ) -> "Reranker":
        """Load a captioner as `Captioner.from_pretrained` does, and wrap it."""
        captioner = Captioner.from_pretrained(path, device)
        return cls(captioner, weight=weight, sample=sample, cache=cache)

    def score_images(
        self, text: str, images: Sequence[ImageInput], cosines: Sequence[float]
    ) -> np.ndarray:
        """Return the score of each image for a text (K,), float64.

        cosines (K,): the cosine of each image with the text. Raises InputError for an image that
        cannot be read.
        """
        pairs = np.stack([np.arange(len(images)), np.zeros(len(images), int)], 1)
        log_probs = self.log_probs(self.open(images), [text], pairs)
        return np.asarray(cosines) + self.weight * log_probs

    def score_texts(
        self, image: ImageInput, texts: Sequence[str], cosines: Sequence[float]
    ) -> np.ndarray:
        """Return the score of each text for an image (K,), float64.

        cosines (K,): the cosine of each text with the image. A score depends on all texts that are
        passed, so only scores from the same call are comparable. Raises InputError for an image
        that cannot be read.
        """
        pairs = np.stack([np.zeros(len(texts), int), np.arange(len(texts))], 1)
        log_probs = self.log_probs(self.open([image]), texts, pairs)
        evidence = evidence_for_texts(log_probs, self.log_priors(texts))
        return np.asarray(cosines) + self.weight * evidence

    def log_priors(self, texts: Sequence[str], *, show_progress: bool = False) -> np.ndarray:
        """Return log p(text) of each text (N,), in nats, estimated from the sample."""
        images = self.open(self._sample) if self._sample else self._uniform_image()
        count = max(1, len(self._sample))
        places = np.indices((count, len(texts))).reshape(2, -1).T
        log_probs = self.log_probs(images, texts, places, show_progress=show_progress)
        by_image = log_probs.reshape(count, len(texts))
        return np.asarray(np.logaddexp.reduce(by_image, 0) - np.log(count))

    def _uniform_image(self) -> Source:
        """Return a source of one image that is uniformly the transform's mean colour."""
        size = self.captioner.transform.size
        return FunctionSource(lambda _: torch.zeros(1, 3, size, size), are_features=False)

    def open(self, images: Sequence[ImageInput]) -> Source:
        """Return a source of the images, or of their stored features if all are files.

        Features are used only if there is a writable cache and the encoder is frozen.
        """
        encoder, transform = self.captioner.model.encoder, self.captioner.transform
        names = [image for image in images if isinstance(image, str | Path | Location)]
        is_frozen = isinstance(encoder, Encoder) and encoder.frozen
        if self._cache is None or len(names) < len(images) or not is_frozen:
            return InputSource(images, transform, "stop")
        files = ImageSource([storage.parse_location(name) for name in names], transform)
        runtime = Runtime(self.captioner.device, WORKERS)
        try:
            return FeatureStore(self._cache, encoder, transform).open_files(files, runtime)
        except (InputError, OSError):  # such as a missing image, which is then reported by name
            return InputSource(images, transform, "stop")

    def log_probs(
        self,
        images: Source,
        texts: Sequence[str],
        pairs: np.ndarray,
        *,
        show_progress: bool = False,
    ) -> np.ndarray:
        """Return log p(text | image) of each pair (P,), in nats, including the end token, float64.

        images: a source of images or feature maps. pairs (P, 2): the indices of an image and a
        text. Words outside the vocabulary count as <unk>. Every image is encoded once, and
        IMAGES_AT_ONCE images are processed at a time.
        """
        numbers: dict[tuple[int, ...], int] = {}  # texts of equal tokens have equal scores
        read = [numbers.setdefault(tokens, len(numbers)) for tokens in self._read(texts)]
        number_of_text = np.array(read, np.int64)
        flat = pairs[:, 0] * len(numbers) + number_of_text[pairs[:, 1]]
        distinct, places = np.unique(flat, return_inverse=True)
        by_image = np.stack(np.divmod(distinct, max(1, len(numbers))), 1)
        captions = [list(tokens) for tokens in numbers]
        return np.asarray(self._score_all(images, captions, by_image, show_progress)[places])

    def _read(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Return the tokens of each text, from start to end token; unknown words become <unk>."""
        vocabulary = self.captioner.vocabulary
        words = [vocabulary.encode(vocabulary.tokenizer.split(text)) for text in texts]
        return [(vocabulary.START, *tokens, vocabulary.END) for tokens in words]

    def _score_all(
        self,
        images: Source,
        captions: Sequence[list[int]],
        pairs: np.ndarray,
        show_progress: bool,
    ) -> np.ndarray:
        """Return log p(text | image) of each pair (P,); `pairs` must be sorted by image."""
        scores = np.empty(len(pairs))
        chosen, starts = np.unique(pairs[:, 0], return_index=True)
        ends = np.append(starts, len(pairs))
        firsts = range(0, len(chosen), IMAGES_AT_ONCE)
        blocks = [chosen[first : first + IMAGES_AT_ONCE] for first in firsts]
        loaded = load_ahead(lambda block: images.load(block.tolist()), blocks, WORKERS)
        with tqdm(
            total=len(chosen),
            desc="re-ranking",
            unit="image",
            leave=False,
            disable=not show_progress,
        ) as bar:
            for first, block, values in zip(firsts, blocks, loaded, strict=True):
                rows = slice(ends[first], ends[first + len(block)])
                local = np.stack([np.searchsorted(block, pairs[rows, 0]), pairs[rows, 1]], 1)
                scores[rows] = self._score(
                    self._encode(values, images.are_features), captions, local
                )
                bar.update(len(block))
        return scores

    def _encode(self, values: Tensor, are_features: bool) -> Tensor:
        """Return the feature maps (B, D, h, w) of images or stored features."""
        captioner = self.captioner
        with torch.inference_mode(), products_in(captioner.precision, captioner.device):
            values = values.to(captioner.device).float()
            return values if are_features else captioner.model.encoder(values)

    def _score(
        self, features: Tensor, captions: Sequence[list[int]], pairs: np.ndarray
    ) -> np.ndarray:
        captioner, options = self.captioner, DecodingOptions(allow_unknown=True)
        with products_in(captioner.precision, captioner.device):
            return score_pairs(captioner.model, features, captions, pairs, options)
