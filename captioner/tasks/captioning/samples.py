"""Sample captions and heatmaps of validation images."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from ...data.dataset import Example
from ...data.images import load_image
from ...data.storage.location import Location
from ...distributed import say
from ...evaluation.split import Evaluation
from ...plots.heatmaps import save_heatmap
from ...plots.samples import Sample, draw_sample, save_samples
from ...text.vocabulary import Vocabulary


class NamedSample(NamedTuple):
    """The path of an image, and the image with its caption."""

    path: Path | Location
    sample: Sample


def named_sample(example: Example, evaluation: Evaluation, vocabulary: Vocabulary) -> NamedSample:
    """Return an example's image with its best caption, any attention maps, and a reference."""
    hypothesis = evaluation.hypotheses[example.id]
    words = vocabulary.decode(hypothesis.tokens)
    maps = hypothesis.attention
    sample = Sample(
        load_image(example.path),
        words,
        evaluation.texts[example.id],
        example.captions[0],
        None if maps is None else maps[: len(words)],
    )
    return NamedSample(example.path, sample)


def show_samples(
    path: Path,
    samples: Sequence[NamedSample],
    epoch: int,
    offset: float,
    log_image: Callable[[str, Image.Image], None] | None,
) -> None:
    """Print the captions, draw a sheet of the samples at `path`, and log each sample as an image.

    epoch: counted from 1. offset: as in `vision.encoders.Encoder`. log_image(name, image): function
    that logs an image; None if images are not logged.
    """
    say(f"captions after epoch {epoch}:")
    for image, sample in samples:
        say(f"  {image.name}: {sample.text}")
    save_samples(path, [sample for _, sample in samples], offset)
    if log_image:
        for number, (image, sample) in enumerate(samples, start=1):
            log_image(f"samples/{number}-{image.name}", draw_sample(sample, offset))


def draw_heatmaps(directory: Path, samples: Sequence[NamedSample], offset: float) -> None:
    """Draw a heatmap of each sample; all must have attention maps."""
    for number, (image, sample) in enumerate(samples, start=1):
        assert sample.attention is not None
        save_heatmap(
            directory / f"{number:02}-{image.stem}.png",
            sample.image,
            sample.words,
            sample.attention,
            title=sample.text,
            offset=offset,
        )


def evenly_spaced(examples: Sequence[Example], count: int) -> Sequence[Example]:
    """Return at most `count` of the examples, evenly spaced."""
    return examples[:: max(1, len(examples) // max(1, count))][:count]
