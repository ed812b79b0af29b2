"""Region embeddings of images, packed into rows of bytes, from which label maps are computed.

A row has a scale for each region, in half precision, followed by the values of all embeddings as
8-bit integers: value = scale * integer. The scale is the region's largest absolute value / 127, but
at least 2^-14, the smallest normal number in half precision.

Shapes: n images, K blocks, E embedding dimensions, (h, w) grid, R bytes of a row.
"""

import numpy as np
import torch
from torch import Tensor

from .index_files import RegionShape

LEVELS = 127


def pack(regions: Tensor) -> np.ndarray:
    """Pack region embeddings (n, K, E, h, w) into rows (n, R), uint8."""
    flat = regions.flatten(3).transpose(2, 3).flatten(1, 2).float()  # (n, K * h * w, E)
    scales = (flat.abs().amax(2, keepdim=True) / LEVELS).clamp_min(2**-14).half()
    values = (flat / scales.float()).round().clamp(-LEVELS, LEVELS).to(torch.int8)
    parts = [part.numpy().reshape(len(flat), -1).view(np.uint8) for part in (scales, values)]
    return np.concatenate(parts, axis=1)


def unpack(rows: np.ndarray, shape: RegionShape) -> Tensor:
    """Unpack rows (n, R) into region embeddings (n, K, E, h, w), float32."""
    split = 2 * shape.regions
    scales = np.ascontiguousarray(rows[:, :split]).view(np.float16)
    values = np.ascontiguousarray(rows[:, split:]).view(np.int8)
    flat = torch.from_numpy(values).float().reshape(len(rows), shape.regions, shape.dimensions)
    flat *= torch.from_numpy(scales.astype(np.float32))[..., None]
    blocks = flat.reshape(len(rows), shape.blocks, shape.height, shape.width, shape.dimensions)
    return blocks.permute(0, 1, 4, 2, 3)
