"""Caption and score images with a trained model or an ensemble."""

import functools
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeVar, Unpack, cast, overload

import torch

from .atomic_io import check_absent
from .caption import Caption, caption_of
from .checkpoints import checkpoint as checkpoints
from .checkpoints import hub
from .checkpoints.captioning import restore
from .checkpoints.checkpoint import VOCABULARY, Checkpoint
from .checkpoints.model_card import guess_language, model_card
from .data.given_images import collect_images
from .data.images import ImageInput, Transform
from .data.sources import InputSource
from .data.storage.web import Urls
from .decoding.decode import DecodeSettings, caption_batches
from .decoding.options import DecodingKeywords, DecodingOptions
from .decoding.teacher_forcing import score_captions
from .devices import device_of, pick_device, pick_format, products_in
from .errors import InputError, refuse_path
from .models.base import CaptionModel
from .models.captioning.ensemble import Candidate, Ensemble, build_ensemble, compile_steps
from .options import from_dict
from .prefetch import WORKERS
from .pretrained import CAPTIONER
from .products import decoding_in
from .text.collate import pad_captions
from .text.vocabulary import Vocabulary

log = logging.getLogger(__name__)
Function = TypeVar("Function", bound=Callable[..., Any])


def _accept_pictures(function: Function) -> Function:
    """Make a function accept `pictures`, the old name of `images`, with a DeprecationWarning."""

    @functools.wraps(function)
    def wrapper(*args: Any, **keywords: Any) -> Any:
        if "pictures" in keywords:
            if "images" in keywords:
                raise TypeError(
                    f"{function.__name__}() got both images and pictures; omit pictures, "
                    "the deprecated name"
                )
            message = f"the parameter pictures of {function.__name__}() is deprecated; use images"
            warnings.warn(message, DeprecationWarning, stacklevel=2)
            keywords["images"] = keywords.pop("pictures")
        return function(*args, **keywords)

    return cast(Function, wrapper)


