"""Linker: embed images and texts in one space, and compare them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch

from .atomic_io import check_absent
from .checkpoints import checkpoint as checkpoints
from .checkpoints import hub
from .checkpoints.checkpoint import Checkpoint
from .checkpoints.linking import restore
from .checkpoints.linking_card import linking_card
from .data.given_images import collect_images
from .data.images import ImageInput, Transform
from .data.labels import LabelSplit, load_labels
from .data.sources import InputSource, Source
from .data.storage.web import Urls
from .devices import device_of, pick_device
from .errors import InputError, refuse_path
from .models.linking.build import LinkingModel
from .models.linking.clip import (
    ClipEmbedding,
    build_clip,
    clip_config,
    clip_transform,
    load_clip_reader,
)
from .models.linking.mcnn import MultimodalCNN
from .models.linking.options import OPEN_CLIP
from .models.linking.spatial import SpatialEmbedding
from .models.linking.text_model import suggest_words
from .models.linking.texts import TextReader, Texts
from .options import at_least_one
from .prefetch import WORKERS, load_ahead
from .pretrained import JOINT
from .regions import LabelledImages, cluster_regions, diversity, label_images, label_maps, spatial
from .retrieval import exact
from .retrieval.index_files import RegionShape
from .retrieval.query import Query, parse, weighted_sum

TEXTS_AT_ONCE = 256


NO_LABELS = LabelSplit(())


class Linker:
    """A trained linking model with its sentence encoder and image transform, on a device.

    Create one with `from_pretrained`. Embeddings are float32 rows in one space of E dimensions; the
    score of two rows is their dot product. Unless the model was trained with `--similarity dot`,
    all rows have norm 1, so that scores are cosines. Method calls do not change the model.
    """

    def __new__(cls, *args: Any, **_: Any) -> "Linker":
        refuse_path(cls, args)
        return super().__new__(cls)

    def __init__(
        self,
        model: LinkingModel,
        texts: TextReader,
        transform: Transform,
        known_labels: LabelSplit = NO_LABELS,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """Wrap a model; `from_pretrained` is the usual way to create a Linker.

        known_labels: the labels, seen and held out, of a spatial model's training data. config:
        config of the checkpoint, which `save_pretrained` requires.
        """
        self.model = model.eval()
        self.texts = texts
        self.transform = transform
        self.known_labels = known_labels
        self.config = config

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path = JOINT,
        device: str | torch.device | None = None,
        revision: str | None = None,
        *,
        weights: str | Path | None = None,
    ) -> "Linker":
        """Load a checkpoint, the best checkpoint of a run, or a CLIP or SigLIP model.

        path: a directory; "flickr8k-joint" or "flickr8k-spatial", which come with the package; a
        repository "user/name" on the Hugging Face hub, which is downloaded (this requires the extra
        `hub`); or "open_clip:" and the name of a model of open_clip (extra `clip`), whose weights
        are in the file `weights`. device: device of the model; None selects CUDA if it is
        available. revision: a branch, tag or commit of the repository. Raises InputError for a
        missing or damaged checkpoint, one that does not link images and texts, a failed download,
        an unavailable device, an open_clip model without `weights` or with weights that cannot be
        loaded, and `weights` with any other path.
        """
        if not str(path).startswith(OPEN_CLIP):
            if weights is not None:
                raise InputError(f"weights apply to {OPEN_CLIP}MODEL only, got {path}; omit them")
            return cls.from_checkpoint(checkpoints.load(hub.local(path, revision)), device)
        name = str(path).removeprefix(OPEN_CLIP)
        if weights is None:
            raise InputError(f"{path} needs weights; pass a file of weights as weights=FILE")
        model = build_clip(name, weights).to(pick_device(device))
        transform = clip_transform(name)
        return cls(model, load_clip_reader(name), transform, config=clip_config(name, transform))

    def save_pretrained(
        self,
        directory: str | Path,
        *,
        license: str = "unknown",
        name: str | None = None,
        compact: bool = False,
        encoder_of: str | Path | None = None,
    ) -> Path:
        """Write the model and a model card to a new directory, which every command accepts as RUN.

        The files contain no local paths and no training state. compact: store large weights and
        word vectors in 8 bits, which takes a quarter of the space and changes embeddings slightly.
        encoder_of: a compact checkpoint in the same directory as `directory`, whose encoder is used
        in place of the model's own, so that it is stored only once. license, name: as in
        `Captioner.save_pretrained`. Returns the directory. Raises InputError for a model without a
        config, for an invalid license, if `encoder_of` has another encoder or lies elsewhere, and
        if `directory` exists and is not empty.
        """
        directory = Path(directory)
        check_absent(directory)
        if self.config is None:
            raise InputError(
                "a model without a config cannot be saved; pass the config of its checkpoint to "
                "Linker"
            )
        if encoder_of is not None and not compact:
            raise InputError("encoder_of needs compact=True; pass it, or omit encoder_of")
        config = checkpoints.without_paths(self.config)
        lender = None if encoder_of is None else Path(encoder_of)
        card = linking_card(
            config, name or directory.name, license, lender.name if lender else None
        )

        def save_text_model(draft: Path) -> None:
            self.texts.save(draft)
            if self.known_labels.names:
                self.known_labels.save(draft)

        checkpoints.save(
            directory,
            config,
            save_text_model,
            self.model.state_dict(),
            None,
            card,
            compact=compact,
            encoder_of=lender,
        )
        return directory

    @classmethod
    def from_checkpoint(
        cls, read: Checkpoint, device: str | torch.device | None = None
    ) -> "Linker":
        """Build a Linker from a checkpoint that is already loaded; see `from_pretrained`."""
        model, texts = restore(read)
        labels = load_labels(read.path) if isinstance(model, SpatialEmbedding) else NO_LABELS
        return cls(model.to(pick_device(device)), texts, read.transform, labels, read.config)

    @property
    def device(self) -> torch.device:
        """The device of the model's parameters."""
        return device_of(self.model)

    def __repr__(self) -> str:
        """Return the model's class, encoder, number of dimensions and device."""
        encoder = self.model.encoder
        images = "given image vectors" if encoder is None else encoder.name
        model = self.model
        size = "" if isinstance(model, MultimodalCNN) else f"{model.dimensions} dimensions, "
        return f"Linker({type(model).__name__} with {images}; {size}{self.device})"

    def encode_images(
        self,
        images: ImageInput | Iterable[ImageInput],
        *,
        batch_size: int = 32,
        bgr: bool = False,
        allow_urls: Urls = False,
    ) -> np.ndarray:
        """Embed one image or several images as rows (B, E); B is 1 for one image.

        images, bgr, allow_urls: as in `Captioner.caption`. Raises InputError for an image that
        cannot be read, and if the model was trained on image vectors instead of images or is an
        m-CNN.
        """
        listed = _listed(images, bgr=bgr, allow_urls=allow_urls)
        return self._stack(self.stream_images(listed, batch_size=batch_size), len(listed))

    @overload
    def stream_images(
        self,
        images: Sequence[ImageInput],
        *,
        batch_size: int = 32,
        workers: int = WORKERS,
        on_error: Literal["stop"] = "stop",
    ) -> Iterator[np.ndarray]: ...

    @overload
    def stream_images(
        self,
        images: Sequence[ImageInput],
        *,
        batch_size: int = 32,
        workers: int = WORKERS,
        on_error: Literal["yield"],
    ) -> Iterator[np.ndarray | InputError]: ...

    def stream_images(
        self,
        images: Sequence[ImageInput],
        *,
        batch_size: int = 32,
        workers: int = WORKERS,
        on_error: str = "stop",
    ) -> Iterator[np.ndarray | InputError]:
        """Yield the row (E,) of each image in order, while threads load the next batches.

        workers: number of threads; 0 loads each batch when it is needed. on_error: "stop" raises
        InputError for an image that cannot be read; "yield" yields the error instead of the row.
        The other parameters and errors are as in `encode_images`.
        """
        listed = _listed(images)
        source = InputSource(listed, self.transform, on_error)
        index = 0
        for block in self._embed_images(source, len(listed), batch_size, workers):
            for row in block:
                yield source.errors.pop(index, row)
                index += 1

    def encode_source(self, images: Source, count: int, *, batch_size: int = 32) -> np.ndarray:
        """Embed the first `count` images or stored features of a source as rows (count, E)."""
        batches = self._embed_images(images, count, batch_size, WORKERS)
        return self._stack((row for rows in batches for row in rows), count)

    def _stack(self, rows: Iterable[np.ndarray], count: int) -> np.ndarray:
        stacked = np.empty((count, self.model.dimensions), np.float32)
        for target, row in zip(stacked, rows, strict=True):
            target[:] = row
        return stacked

    def _embed_images(
        self, images: Source, count: int, batch_size: int, workers: int
    ) -> Iterator[np.ndarray]:
        """Embed the first `count` images or stored features of a source, batch by batch."""
        for features in self.stream_features(images, count, batch_size=batch_size, workers=workers):
            with torch.inference_mode():
                rows: np.ndarray = self.model.encode_images(features).cpu().numpy()
            yield rows

    def stream_features(
        self, images: Source, count: int, *, batch_size: int = 32, workers: int = WORKERS
    ) -> Iterator[torch.Tensor]:
        """Yield batches of features of a source's first `count` images, on the model's device.

        Stored features are loaded, and images encoded, while threads load the next batches. Raises
        InputError for a `batch_size` below 1, and for images if the model has no encoder.
        """
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}")
        encoder = self.model.encoder
        if encoder is None and not images.are_features:
            raise InputError(
                "images cannot be encoded: the model was trained with --image-vectors and has no "
                "encoder; train a model without --image-vectors"
            )
        batches = (range(i, min(i + batch_size, count)) for i in range(0, count, batch_size))
        for loaded in load_ahead(images.load, batches, workers):
            values = loaded.to(self.device)
            with torch.inference_mode():
                if not images.are_features:
                    assert encoder is not None
                    values = encoder(values)
            yield values

    @overload
    def encode_texts(
        self, texts: str | Sequence[str], *, on_unknown: Literal["raise"] = "raise"
    ) -> np.ndarray: ...

    @overload
    def encode_texts(
        self, texts: str | Sequence[str], *, on_unknown: Literal["return"]
    ) -> tuple[np.ndarray, list[list[str]]]: ...

    def encode_texts(
        self, texts: str | Sequence[str], *, on_unknown: str = "raise"
    ) -> np.ndarray | tuple[np.ndarray, list[list[str]]]:
        """Embed one text or a sequence of texts as rows (N, E); N is 1 for one text.

        on_unknown: "raise" raises InputError for a word that is unknown to the text model; "return"
        returns the rows and, for each text, its unknown words, which do not contribute to its row.
        In either case, raises InputError for a text that contains no known word.
        """
        if on_unknown not in ("raise", "return"):
            raise InputError(f"on_unknown must be raise or return, got {on_unknown!r}")
        texts, unknown = self._check_texts(texts, on_unknown)
        rows = np.empty((len(texts), self.model.dimensions), np.float32)
        for first in range(0, len(texts), TEXTS_AT_ONCE):
            block = texts[first : first + TEXTS_AT_ONCE]
            rows[first : first + len(block)] = self.embed(self.texts.read(block))
        return rows if on_unknown == "raise" else (rows, unknown)

    def _check_texts(
        self, texts: str | Sequence[str], on_unknown: str
    ) -> tuple[list[str], list[list[str]]]:
        """Return texts as a list, and the unknown words of each; errors as in `encode_texts`."""
        texts = [texts] if isinstance(texts, str) else texts
        texts = list(texts) if isinstance(texts, Iterable) else [texts]
        if wrong := [text for text in texts if not isinstance(text, str)]:
            raise InputError(f"a text must be a string, got {wrong[0]!r}")
        unknown = [self.texts.unknown_words(text) for text in texts]
        if on_unknown == "raise" and (words := sorted({w for each in unknown for w in each})):
            raise InputError(
                f"the texts contain unknown words: {', '.join(map(repr, words[:10]))}; "
                "replace or omit them"
            )
        for text in texts:
            if not self.texts.knows(text):
                self.texts.read([text])  # raises InputError if the model encodes no new texts
                raise InputError(f"a text must contain at least one known word, got {text!r}")
        return texts, unknown

    def embed(self, texts: Texts) -> np.ndarray:
        """Return the embeddings (N, E) of N texts that `self.texts.read` has prepared."""
        with torch.inference_mode():
            rows = self.model.encode_texts(texts.to(self.device))
        return rows.cpu().numpy()

    def encode_query(
        self,
        query: str | Query,
        *,
        embed_images: Callable[[Sequence[str]], np.ndarray] | None = None,
    ) -> np.ndarray:
        """Embed a query such as "2*snow - dog + image:a.jpg" as a float32 vector (E,) of norm 1.

        Each term is embedded separately; the vectors are added with their weights and signs, and
        the sum is scaled to norm 1. embed_images: function that returns the rows (B, E) for the
        texts of B image terms; None uses `encode_images` on them as paths. Raises InputError for a
        query that cannot be parsed, for an unknown word (the message suggests similar known words),
        for a term without words, for an image that cannot be read, and for terms that cancel each
        other out.
        """
        if isinstance(query, str):
            query = parse(query)
        if not isinstance(query, Query):
            raise InputError(f"a query must be a string, such as 'dog + beach', got {query!r}")
        rows = np.empty((len(query.terms), self.model.dimensions), np.float32)
        texts = [i for i, term in enumerate(query.terms) if not term.is_image]
        if texts:
            rows[texts] = self._embed_phrases([query.terms[i].text for i in texts])
        if images := [i for i, term in enumerate(query.terms) if term.is_image]:
            embed = embed_images or self.encode_images
            rows[images] = embed([query.terms[i].text for i in images])
        return weighted_sum(rows, query)

    def _embed_phrases(self, texts: Sequence[str]) -> np.ndarray:
        read = self.texts.read(texts)
        if words := [word for text in texts for word in self.texts.unknown_words(text)]:
            unknown = suggest_words(self.texts.words, words)
            raise InputError(f"the query contains unknown words: {unknown}; replace them")
        for text in texts:
            if not self.texts.knows(text):  # punctuation only
                raise InputError(f"each term of a query must contain a word, got {text!r}")
        return self.embed(read)

    def rank(
        self,
        query: str | Query,
        *,
        images: Sequence[ImageInput] | None = None,
        texts: Sequence[str] | None = None,
        top: int = 10,
        on_unknown: str = "raise",
    ) -> list[tuple[int, float]]:
        """Return the index and the score of the `top` images or texts closest to a query.

        query: as in `encode_query`. images, texts: as in `encode_images` and `encode_texts`; pass
        one of them. on_unknown: "raise" raises InputError for a word of `texts` that the sentence
        encoder does not know; "ignore" embeds the other words. The best match comes first; equal
        scores keep the order of the input. Raises InputError in the same cases as these methods,
        and if `top` is not an integer of at least 1. For embeddings that exceed the memory, use
        `Index`.
        """
        if on_unknown not in ("raise", "ignore"):
            raise InputError(f"on_unknown must be raise or ignore, got {on_unknown!r}")
        top = at_least_one(top, "top")
        if (images is None) == (texts is None):
            raise InputError("rank needs either images or texts; pass one of them")
        vector = self.encode_query(query)  # errors in the query show before images are read
        if images is not None:
            rows = self.encode_images(images)
        elif on_unknown == "raise":
            rows = self.encode_texts(texts or [])
        else:
            rows, _ = self.encode_texts(texts or [], on_unknown="return")
        found, cosines = exact.search(rows, vector, top)
        return list(zip(found.tolist(), cosines.tolist(), strict=True))

    def similarity(
        self, images: ImageInput | Iterable[ImageInput], texts: str | Sequence[str]
    ) -> np.ndarray:
        """Return the score (B, N) of each image with each text.

        Scores are cosines in [-1, 1], or unbounded if the model was trained with `--similarity dot`
        or `--system mcnn`. images: as in `encode_images`. texts: as in `encode_texts`, with
        on_unknown="raise".
        """
        if isinstance(self.model, MultimodalCNN):
            listed = _listed(images)
            read = self.texts.read(self._check_texts(texts, "raise")[0])
            return self.score_source(InputSource(listed, self.transform, "stop"), len(listed), read)
        rows = self.encode_texts(texts)  # errors in texts show before images are read
        scores: np.ndarray = self.encode_images(images) @ rows.T
        return scores

    def score_source(
        self,
        images: Source,
        count: int,
        texts: Texts,
        pairs: np.ndarray | None = None,
        *,
        batch_size: int = 32,
        show_progress: bool = False,
    ) -> np.ndarray:
        """Score the first `count` images or stored features of a source with texts by an m-CNN.

        texts: N texts that `self.texts.read` has prepared. pairs (P, 2): the index of an image and
        of a text. Returns the score of each pair (P,), or that of each image with each text
        (count, N) if `pairs` is None, float32. Raises InputError for a model of another system.
        """
        model = self.model
        if not isinstance(model, MultimodalCNN):
            raise InputError(
                "only an m-CNN scores pairs without embeddings; use a model trained with "
                "--system mcnn, or similarity"
            )
        if not count:
            return np.empty((0, len(texts)) if pairs is None else 0, np.float32)
        texts = texts.to(self.device)
        with torch.inference_mode():
            batches = self.stream_features(images, count, batch_size=batch_size)
            parts = torch.cat([model.image_parts(features) for features in batches])
            if pairs is None:
                scores = model.score_matrix(parts, texts, show_progress=show_progress)
            else:
                chosen = torch.from_numpy(pairs).to(self.device)
                scores = model.score_pairs(parts, texts, chosen, show_progress=show_progress)
        found: np.ndarray = scores.cpu().numpy()
        return found

    def patch_similarities(
        self,
        images: ImageInput | Iterable[ImageInput],
        texts: str | Sequence[str],
        *,
        batch_size: int = 32,
    ) -> np.ndarray:
        """Return the cosine of each patch of each image with each text, (B, N, h, w), in [-1, 1].

        The similarities show roughly where a CLIP or SigLIP model finds what a text describes,
        although it was not trained to locate anything. images, texts: as in `similarity`. Raises
        InputError for any other model.
        """
        model = self.model
        if not isinstance(model, ClipEmbedding):
            raise InputError(
                "only CLIP and SigLIP models have patch similarities; use label_maps for a spatial "
                "model"
            )
        vectors = torch.from_numpy(self.encode_texts(texts)).to(self.device)
        with torch.inference_mode():
            maps = [
                model.patch_similarities(features, vectors).cpu()
                for features in self._maps_of(images, batch_size)
            ]
        stacked: np.ndarray = torch.cat(maps).numpy()
        return stacked

    # ---- spatial models ----

    def labels(
        self,
        images: ImageInput | Iterable[ImageInput],
        labels: str | Sequence[str],
        *,
        batch_size: int = 32,
    ) -> np.ndarray:
        """Return the probability that each image shows each label, (B, L), float32.

        images: as in `encode_images`. labels: words, phrases or sentences; they need not have been
        labels in training. Raises InputError for unknown words, as `encode_texts` does, and for a
        model that is not spatial.
        """
        listed = _listed(images)
        source = InputSource(listed, self.transform, "stop")
        return self.label_source(source, len(listed), labels, batch_size=batch_size).scores

    def label_source(
        self, images: Source, count: int, labels: str | Sequence[str], *, batch_size: int = 32
    ) -> LabelledImages:
        """Embed the first `count` images of a source and score labels on them in one pass.

        Errors are as in `labels`.
        """
        model, vectors = spatial(self.model), self._label_vectors(labels)
        with torch.inference_mode():
            features = self.stream_features(images, count, batch_size=batch_size)
            return label_images(model, features, vectors)

    @property
    def region_shape(self) -> RegionShape | None:
        """The shape of an image's region embeddings; None if the model is not spatial."""
        if not isinstance(self.model, SpatialEmbedding):
            return None
        pixels = torch.zeros(1, 3, self.transform.size, self.transform.size, device=self.device)
        with torch.inference_mode():
            return RegionShape(*self.model.regions(self.model.encoder(pixels)).shape[1:])

    def label_maps(
        self,
        images: ImageInput | Iterable[ImageInput],
        labels: str | Sequence[str],
        *,
        batch_size: int = 32,
    ) -> np.ndarray:
        """Return maps (B, L, h, w), float32, in [0, 1], of where each label is in each image.

        Arguments and errors are as in `labels`.
        """
        model, vectors = spatial(self.model), self._label_vectors(labels)
        with torch.inference_mode():
            maps = [label_maps(model, f, vectors).cpu() for f in self._maps_of(images, batch_size)]
        stacked: np.ndarray = torch.cat(maps).numpy()
        return stacked

    def region_embeddings(
        self, images: ImageInput | Iterable[ImageInput], *, batch_size: int = 32
    ) -> np.ndarray:
        """Return the embeddings of all regions, (B, K, E, h, w), float32, of norm 1 over E.

        images: as in `encode_images`. K is the number of blocks of the model, (h, w) the grid of
        the feature maps. Raises InputError for an image that cannot be read, and for a model that
        is not spatial.
        """
        model = spatial(self.model)
        with torch.inference_mode():
            regions = [model.regions(f).cpu() for f in self._maps_of(images, batch_size)]
        stacked: np.ndarray = torch.cat(regions).numpy()
        return stacked

    def regions(self, image: ImageInput, count: int, seed: int = 0) -> np.ndarray:
        """Group the regions of one image by k-means; return the group of each cell, (h, w).

        count, seed: as in `cluster_regions`. Raises InputError as that function does, for an image
        that cannot be read, and for a model that is not spatial.
        """
        regions = self.region_embeddings([image])[0]
        return cluster_regions(regions, self.encode_texts(self.known_labels.seen), count, seed)

    def diversity(self, images: ImageInput | Iterable[ImageInput]) -> np.ndarray:
        """Return the variance of each image's region embeddings (B,), in [0, 1].

        Raises InputError as `region_embeddings` does.
        """
        return diversity(torch.from_numpy(self.region_embeddings(images))).numpy()

    def _maps_of(
        self, images: ImageInput | Iterable[ImageInput], batch_size: int
    ) -> Iterator[torch.Tensor]:
        listed = _listed(images)
        source = InputSource(listed, self.transform, "stop")
        return self.stream_features(source, len(listed), batch_size=batch_size)

    def _label_vectors(self, labels: str | Sequence[str]) -> torch.Tensor:
        return torch.from_numpy(self.encode_texts(labels)).to(self.device)


def _listed(
    images: ImageInput | Iterable[ImageInput], *, bgr: bool = False, allow_urls: Urls = False
) -> list[ImageInput]:
    return collect_images(images, bgr=bgr, allow_urls=allow_urls)[0]
