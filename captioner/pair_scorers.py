"""Models that score pairs of images and texts: captioners and m-CNNs.

Shapes: B images, N texts, P pairs of an image and a text.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from .captioner import Captioner
from .console import progress_bar
from .data.images import ImageInput, Transform
from .data.sources import FunctionSource, ImageSource, InputSource, Source
from .data.storage import files as storage
from .data.storage.location import Location
from .decoding.options import DecodingOptions
from .decoding.teacher_forcing import score_pairs
from .devices import device_of, products_in
from .errors import InputError
from .linker import Linker
from .models.linking.mcnn import MultimodalCNN
from .prefetch import WORKERS, load_ahead
from .products import decoding_in
from .retrieval.reranking import CAPTIONER_WEIGHT, MCNN_WEIGHT
from .vision.encoders import Encoder
from .vision.feature_store import FeatureStore, Runtime

IMAGES_AT_ONCE = 8  # images that are encoded and scored together


class PairScorer(Protocol):
    """A model that scores pairs of images and texts."""

    @property
    def weight(self) -> float:
        """The weight of its scores beside a cosine, unless another is given."""

    def score(
        self,
        images: Sequence[ImageInput],
        texts: Sequence[str],
        pairs: np.ndarray,
        *,
        show_progress: bool = False,
    ) -> np.ndarray:
        """Return the score of each pair (P,).

        pairs (P, 2): the index of an image and of a text. Raises InputError for an image that
        cannot be read. Unknown words do not raise errors.
        """

    def log_priors(self, texts: Sequence[str], *, show_progress: bool = False) -> np.ndarray | None:
        """Return the log-probability of each text (N,) without an image, in nats.

        None if the scores of different texts are comparable as they are.
        """


class CaptionerScorer:
    """Scores a pair by a captioner's log p(text | image), in nats, including the end token.

    Implements `PairScorer`.
    """

    weight = CAPTIONER_WEIGHT

    def __init__(
        self,
        captioner: Captioner,
        sample: Sequence[ImageInput] = (),
        cache: str | Path | None = None,
    ) -> None:
        """Wrap a captioner; sample and cache are as in `Reranker`.

        Raises InputError if the captioner's tokenizer is a function that is not available.
        """
        captioner.vocabulary.tokenizer.split("a")
        self.captioner, self._sample = captioner, list(sample)
        self._cache = None if cache is None else Path(cache)

    def score(
        self,
        images: Sequence[ImageInput],
        texts: Sequence[str],
        pairs: np.ndarray,
        *,
        show_progress: bool = False,
    ) -> np.ndarray:
        """Return log p(text | image) of each pair (P,), float64.

        pairs (P, 2): the index of an image and of a text. Words outside the vocabulary count as
        <unk>. Every image is encoded once, in blocks of IMAGES_AT_ONCE images. Raises InputError
        for an image that cannot be read.
        """
        return self._log_probs(self._open(images), texts, pairs, show_progress)

    def log_priors(self, texts: Sequence[str], *, show_progress: bool = False) -> np.ndarray:
        """Return log p(text) of each text (N,), in nats, estimated over the sample.

        Without a sample, it is log p(text | image) of a uniform image.
        """
        images = self._open(self._sample) if self._sample else self._uniform_image()
        count = max(1, len(self._sample))
        places = np.indices((count, len(texts))).reshape(2, -1).T
        log_probs = self._log_probs(images, texts, places, show_progress)
        by_image = log_probs.reshape(count, len(texts))
        return np.asarray(np.logaddexp.reduce(by_image, 0) - np.log(count))

    def _uniform_image(self) -> Source:
        """Return a source of one image of the transform's mean colour."""
        size = self.captioner.transform.size
        return FunctionSource(lambda _: torch.zeros(1, 3, size, size), are_features=False)

    def _open(self, images: Sequence[ImageInput]) -> Source:
        encoder = self.captioner.model.encoder
        return open_inputs(images, encoder, self.captioner.transform, self._cache, "maps")

    def _log_probs(
        self, images: Source, texts: Sequence[str], pairs: np.ndarray, show_progress: bool
    ) -> np.ndarray:
        numbers: dict[tuple[int, ...], int] = {}  # texts of equal tokens have equal scores
        read = [numbers.setdefault(tokens, len(numbers)) for tokens in self._read(texts)]
        number_of_text = np.array(read, np.int64)
        flat = pairs[:, 0] * len(numbers) + number_of_text[pairs[:, 1]]
        distinct, places = np.unique(flat, return_inverse=True)
        by_image = np.stack(np.divmod(distinct, max(1, len(numbers))), 1)
        captions = [list(tokens) for tokens in numbers]
        return np.asarray(self._score_all(images, captions, by_image, show_progress)[places])

    def _read(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Return the tokens of each text, from start to end; unknown words are <unk>."""
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
        """Return log p(text | image) of each pair (P,); pairs are in the order of their images."""
        scores = np.empty(len(pairs))
        chosen, starts = np.unique(pairs[:, 0], return_index=True)
        ends = np.append(starts, len(pairs))
        firsts = range(0, len(chosen), IMAGES_AT_ONCE)
        blocks = [chosen[first : first + IMAGES_AT_ONCE] for first in firsts]
        loaded = load_ahead(lambda block: images.load(block.tolist()), blocks, WORKERS)
        with progress_bar(
            total=len(chosen),
            desc="re-ranking",
            unit="image",
            shown=show_progress,
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
        with decoding_in(captioner.precision, captioner.device):
            return score_pairs(captioner.model, features.float(), captions, pairs, options)


class McnnScorer:
    """Scores a pair with an m-CNN; implements `PairScorer`."""

    weight = MCNN_WEIGHT

    def __init__(self, linker: Linker, cache: str | Path | None = None) -> None:
        """Wrap a Linker of an m-CNN; cache is as in `Reranker`.

        Raises InputError for a linking model that compares embeddings.
        """
        if not isinstance(linker.model, MultimodalCNN):
            raise InputError(
                "a linking model that compares embeddings cannot re-rank; use a captioner or a "
                "model trained with --system mcnn"
            )
        self.linker, self._model = linker, linker.model
        self._cache = None if cache is None else Path(cache)

    def score(
        self,
        images: Sequence[ImageInput],
        texts: Sequence[str],
        pairs: np.ndarray,
        *,
        show_progress: bool = False,
    ) -> np.ndarray:
        """Return the score of each pair (P,), float32.

        pairs (P, 2): the index of an image and of a text. Words outside the vocabulary are ignored,
        and so are words after the maximum length of the model. Every image is encoded once. Raises
        InputError for an image that cannot be read.
        """
        linker, model = self.linker, self._model
        source = open_inputs(images, model.encoder, linker.transform, self._cache, model.features)
        read = linker.texts.read(texts)
        return linker.score_source(source, len(images), read, pairs, show_progress=show_progress)

    def log_priors(self, texts: Sequence[str], *, show_progress: bool = False) -> None:
        """Return None: training has made the scores of different texts comparable."""


def open_inputs(
    images: Sequence[ImageInput],
    encoder: object,
    transform: Transform,
    cache: Path | None,
    kind: str,
) -> Source:
    """Return a source of the images, or of their stored features if all are files.

    kind: "maps" or "pooled", as in `FeatureStore.open_files`. Features are stored if there is a
    cache that can be written and the encoder is frozen.
    """
    names = [image for image in images if isinstance(image, str | Path | Location)]
    if cache is None or len(names) < len(images):
        return InputSource(images, transform, "stop")
    if not isinstance(encoder, Encoder) or not encoder.frozen:
        return InputSource(images, transform, "stop")
    files = ImageSource([storage.parse_location(name) for name in names], transform)
    runtime = Runtime(device_of(encoder), WORKERS)
    try:
        return FeatureStore(cache, encoder, transform).open_files(files, runtime, kind)
    except (InputError, OSError):  # such as a missing image, which is then reported by name
        return InputSource(images, transform, "stop")
