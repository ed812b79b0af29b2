"""The options of the linear map other than its model options."""

from dataclasses import dataclass
from pathlib import Path

from ...options import option
from ...text.options import TextVectorOptions


@dataclass(frozen=True)
class LinearTaskOptions(TextVectorOptions):
    """The vectors of images and texts that are mapped."""

    image_vectors: Path | None = option(
        None, ".npy file of image vectors, one row per caption [pooled encoder features]"
    )
