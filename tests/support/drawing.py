"""Synthetic images and attention maps for tests of drawings."""

import numpy as np
from PIL import Image, ImageDraw

WORDS = "a red ball on the grass".split()


def draw(width: int = 120, height: int = 90, background: str = "green") -> Image.Image:
    """An image with a red ellipse left of its centre."""
    image = Image.new("RGB", (width, height), background)
    ImageDraw.Draw(image).ellipse((width // 4, height // 4, width // 2, height // 2), fill="red")
    return image


def maps(count: int, height: int = 7, width: int = 7) -> np.ndarray:
    """Random attention maps (count, height, width), each summing to 1."""
    weights = np.random.default_rng(0).dirichlet(np.full(height * width, 0.3), count)
    return weights.reshape(count, height, width).astype(np.float32)
