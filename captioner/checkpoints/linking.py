"""The linking model of a checkpoint and its sentence encoder."""

from ..models.linking.linear import LinearMap
from ..models.linking.options import LinearOptions
from ..models.linking.text_model import load_sentence_encoder
from ..options import from_dict
from ..text.sentence_vectors import SentenceEncoder
from ..vision.encoders import build_encoder
from .checkpoint import Checkpoint
from .checkpoint import restore as restore_weights

IMAGE_WEIGHT = "image.weight"  # of shape (E, X)


def restore(checkpoint: Checkpoint) -> tuple[LinearMap, SentenceEncoder]:
    """Build the linear map of a checkpoint on the CPU; return it with its sentence encoder.

    Raises InputError if the checkpoint is not of a linear map, or its files do not match.
    """
    checkpoint.check_task("linear")
    texts = load_sentence_encoder(checkpoint.path)
    config = checkpoint.config

    def build() -> LinearMap:
        encoder = None
        if config["linear"]["image_vectors"] is None:
            encoder = build_encoder(config["encoder"]["encoder"], pretrained=True)
        size = encoder.channels if encoder else checkpoint.weights[IMAGE_WEIGHT].shape[1]
        return LinearMap(size, texts.dimensions, from_dict(LinearOptions, config["model"]), encoder)

    return restore_weights(checkpoint, build), texts
