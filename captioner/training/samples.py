"""Sample captions and heatmaps of validation images."""

from collections.abc import Sequence
from pathlib import Path

from ..data.dataset import Example
from ..data.images import load_image
from ..distributed import say
from ..evaluation.split import Evaluation
from ..plots.heatmaps import save_heatmap
from ..plots.samples import Sample, draw_sample, save_samples
from .setup import TrainingSetup
from .tensorboard import TensorBoardWriter


def show_samples(
    setup: TrainingSetup,
    evaluation: Evaluation,
    epoch: int,
    tensorboard: TensorBoardWriter | None,
    step: int,
) -> None:
    """Print the captions of a few images, and draw the images with captions and attention.

    The images are saved as samples/epoch-NN.png in the run's directory, and also logged at `step`
    if a TensorBoard writer is given.
    """
    examples = evenly_spaced(setup.held_out.examples, setup.config.run.samples)
    if not examples:
        return
    say(f"captions after epoch {epoch}:")
    samples = [_sample(setup, evaluation, example) for example in examples]
    for example, sample in zip(examples, samples, strict=True):
        say(f"  {example.path.name}: {sample.text}")
    offset = setup.model.encoder.offset
    save_samples(setup.run / "samples" / f"epoch-{epoch:02}.png", samples, offset)
    if tensorboard:
        for number, (example, sample) in enumerate(zip(examples, samples, strict=True), start=1):
            name = f"samples/{number}-{example.path.name}"
            tensorboard.add_image(name, draw_sample(sample, offset), step)


def _sample(setup: TrainingSetup, evaluation: Evaluation, example: Example) -> Sample:
    hypothesis = evaluation.hypotheses[example.id]
    words = setup.vocabulary.decode(hypothesis.tokens)
    maps = hypothesis.attention
    return Sample(
        load_image(example.path),
        words,
        evaluation.texts[example.id],
        example.captions[0],
        None if maps is None else maps[: len(words)],
    )


def draw_heatmaps(setup: TrainingSetup, evaluation: Evaluation) -> Path | None:
    """Draw heatmaps of validation images; return their directory, or None if there are none."""
    examples = evenly_spaced(setup.held_out.examples, setup.config.run.heatmaps)
    if not examples or not setup.config.model.attention:
        return None
    directory = setup.run / "heatmaps"
    for number, example in enumerate(examples, start=1):
        sample = _sample(setup, evaluation, example)
        assert sample.attention is not None
        save_heatmap(
            directory / f"{number:02}-{example.path.stem}.png",
            sample.image,
            sample.words,
            sample.attention,
            title=sample.text,
            offset=setup.model.encoder.offset,
        )
    return directory


def evenly_spaced(examples: Sequence[Example], count: int) -> Sequence[Example]:
    """Return at most `count` of the examples, evenly spaced."""
    return examples[:: max(1, len(examples) // max(1, count))][:count]
