"""The options of the linear map, besides those that shape the model."""

from dataclasses import dataclass
from pathlib import Path

from ...options import option
from ...text.options import TextVectorOptions


@dataclass(frozen=True)
class LinearTaskOptions(TextVectorOptions):
    """The vectors of images and texts that are mapped."""

    image_vectors: Path | None = option(
        None, ".npy file of image vectors, one row per caption line [pooled encoder features]"
    )
