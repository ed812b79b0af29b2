"""Synthetic JPEG files that cost as much to open as photographs."""

from pathlib import Path

import numpy as np
from PIL import Image


def draw_images(directory: Path, count: int, width: int = 640, height: int = 480) -> list[Path]:
    """Draw smooth colours with fine noise, in about as many bytes as a photograph of that size."""
    noise = np.random.default_rng(0)
    paths = []
    for number in range(count):
        coarse = Image.fromarray(noise.integers(0, 255, (12, 16, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float32)
        grain = noise.normal(0, 8, (height, width, 1))
        pixels = (smooth + grain).clip(0, 255).astype(np.uint8)
        paths.append(directory / f"{number:05}.jpg")
        Image.fromarray(pixels).save(paths[-1], quality=90)
    return paths
