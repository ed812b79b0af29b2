"""From what a checkpoint holds to the model that it describes; files are checkpoint.py's."""

import torch

from ..data.images import Transform
from ..errors import InputError
from ..models.captioning.build import CaptioningModel, build_model
from ..models.captioning.options import ModelOptions
from ..options import from_dict
from ..vision.encoders import build_encoder
from .checkpoint import Checkpoint


def restore(checkpoint: Checkpoint) -> tuple[CaptioningModel, Transform]:
    """The model that a checkpoint describes, with its weights, on the CPU, and its transform.

    The model is first built without memory, so that a config that does not fit its weights is
    refused before anything is allocated.
    """
    config = checkpoint.config
    try:
        with torch.device("meta"):
            encoder = build_encoder(
                config["encoder"]["encoder"],
                fine_tune_from=config["encoder"]["fine_tune_encoder"],
            )
            options = from_dict(ModelOptions, config["model"])
            model = build_model(encoder, len(checkpoint.vocabulary), options)
        model.load_state_dict(checkpoint.weights, assign=True)
        return model, Transform(**config["transform"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())  # torch's goes over many lines
        raise InputError(
            f"checkpoint {checkpoint.path}: config.json and the weights do not fit: {reason}"
        ) from error