class Captioner:
    """A trained model or an ensemble on a device, with its vocabulary and image transform.

    Create one with `from_pretrained`. The model is in eval mode; method calls do not change it.
    """

    def __new__(cls, *args: Any, **_: Any) -> "Captioner":
        refuse_path(cls, args)
        return super().__new__(cls)

    def __init__(
        self,
        model: CaptionModel,
        vocabulary: Vocabulary,
        transform: Transform,
        precision: str = "float32",
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """Wrap a model; `from_pretrained` is the usual way to create a Captioner.

        precision: as in `from_pretrained`. config: config of the checkpoint, which
        `save_pretrained` requires; None for an ensemble.
        """
        self.model = model.eval()
        self.config = config
        self.precision = precision
        pick_format(precision, self.device)  # raise early for an unknown precision
        self.vocabulary = vocabulary
        self.transform = transform

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path | Sequence[str | Path] = CAPTIONER,
        device: str | torch.device | None = None,
        precision: str = "float32",
        compile: bool = False,
        revision: str | None = None,
    ) -> "Captioner":
        """Load a checkpoint, the best checkpoint of a run, or an ensemble of several checkpoints.

        path: a directory; "flickr8k", a captioner of photographs that comes with the package; or a
        repository "user/name" on the Hugging Face hub, which is downloaded (this requires the extra
        `hub`). Several paths form an ensemble, which averages the models' log-probabilities for
        each word. device: device of the model; None selects CUDA if it is available. precision:
        "float32"; "bfloat16" or, on x86 CPUs, "int8", which are faster if the device supports them
        and may change a few words; or "auto", which selects the fastest for the device. compile:
        whether to compile the decoding step with torch.compile, which delays the first captions.
        revision: a branch, tag or commit of the repository. Raises InputError for a missing,
        damaged or incompatible checkpoint, a failed download, an unavailable device, an unknown
        precision, and an ensemble whose models have different image transforms, grids or
        vocabularies.
        """
        paths = [path] if isinstance(path, str | Path) else path
        return cls.from_checkpoints(
            [checkpoints.load(hub.local(each, revision)) for each in paths],
            device,
            precision,
            compile,
        )

    @classmethod
    def from_checkpoints(
        cls,
        read: Sequence[Checkpoint],
        device: str | torch.device | None = None,
        precision: str = "float32",
        compile: bool = False,
    ) -> "Captioner":
        """Build a Captioner from checkpoints that are already loaded; see `from_pretrained`."""
        if not read:
            raise InputError("at least one checkpoint is required, got none; pass the path of one")
        candidates = [Candidate(str(each.path), *restore(each), each.vocabulary) for each in read]
        model: CaptionModel = build_ensemble(candidates).to(pick_device(device))
        log.debug("%d checkpoint(s) on %s in %s", len(read), device_of(model), precision)
        if compile:
            model = compile_steps(model)
        config = read[0].config if len(read) == 1 else None
        return cls(model, read[0].vocabulary, candidates[0].transform, precision, config)

    def save_pretrained(
        self,
        directory: str | Path,
        *,
        license: str = "unknown",
        name: str | None = None,
        language: str | None = None,
        compact: bool = False,
    ) -> Path:
        """Write the model and a model card to a new directory that `from_pretrained` can load.

        The files contain no local paths and no training state. compact: store large weights in 8
        bits, which takes a quarter of the space and may change a few words; versions of captioner
        without 8-bit checkpoints cannot read them. license: the hub's identifier for
        the licence of the weights, such as "apache-2.0". name: the name under which others will
        load the model, shown on the model card; None uses the directory's name. language: ISO 639
        code of the captions' language; if None, the card states English if the vocabulary contains
        the most common English words, and otherwise states no language. Returns the directory.
        Raises InputError for an ensemble, for a model without a config, for an invalid license or
        language, and if `directory` exists and is not empty.
        """
        directory = Path(directory)
        check_absent(directory)
        if isinstance(self.model, Ensemble):
            raise InputError("an ensemble cannot be saved; save each of its models separately")
        if self.config is None:
            raise InputError(
                "a model without a config cannot be saved; pass the config of its checkpoint to "
                "Captioner"
            )
        config = checkpoints.without_paths(self.config)
        card = model_card(
            config,
            name or directory.name,
            license,
            language=language or guess_language(self.vocabulary.words),
            words=len(self.vocabulary.words),
            parameters=sum(parameter.numel() for parameter in self.model.parameters()),
        )

        def save_vocabulary(draft: Path) -> None:
            self.vocabulary.save(draft / VOCABULARY)

        weights = self.model.state_dict()
        checkpoints.save(directory, config, save_vocabulary, weights, None, card, compact=compact)
        return directory

    def push_to_hub(
        self,
        repository: str,
        *,
        private: bool = True,
        token: str | None = None,
        revision: str | None = None,
        license: str = "unknown",
        language: str | None = None,
    ) -> str:
        """Upload the files that `save_pretrained` writes to the repository "user/name" on the hub.

        This requires the extra `hub`. private: whether a newly created repository is private.
        token: access token for the hub; None uses the stored login. revision: branch to upload to.
        license, language: as in `save_pretrained`. Returns the repository's URL. Raises InputError
        if the model cannot be saved, as `save_pretrained` does, or if the upload fails.
        """
        with TemporaryDirectory() as temporary:
            directory = self.save_pretrained(
                Path(temporary) / "model", license=license, name=repository, language=language
            )
            return hub.push(directory, repository, private=private, token=token, revision=revision)

    @property
    def device(self) -> torch.device:
        """The device of the model's parameters."""
        return device_of(self.model)

    @overload
    def caption(  # type: ignore[overload-overlap]  # a str is also an iterable of str
        self,
        images: ImageInput,
        *,
        batch_size: int = 32,
        bgr: bool = False,
        allow_urls: Urls = False,
        **options: Unpack[DecodingKeywords],
    ) -> Caption: ...

    @overload
    def caption(
        self,
        images: Iterable[ImageInput],
        *,
        batch_size: int = 32,
        bgr: bool = False,
        allow_urls: Urls = False,
        **options: Unpack[DecodingKeywords],
    ) -> list[Caption]: ...

    @_accept_pictures
    def caption(
        self,
        images: ImageInput | Iterable[ImageInput],
        *,
        batch_size: int = 32,
        bgr: bool = False,
        allow_urls: Urls = False,
        **options: Unpack[DecodingKeywords],
    ) -> Caption | list[Caption]:
        """Caption one image, or several images in batches of `batch_size`.

        images: one image: a path, the bytes of a file, a file object opened in binary mode, a PIL
        image, or an array or tensor (H, W), (H, W, C) or (C, H, W), uint8 or float in [0, 1]. Or
        several: a directory, an array or tensor (N, H, W, C) or (N, C, H, W), or any iterable of
        images, such as a list or `Path.glob`; the result is then a list. bgr: whether arrays have
        their channels in the order blue, green, red, as those of OpenCV. allow_urls: whether an
        http(s) URL is downloaded (at most 64 MiB); True refuses private addresses, which "private"
        allows. options: fields of DecodingOptions, for example beam_size=5. In float32, the caption
        of an image does not depend on its batch. Raises InputError for an invalid image or option.
        """
        collected, is_single = collect_images(images, bgr=bgr, allow_urls=allow_urls)
        captions = list(self.stream(collected, batch_size=batch_size, **options))
        return captions[0] if is_single else captions

    __call__ = caption

    @overload
    def stream(
        self,
        images: ImageInput | Iterable[ImageInput],
        *,
        batch_size: int = 32,
        on_error: Literal["stop"] = "stop",
        bgr: bool = False,
        allow_urls: Urls = False,
        **options: Unpack[DecodingKeywords],
    ) -> Iterator[Caption]: ...

    @overload
    def stream(
        self,
        images: ImageInput | Iterable[ImageInput],
        *,
        batch_size: int = 32,
        on_error: Literal["yield"],
        bgr: bool = False,
        allow_urls: Urls = False,
        **options: Unpack[DecodingKeywords],
    ) -> Iterator[Caption | InputError]: ...

    @_accept_pictures
    def stream(
        self,
        images: ImageInput | Iterable[ImageInput],
        *,
        batch_size: int = 32,
        on_error: str = "stop",
        bgr: bool = False,
        allow_urls: Urls = False,
        **options: Unpack[DecodingKeywords],
    ) -> Iterator[Caption | InputError]:
        """Yield captions in order, batch by batch, while the next images load in the background.

        on_error: "stop" raises InputError for an image that cannot be read; "yield" yields the
        error instead of the caption. The other parameters are as in `caption`; an iterable is read
        to its end before the first caption.
        """
        collected, _ = collect_images(images, bgr=bgr, allow_urls=allow_urls)
        source = InputSource(collected, self.transform, on_error)
        decoding = from_dict(DecodingOptions, options)
        batches, offset = _batches(len(collected), batch_size), self.model.encoder.offset
        settings = DecodeSettings(decoding, batch_size, WORKERS, self.precision)
        for batch, decoded in caption_batches(self.model, source, batches, settings):
            for index, hypotheses in zip(batch, decoded, strict=True):
                if index in source.errors:
                    yield source.errors.pop(index)
                else:
                    yield caption_of(hypotheses, self.vocabulary, collected[index], offset)

    @overload
    def score(  # type: ignore[overload-overlap]  # a str is also an iterable of str
        self,
        images: ImageInput,
        texts: str,
        *,
        batch_size: int = 32,
        allow_unknown: bool = False,
        bgr: bool = False,
        allow_urls: Urls = False,
    ) -> float: ...

    @overload
    def score(
        self,
        images: ImageInput | Iterable[ImageInput],
        texts: Sequence[str],
        *,
        batch_size: int = 32,
        allow_unknown: bool = False,
        bgr: bool = False,
        allow_urls: Urls = False,
    ) -> list[float]: ...

    @_accept_pictures
    def score(
        self,
        images: ImageInput | Iterable[ImageInput],
        texts: str | Sequence[str],
        *,
        batch_size: int = 32,
        allow_unknown: bool = False,
        bgr: bool = False,
        allow_urls: Urls = False,
    ) -> float | list[float]:
        """Return log p(text | image) in nats, including the end token.

        images, bgr, allow_urls: as in `caption`. One image with one text has one score; one image
        with a list of texts has a score for each text, by which they can be ranked; several images
        need a text for each. In float32, the score of a caption equals its `Caption.score` if it
        was generated with the default min_length, no_repeat_ngram and allow_unknown, and not
        truncated. allow_unknown: whether to score words outside the vocabulary as <unk>. Raises
        InputError for an image that cannot be read, for different numbers of images and texts, for
        a text without words and, unless allow_unknown is set, for words outside the vocabulary.
        """
        collected, is_single = collect_images(images, bgr=bgr, allow_urls=allow_urls)
        if isinstance(texts, str):
            if not is_single:
                raise InputError(
                    f"texts must be a list for a list of images, got {texts!r}; pass one text per "
                    "image"
                )
            return self._score(collected, [[texts]], batch_size, allow_unknown)[0][0]
        if is_single:
            return self._score(collected, [texts], batch_size, allow_unknown)[0]
        if len(collected) != len(texts):
            raise InputError(
                "images and texts must have the same length, got "
                f"{len(collected)} images and {len(texts)} texts"
            )
        rows = self._score(collected, [[text] for text in texts], batch_size, allow_unknown)
        return [score for (score,) in rows]

    def _score(
        self,
        images: Sequence[ImageInput],
        texts: Sequence[Sequence[str]],
        batch_size: int,
        allow_unknown: bool,
    ) -> list[list[float]]:
        """Return the scores of the texts of each image, all images with equally many texts."""
        batches = _batches(len(images), batch_size)
        encoded = iter(_encode([t for own in texts for t in own], self.vocabulary, allow_unknown))
        rows = [[next(encoded) for _ in own] for own in texts]
        decoding = DecodingOptions(allow_unknown=allow_unknown)
        source = InputSource(images, self.transform, "stop")
        scores: list[list[float]] = []
        for batch in batches:
            with torch.inference_mode(), products_in(self.precision, self.device):
                features = self.model.encoder(source.load(batch).to(self.device)).float()
            with torch.inference_mode(), decoding_in(self.precision, self.device):
                parts = []
                for first in range(0, len(texts[batch[0]]), batch_size):
                    captions = [rows[i][first : first + batch_size] for i in batch]
                    tokens = pad_captions(captions).to(self.device)
                    log_probs = score_captions(self.model, features, tokens, decoding)  # (B, C, T)
                    parts.append(log_probs.sum(-1))
            scores += torch.cat(parts, 1).tolist() if parts else [[] for _ in batch]
        return scores

    def __repr__(self) -> str:
        """Return the model, its vocabulary size, device and precision."""
        names = " + ".join(map(_describe, getattr(self.model, "members", [self.model])))
        words = f"{len(self.vocabulary.words):,} words"
        return f"Captioner({names}; {words}, {self.device}, {self.precision})"


def _describe(model: Any) -> str:
    kind = "Show, Attend and Tell" if model.has_attention else "Show and Tell"
    return f"{kind} with {getattr(model.encoder, 'name', type(model.encoder).__name__)}"


def _batches(count: int, batch_size: int) -> list[range]:
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, got {batch_size}")
    return [range(count)[i : i + batch_size] for i in range(0, count, batch_size)]


def _encode(texts: Sequence[str], vocabulary: Vocabulary, allow_unknown: bool) -> list[list[int]]:
    """Encode each text as tokens from start to end; raise InputError as `score` does."""
    sentences = [vocabulary.tokenizer.split(text) for text in texts]
    for text, words in zip(texts, sentences, strict=True):
        if not words:
            raise InputError(f"a text must contain at least one word to be scored, got {text!r}")
    unknown = sorted({w for words in sentences for w in words if w not in vocabulary})
    if unknown and not allow_unknown:
        raise InputError(
            f"the vocabulary does not contain {', '.join(map(repr, unknown[:10]))}; "
            "pass allow_unknown=True to score unknown words as <unk>"
        )
    start, end = vocabulary.START, vocabulary.END
    return [[start, *vocabulary.encode(words), end] for words in sentences]
