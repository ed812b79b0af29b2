"""Captioner: images in, captions out; what a trained model is to other code."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, overload

import torch
from PIL import Image

from .atomic_io import check_absent
from .caption import Caption, caption_of
from .checkpoints import checkpoint as checkpoints
from .checkpoints import hub
from .checkpoints.checkpoint import Checkpoint
from .checkpoints.model_card import model_card
from .checkpoints.restoring import restore
from .data.images import ImageInput, Transform, load_image
from .data.sources import FunctionSource
from .decoding.decode import DecodeSettings, caption_batches
from .decoding.options import DecodingOptions
from .decoding.teacher_forcing import score_captions
from .devices import device_of, pick_device, pick_precision, products_in
from .errors import InputError
from .models.base import CaptionModel
from .models.captioning.ensemble import Candidate, build_ensemble, compile_steps
from .options import from_dict
from .prefetch import WORKERS
from .text.collate import pad_captions
from .text.tokenizer import split_words
from .text.vocabulary import Vocabulary


class Captioner:
    """A trained model, or an ensemble, with its vocabulary and transform, on a device.

    Get one from `from_pretrained`. The model is in eval mode; calls change nothing in it.
    """

    def __init__(
        self,
        model: CaptionModel,
        vocabulary: Vocabulary,
        transform: Transform,
        precision: str = "float32",
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """config: that of the checkpoint, which `save_pretrained` needs."""
        self.model = model.eval()
        self.config = config
        self.precision = precision
        pick_precision(precision, self.device)  # refuse it at once
        self.vocabulary = vocabulary
        self.transform = transform

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path | Sequence[str | Path],
        device: str | torch.device | None = None,
        precision: str = "float32",
        compile: bool = False,
        revision: str | None = None,
    ) -> "Captioner":
        """The best checkpoint of a run, or the checkpoint, at `path`; nothing else is needed.

        A name "user/name" that is no path here is that of a repository on the Hugging Face hub,
        which is downloaded (the extra `hub`); revision: its branch, tag or commit.
        Several paths give an ensemble: at every word the mean of the models' log-probabilities.
        device None picks CUDA where there is one. precision: "float32", "bfloat16", which is
        faster where the device has it and may change a word now and then, or "auto", which takes
        bfloat16 there. compile: fuse the steps of decoding with torch.compile, which the first
        captions wait for. Raises InputError for a missing, damaged or foreign checkpoint, and for
        models that do not see the same grid of the same pixels or do not know the same words.
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
        """The same from checkpoints that are already read."""
        if not read:
            raise InputError("a captioner needs at least one checkpoint, got none")
        candidates = [Candidate(str(each.path), *restore(each), each.vocabulary) for each in read]
        model: CaptionModel = build_ensemble(candidates).to(pick_device(device))
        if compile:
            model = compile_steps(model)
        config = read[0].config if len(read) == 1 else None
        return cls(model, read[0].vocabulary, candidates[0].transform, precision, config)

    def save_pretrained(
        self, directory: str | Path, *, license: str = "unknown", name: str | None = None
    ) -> Path:
        """Write the model into a new directory, which `from_pretrained` reads, and a card for people.

        Nothing in it names this machine's directories, nor does it hold what training needs to go on.
        license: the hub's word for that of the weights, as "apache-2.0". name: under which it will
        be found; the directory's unless given. Returns the directory. Raises InputError for an ensemble,
        and where `directory` holds something.
        """
        directory = Path(directory)
        check_absent(directory)
        if self.config is None:
            raise InputError("only a model of one checkpoint can be saved; save each by itself")
        config = checkpoints.without_paths(self.config)
        size = sum(parameter.numel() for parameter in self.model.parameters())
        card = model_card(
            config,
            name or directory.name,
            license,
            words=len(self.vocabulary.words),
            parameters=size,
        )
        checkpoints.save(directory, config, self.vocabulary, self.model.state_dict(), None, card)
        return directory

    def push_to_hub(
        self,
        repository: str,
        *,
        private: bool = True,
        token: str | None = None,
        revision: str | None = None,
        license: str = "unknown",
    ) -> str:
        """Upload what `save_pretrained` writes to "user/name" on the Hugging Face hub.

        private: whether a repository that is made can be seen by its owner only. token: the hub's,
        of the login on this machine unless given. revision: the branch to upload to. Returns the
        address. Raises InputError where the hub refuses.
        """
        with TemporaryDirectory() as place:
            directory = self.save_pretrained(
                Path(place) / "model", license=license, name=repository
            )
            return hub.push(directory, repository, private=private, token=token, revision=revision)

    @property
    def device(self) -> torch.device:
        return device_of(self.model)

    @overload
    def caption(self, images: ImageInput, *, batch_size: int = 32, **options: Any) -> Caption: ...

    @overload
    def caption(
        self, images: Sequence[ImageInput], *, batch_size: int = 32, **options: Any
    ) -> list[Caption]: ...

    def caption(
        self, images: ImageInput | Sequence[ImageInput], *, batch_size: int = 32, **options: Any
    ) -> Caption | list[Caption]:
        """Caption one image, or a sequence of them, `batch_size` at a time.

        images: paths, PIL images, (3, H, W) tensors (uint8, or float in [0, 1]) or (H, W, 3)
        uint8 arrays. options: the fields of DecodingOptions, for example beam_size=5. In
        float32 an image gets the same caption in any batch. Raises InputError for a bad image
        or option.
        """
        if isinstance(images, str) or not isinstance(images, Sequence):
            return self.caption([images], batch_size=batch_size, **options)[0]
        return list(self.stream(images, batch_size=batch_size, **options))

    @overload
    def stream(
        self,
        images: Sequence[ImageInput],
        *,
        batch_size: int = 32,
        on_error: Literal["stop"] = "stop",
        **options: Any,
    ) -> Iterator[Caption]: ...

    @overload
    def stream(
        self,
        images: Sequence[ImageInput],
        *,
        batch_size: int = 32,
        on_error: Literal["yield"],
        **options: Any,
    ) -> Iterator[Caption | InputError]: ...

    def stream(
        self,
        images: Sequence[ImageInput],
        *,
        batch_size: int = 32,
        on_error: str = "stop",
        **options: Any,
    ) -> Iterator[Caption | InputError]:
        """The same one by one, each batch as soon as it is done, while the next ones load.

        on_error: a bad image's InputError is raised ("stop"), or comes in its place ("yield").
        """
        if on_error not in ("stop", "yield"):
            raise InputError(f"on_error must be stop or yield, got {on_error!r}")
        decoding = from_dict(DecodingOptions, options)
        batches, offset = _batches(len(images), batch_size), self.model.encoder.offset
        bad: dict[int, InputError] = {}

        def load(index: int) -> Image.Image:
            try:
                return load_image(images[index])
            except InputError as error:
                if on_error == "stop":
                    raise
                bad[index] = error
                return Image.new("RGB", (self.transform.size,) * 2)  # holds its place in the batch

        source = FunctionSource(
            lambda indices: self.transform.batch([load(i) for i in indices]), are_features=False
        )
        settings = DecodeSettings(decoding, batch_size, WORKERS, self.precision)
        for batch, found in caption_batches(self.model, source, batches, settings):
            for index, hypotheses in zip(batch, found, strict=True):
                if index in bad:
                    yield bad.pop(index)
                else:
                    yield caption_of(hypotheses, self.vocabulary, images[index], offset)

    @overload
    def score(  # type: ignore[overload-overlap]  # a str is a sequence of str, too
        self, images: ImageInput, texts: str, *, batch_size: int = 32, allow_unknown: bool = False
    ) -> float: ...

    @overload
    def score(
        self,
        images: Sequence[ImageInput],
        texts: Sequence[str],
        *,
        batch_size: int = 32,
        allow_unknown: bool = False,
    ) -> list[float]: ...

    def score(
        self,
        images: ImageInput | Sequence[ImageInput],
        texts: str | Sequence[str],
        *,
        batch_size: int = 32,
        allow_unknown: bool = False,
    ) -> float | list[float]:
        """log p(text | image) in nats, the end token counted: of one pair, or of each of several.

        In float32 the score of a caption is its score in decoding. A text without words is an
        InputError, and so are words that the model does not know, unless allow_unknown scores them
        as <unk>.
        """
        if isinstance(images, str) or not isinstance(images, Sequence):
            if not isinstance(texts, str):
                raise InputError(f"one image needs one text, got {type(texts).__name__}")
            return self.score(
                [images], [texts], batch_size=batch_size, allow_unknown=allow_unknown
            )[0]
        if isinstance(texts, str):
            raise InputError(f"several images need a list of texts, got the one text {texts!r}")
        if len(images) != len(texts):
            raise InputError(f"{len(images)} images need as many texts, got {len(texts)}")
        batches = _batches(len(texts), batch_size)
        rows = _encode(texts, self.vocabulary, allow_unknown)
        decoding = DecodingOptions(allow_unknown=allow_unknown)
        scores: list[float] = []
        for batch in batches:
            tokens = pad_captions([[rows[i]] for i in batch]).to(self.device)
            pixels = self.transform.batch([load_image(images[i]) for i in batch])
            with torch.inference_mode(), products_in(self.precision, self.device):
                features = self.model.encoder(pixels.to(self.device))
                log_probs = score_captions(self.model, features, tokens, decoding)  # (B, 1, T)
            scores += log_probs.sum(-1)[:, 0].tolist()
        return scores


def _batches(count: int, batch_size: int) -> list[range]:
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, got {batch_size}")
    return [range(count)[i : i + batch_size] for i in range(0, count, batch_size)]


def _encode(texts: Sequence[str], vocabulary: Vocabulary, allow_unknown: bool) -> list[list[int]]:
    """Each text as tokens from start to end; InputError for what `Captioner.score` refuses."""
    sentences = [split_words(text) for text in texts]
    for text, words in zip(texts, sentences, strict=True):
        if not words:
            raise InputError(f"there is no word in the text {text!r}")
    unknown = sorted({w for words in sentences for w in words if w not in vocabulary})
    if unknown and not allow_unknown:
        raise InputError(
            f"the model does not know {', '.join(map(repr, unknown[:10]))}; "
            "allow_unknown=True scores unknown words as <unk>"
        )
    start, end = vocabulary.START, vocabulary.END
    return [[start, *vocabulary.encode(words), end] for words in sentences]
