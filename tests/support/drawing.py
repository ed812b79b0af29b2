"""Images with known maps, for tests of what is drawn over them."""

import numpy as np
from PIL import Image, ImageDraw

WORDS = "a red ball on the grass".split()


def draw(width: int = 120, height: int = 90, background: str = "green") -> Image.Image:
    image = Image.new("RGB", (width, height), background)
    ImageDraw.Draw(image).ellipse((width // 4, height // 4, width // 2, height // 2), fill="red")
    return image


def maps(count: int, height: int = 7, width: int = 7) -> np.ndarray:
    shares = np.random.default_rng(0).dirichlet(np.full(height * width, 0.3), count)
    return shares.reshape(count, height, width).astype(np.float32)
