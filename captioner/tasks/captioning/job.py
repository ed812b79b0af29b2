"""One captioning run: its vocabulary, model, batches, validation and samples."""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from PIL import Image
from torch import Tensor

from ...checkpoints.checkpoint import VOCABULARY, Checkpoint, load_checkpoint_weights
from ...data.batches import MAX_WORDS, count_truncated
from ...data.dataset import Example
from ...data.demo import dataset as demo
from ...data.sources import Source
from ...data.storage.location import Location
from ...decoding.decode import DecodeSettings
from ...decoding.options import DecodingOptions
from ...devices import device_of
from ...distributed import say
from ...evaluation.split import Evaluation, ScoringSettings, evaluate_split, measure_pointing
from ...metrics.captions import SCORES, signature
from ...models.captioning.build import CaptioningModel, build_model
from ...models.captioning.options import ModelOptions
from ...models.losses import Loss
from ...models.parameter_count import count_parameters, describe_parameters
from ...text.tokenizer import get_tokenizer, one_word_note
from ...text.unknown_words import describe_unknown_words
from ...text.vocabulary import Vocabulary
from ..commands import captioner_command, program
from ..encoding import build_configured_encoder, open_split
from ..options import OptionGroups
from ..task import JobInputs
from .batches import EpochBatches
from .options import CaptioningOptions, epoch_metrics
from .samples import NamedSample, draw_heatmaps, evenly_spaced, named_sample, show_samples
from .teachers import build_teachers, read_teachers

CALIBRATION = 1000  # images


class CaptioningJob:
    """Implements `tasks.task.Job`."""

    fit: Callable[[], None] | None = None

    def __init__(self, inputs: JobInputs) -> None:
        """Build or load the vocabulary, build the model, and open the images or features.

        Raises InputError for unsuitable teachers before features are computed.
        """
        groups, start = inputs.options, inputs.start
        self.groups, self.run = groups, inputs.run
        self._model_options, self._options = groups.of(ModelOptions, CaptioningOptions)
        training, held_out = (inputs.data.split(name) for name in ("train", "val"))
        self.vocabulary = (
            start.vocabulary if start else build_vocabulary(training, self._options)
        ).with_function(self._options.tokenizer)
        starts_elsewhere = groups.run.start_from is not None  # rare words are left out on purpose
        if starts_elsewhere and (unknown := _describe_unknown(training, self.vocabulary)):
            say(unknown)
        if truncated := count_truncated(training, self.vocabulary):
            say(f"note: {truncated} training captions are truncated to {MAX_WORDS} words")
        self.model = make_model(groups, len(self.vocabulary), start).to(inputs.device)
        teacher = None
        if teachers := read_teachers(self._options, inputs.transform):
            teacher = build_teachers(teachers, self.model, self.vocabulary).to(inputs.device)
        self.training = open_split(self.model.encoder, training, inputs, "maps")
        if start is None:
            self.model.calibrate(sample_maps(self.model, self.training.images, len(training)))
        self.held_out = open_split(self.model.encoder, held_out, inputs, "maps")
        self._shapes = demo.read_shapes(inputs.data.root, "val")
        splits = {example.split for example in inputs.data.examples}
        self._last_split = "test" if "test" in splits else "val"
        self._batches = EpochBatches(
            groups.training,
            self._options,
            self.training,
            self.model,
            self.vocabulary,
            teacher,
            groups.data.workers,
        )
        self.steps = self._batches.steps
        self.batches, self.prepare = self._batches, self._batches.prepare
        self.setting = f"val split, beam size {self._options.beam_size}"

    def observe(self, _loss: Loss) -> None:
        """Do nothing: the losses of single steps are not needed."""

    def evaluate(self, precision: str, /) -> Evaluation:
        """Caption and score the val split with the model's current weights."""
        decoding = DecodingOptions(beam_size=self._options.beam_size)
        result = evaluate_split(
            self.model,
            self.vocabulary,
            self.held_out.examples,
            self.held_out.images,
            DecodeSettings(decoding, workers=self.groups.data.workers, precision=precision),
            ScoringSettings(epoch_metrics(self.groups.training.watch)),
        )
        return measure_pointing(result, self.model, self.vocabulary, self._shapes)

    def show(
        self, result: Evaluation, epoch: int, log_image: Callable[[str, Image.Image], None] | None
    ) -> None:
        """Print the captions of up to --samples val images, and draw the images with them.

        Attention maps are drawn as well if the model has attention.
        """
        if chosen := self._samples(result, self.groups.run.samples):
            path = self.run / "samples" / f"epoch-{epoch:02}.png"
            show_samples(path, chosen, epoch, self.model.encoder.offset, log_image)

    def signature(self, scores: Mapping[str, float]) -> str:
        """Return the signature that is printed with the scores."""
        names = [score for score in SCORES if score in scores]
        references = [example.captions for example in self.held_out.examples]
        return signature(references, names, self.vocabulary.tokenizer.name)

    def save_text_model(self, directory: Path) -> None:
        """Write the vocabulary."""
        self.vocabulary.save(directory / VOCABULARY)

    def conclude(self, result: Evaluation) -> list[str]:
        """Draw heatmaps of up to --heatmaps val images; return a line that names their directory.

        Nothing is drawn if the model has no attention.
        """
        chosen = self._samples(result, self.groups.run.heatmaps)
        if not chosen or not self.model.has_attention:
            return []
        draw_heatmaps(self.run / "heatmaps", chosen, self.model.encoder.offset)
        return [f"heatmaps: {self.run / 'heatmaps'}"]

    def next_commands(self) -> list[str]:
        """Return commands that score a split, caption an image and serve the run."""
        return next_commands(
            self.run,
            self._last_split,
            self.held_out.examples[0].path,
            self._options.beam_size,
            self.model.has_attention,
        )

    def _samples(self, result: Evaluation, count: int) -> list[NamedSample]:
        examples = evenly_spaced(self.held_out.examples, count)
        return [named_sample(example, result, self.vocabulary) for example in examples]


