"""Refining label maps with the image, so that they follow the edges of objects.

Shapes: L labels, (h, w) grid of cells, (H, W) pixels of the image, (H', W') grid on which maps are
refined, J neighbours, C channels.
"""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from .plots.overlays import upsample

SIDE = 64  # maximum width and height of the grid (H', W')
DISTANCES = (1, 2, 4, 8, 12)  # of neighbours, in pixels of this grid; there are 8 at each distance
ROUNDS = 120
CONTRAST = 0.1  # difference of colours, in standard deviations, that divides a weight by e


def refine(maps: np.ndarray, image: Image.Image, offset: float = 0.0) -> np.ndarray:
    """Return maps (L, h, w) interpolated to the pixels of an RGB image, along its edges (L, H, W).

    maps: values in [0, 1]. They are interpolated to the grid (H', W'), where each value is
    replaced, ROUNDS times, by the mean of its neighbours, weighted by how similar their colours are
    (PAMR, Araslanov and Roth 2020, equations 4 to 6). A map is then scaled so that its maximum on
    this grid is the same as before: a value remains a probability, and the map of an absent label
    stays dark. offset: position of a cell's value, as in `Encoder.offset`.
    """
    scale = min(1, SIDE / max(image.size))
    width, height = (max(1, round(scale * length)) for length in image.size)
    small = image.resize((width, height), Image.Resampling.BOX)
    colors = torch.from_numpy(np.array(small, np.float32) / 255).permute(2, 0, 1)  # (C, H', W')
    values = torch.from_numpy(upsample(maps, (height, width), offset)).float()  # (L, H', W')
    refined = _diffuse(values, _affinities(colors))
    peaks, now = (each.amax((1, 2), keepdim=True) for each in (values, refined))
    refined = (refined * (peaks / now.clamp_min(1e-12)))[None]
    size = (image.height, image.width)
    pixels: np.ndarray = F.interpolate(refined, size, mode="bilinear")[0].clamp(0, 1).numpy()
    return pixels


def _neighbours(values: Tensor, distance: int) -> Tensor:
    """Return the 8 neighbours, at a distance, of each pixel of values (C, H', W'): (8, C, H', W').

    Beyond the edges, the pixels at the edges are repeated.
    """
    height, width = values.shape[1:]
    padded = F.pad(values[None], (distance,) * 4, mode="replicate")[0]
    steps = (0, distance, 2 * distance)
    return torch.stack(
        [
            padded[:, y : y + height, x : x + width]
            for y in steps
            for x in steps
            if (y, x) != (distance, distance)
        ]
    )


def _affinities(colors: Tensor) -> Tensor:
    """Return the weights (J, H', W') of the neighbours of each pixel; they sum to 1 over J.

    colors (C, H', W'): colours of the pixels.
    """
    around = torch.cat([_neighbours(colors, distance) for distance in DISTANCES])  # (J, C, H', W')
    deviation = torch.cat([around, colors[None]]).std(0, keepdim=True)
    differences = (around - colors).abs() / (CONTRAST * deviation + 1e-8)
    return (-differences.mean(1)).softmax(0)


def _diffuse(maps: Tensor, weights: Tensor) -> Tensor:
    """Average maps (L, H', W') over the neighbours of each pixel, ROUNDS times.

    weights (J, H', W'): those of `_affinities`.
    """
    parts = list(zip(DISTANCES, torch.split(weights, 8), strict=True))
    for _ in range(ROUNDS):
        averaged = torch.zeros_like(maps)
        for distance, own in parts:
            averaged += (own[:, None] * _neighbours(maps, distance)).sum(0)
        maps = averaged
    return maps
