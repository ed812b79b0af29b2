"""Evaluation on the val split during and after training."""

from ..data.demo import scenes as demo
from ..decoding.options import DecodingOptions
from ..evaluation.scoring import Evaluation, evaluate
from .setup import TrainingSetup, epoch_metrics


def evaluate_held_out(setup: TrainingSetup) -> Evaluation:
    """Caption and score the val split with the model's present weights."""
    options = setup.config.training
    return evaluate(
        setup.model,
        setup.vocabulary,
        setup.held_out.examples,
        setup.held_out.images,
        DecodingOptions(beam_size=options.beam_size),
        workers=setup.config.data.workers,
        shapes=demo.read_shapes(setup.data.root, "val"),
        wanted=epoch_metrics(options.watch),
    )
