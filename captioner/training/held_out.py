"""Evaluation on the val split during and after training."""

from ..data.demo import dataset as demo
from ..decoding.decode import DecodeSettings
from ..decoding.options import DecodingOptions
from ..evaluation.split import Evaluation, ScoringSettings, evaluate_split
from .setup import TrainingSetup, epoch_metrics


def evaluate_held_out(setup: TrainingSetup) -> Evaluation:
    """Caption and score the val split with the model's current weights."""
    options = setup.config.training
    decoding = DecodingOptions(beam_size=options.beam_size)
    return evaluate_split(
        setup.model,
        setup.vocabulary,
        setup.held_out.examples,
        setup.held_out.images,
        DecodeSettings(decoding, workers=setup.config.data.workers),
        ScoringSettings(
            epoch_metrics(options.watch), shapes=demo.read_shapes(setup.data.root, "val")
        ),
    )
