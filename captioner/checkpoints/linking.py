"""The linking model and the text reader of a checkpoint."""

from typing import Any

from ..errors import InputError
from ..models.linking.build import LinkingModel
from ..models.linking.clip import build_clip, load_clip_reader
from ..models.linking.joint import JointEmbedding
from ..models.linking.linear import LinearMap
from ..models.linking.mcnn import MultimodalCNN
from ..models.linking.options import (
    CLIP,
    JointOptions,
    LinearOptions,
    McnnOptions,
    RegressionOptions,
    SpatialOptions,
)
from ..models.linking.regression import TextRegression
from ..models.linking.spatial import SpatialEmbedding
from ..models.linking.texts import TextReader, load_reader
from ..options import from_dict
from ..vision.encoders import Encoder, build_encoder
from .checkpoint import Checkpoint
from .checkpoint import restore as restore_weights

EMBEDDING_SYSTEMS = ("linear", "joint", "regression", "spatial", CLIP)  # which can write an index
SYSTEMS = (*EMBEDDING_SYSTEMS, "mcnn")
IMAGE_WEIGHT = "image.weight"  # of shape (E, X), or (H, X) before a hidden layer


def restore(checkpoint: Checkpoint) -> tuple[LinkingModel, TextReader]:
    """Build the linking model of a checkpoint on the CPU; return it with its text reader.

    Raises InputError if the checkpoint is not for linking, or if its files do not match each other.
    """
    if checkpoint.task == CLIP:
        name = str(checkpoint.config["model"]["open_clip"])
        return restore_weights(checkpoint, lambda: build_clip(name)), load_clip_reader(name)
    return _restore_trained(checkpoint)


def _restore_trained(checkpoint: Checkpoint) -> tuple[LinkingModel, TextReader]:
    if checkpoint.task not in SYSTEMS:
        raise InputError(
            f"checkpoint {checkpoint.path} was trained for {checkpoint.task!r}, not linking "
            f"({', '.join(SYSTEMS)}); choose another checkpoint"
        )
    reader = load_reader(checkpoint.path)

    def build() -> LinkingModel:
        config = checkpoint.config
        encoder = _build_encoder(config)
        size = encoder.channels if encoder else checkpoint.weights[IMAGE_WEIGHT].shape[1]
        if checkpoint.task == "linear":
            options = from_dict(LinearOptions, config["model"])
            return LinearMap(size, reader.vector_size, options, encoder)
        if checkpoint.task == "regression":
            regression = from_dict(RegressionOptions, config["model"])
            return TextRegression(size, reader.vector_size, regression, encoder)
        if checkpoint.task == "spatial":
            if encoder is None:
                raise ValueError("a spatial embedding needs an encoder, but the config has none")
            spatial = from_dict(SpatialOptions, config["model"])
            return SpatialEmbedding(size, reader.vector_size, spatial, encoder)
        if reader.vocabulary is None:
            raise ValueError("the text reader has no vocabulary")
        if checkpoint.task == "mcnn":
            if encoder is None:
                raise ValueError("an m-CNN needs an image encoder")
            mcnn = from_dict(McnnOptions, config["model"])
            return MultimodalCNN(size, len(reader.vocabulary), mcnn, encoder)
        joint = from_dict(JointOptions, config["model"])
        return JointEmbedding(size, len(reader.vocabulary), reader.vector_size, joint, encoder)

    return restore_weights(checkpoint, build), reader


def _build_encoder(config: dict[str, Any]) -> Encoder | None:
    """Build the image encoder; return None if the user computed the image vectors."""
    if config[config["task"]].get("image_vectors") is not None:
        return None
    encoder = config["encoder"]
    return build_encoder(
        encoder["encoder"], fine_tune_from=encoder["fine_tune_encoder"], pretrained=True
    )
