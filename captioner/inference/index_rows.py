"""What an index stores of each image: its embedding, and the regions of a spatial model.

Shapes: n images, E embedding dimensions, R bytes of packed regions.
"""

from typing import NamedTuple

import numpy as np
import torch

from ..data.sources import Source
from ..linker import Linker
from ..models.linking.spatial import SpatialEmbedding
from ..retrieval.region_rows import pack


class ImageRows(NamedTuple):
    """The rows of images in an index.

    rows (n, E): embeddings, float32. regions (n, R): the region embeddings of a spatial model,
    packed as in `region_rows`; None for any other model.
    """

    rows: np.ndarray
    regions: np.ndarray | None


def embed_for_index(linker: Linker, images: Source, count: int, batch_size: int) -> ImageRows:
    """Embed the first `count` images or stored features of a source."""
    model = linker.model
    if not isinstance(model, SpatialEmbedding):
        return ImageRows(linker.encode_source(images, count, batch_size=batch_size), None)
    shape = linker.region_shape
    assert shape is not None
    rows = [np.empty((0, model.dimensions), np.float32)]
    packed = [np.empty((0, shape.bytes), np.uint8)]
    for features in linker.stream_features(images, count, batch_size=batch_size):
        with torch.inference_mode():
            regions = model.regions(features)
            rows.append(model.pool(regions).cpu().numpy())
            packed.append(pack(regions.cpu()))
    return ImageRows(np.concatenate(rows), np.concatenate(packed))