def _describe_unknown(training: Sequence[Example], vocabulary: Vocabulary) -> str:
    """Return a note about words of the captions that the model does not know, or ""."""

    def unknown_words(caption: str) -> list[str]:
        return [word for word in vocabulary.tokenizer.split(caption) if word not in vocabulary]

    captions = [caption for example in training for caption in example.captions]
    note = describe_unknown_words(unknown_words, captions, "the model that training starts from")
    return f"{note}; they become <unk>" if note else ""


def build_vocabulary(training: Sequence[Example], options: CaptioningOptions) -> Vocabulary:
    """Build the vocabulary of the training captions; print a note if most are a single word.

    Raises InputError if no word is frequent enough.
    """
    tokenizer = get_tokenizer(options.tokenizer)
    texts = [text for example in training for text in example.captions]
    if note := one_word_note(texts, tokenizer):
        say(f"note: {note}")
    return Vocabulary.build(map(tokenizer.split, texts), options.min_count, tokenizer)


def make_model(
    groups: OptionGroups, vocabulary_size: int, start: Checkpoint | None
) -> CaptioningModel:
    """Build the configured model, and load the weights of the checkpoint `start`, if any."""
    options, _ = groups.of(ModelOptions, CaptioningOptions)
    encoder = build_configured_encoder(groups)
    model = build_model(encoder, vocabulary_size, options)
    if start:
        load_checkpoint_weights(model, start)
    say(
        f"{options.name} with {'frozen' if encoder.frozen else 'trained'} "
        f"{groups.encoder.encoder}, {vocabulary_size} tokens, "
        f"{describe_parameters(count_parameters(model))}"
    )
    return model


def sample_maps(model: CaptioningModel, images: Source, count: int) -> Iterator[Tensor]:
    """Yield feature maps (B, D, h, w) of up to CALIBRATION of `count` images, evenly spaced."""
    device, chosen = device_of(model), range(0, count, -(-count // CALIBRATION))
    for first in range(0, len(chosen), 64):
        values = images.load(chosen[first : first + 64]).to(device)
        yield values if images.are_features else model.encoder(values)


def next_commands(
    run: Path, split: str, image: Path | Location, beam_size: int, has_attention: bool
) -> list[str]:
    """Return commands that score the split, caption the image and serve the run.

    The second command also draws heatmaps if the model has attention.
    """
    beam = ["--beam-size", str(beam_size)]
    maps = ["--heatmap", str(run / "maps")] if has_attention else []
    can_serve = all(find_spec(name) for name in ("fastapi", "uvicorn", "python_multipart"))
    evaluate = [*program("evaluate"), "--checkpoint", str(run), "--split", split]
    caption = [*captioner_command(), "caption", str(image), "--checkpoint", str(run)]
    serve = [*captioner_command(), "serve", str(run)]
    return [
        shlex.join([*evaluate, *beam]),
        shlex.join([*caption, *beam, *maps]),
        ("" if can_serve else "pip install 'captioner[serve]' && ") + shlex.join(serve),
    ]
