"""The captioning model of a checkpoint."""

from ..data.images import Transform
from ..models.captioning.build import CaptioningModel, build_model
from ..models.captioning.options import ModelOptions
from ..options import from_dict
from ..vision.encoders import build_encoder
from .checkpoint import Checkpoint
from .checkpoint import restore as restore_weights


def restore(checkpoint: Checkpoint) -> tuple[CaptioningModel, Transform]:
    """Build the model of a checkpoint on the CPU; return it with its transform.

    Raises InputError if the checkpoint is not for captioning, or if its files do not match each
    other.
    """
    checkpoint.check_task("captioning")
    config = checkpoint.config

    def build() -> CaptioningModel:
        encoder = build_encoder(
            config["encoder"]["encoder"], fine_tune_from=config["encoder"]["fine_tune_encoder"]
        )
        options = from_dict(ModelOptions, config["model"])
        return build_model(encoder, len(checkpoint.vocabulary), options)

    return restore_weights(checkpoint, build), checkpoint.transform
