"""Drawing the demo's shapes and backgrounds.

Boxes are (x0, y0, x1, y1) in pixels; x points right, y points down; x1 and y1 are exclusive.
"""

import math
import random
from dataclasses import dataclass
from itertools import product

import numpy as np
from PIL import Image, ImageDraw

SIDE = 128  # side length of an image in pixels
GAP = 8  # minimum distance between two shapes, in pixels
SIZES = {"small": (28, 32), "large": (48, 54)}  # range of the box's longer side, in pixels
TEXTURES = ("solid", "striped", "dotted")
LIGHT, DARK = (250, 250, 250), (25, 25, 25)
COLORS = {  # fill colour, and colour of the stripes and dots
    "red": ((220, 35, 40), LIGHT),
    "green": ((25, 150, 60), LIGHT),
    "blue": ((35, 85, 225), LIGHT),
    "yellow": ((250, 220, 30), DARK),
    "purple": ((145, 50, 180), LIGHT),
    "orange": ((250, 130, 15), DARK),
}
KINDS = ("circle", "square", "triangle", "star", "cross", "heart")
PLURALS = {kind: "crosses" if kind == "cross" else kind + "s" for kind in KINDS}

Box = tuple[int, int, int, int]
Rgb = tuple[int, int, int]


@dataclass(frozen=True)
class DrawnShape:
    """A shape in an image; `box` is the smallest box around its pixels."""

    kind: str
    color: str
    size: str
    texture: str
    box: Box


def _outline(kind: str) -> list[tuple[float, float]]:
    """Return the corners of a shape around the origin at an arbitrary scale; y points down."""
    turn = [2 * math.pi * i / 60 for i in range(60)]
    if kind == "circle":
        return [(math.cos(a), math.sin(a)) for a in turn]
    if kind == "square":
        return [(-1, -1), (1, -1), (1, 1), (-1, 1)]
    if kind == "triangle":
        return [(0, -1), (1, 0.8), (-1, 0.8)]
    if kind == "star":
        radii = (1, 0.5) * 5
        return [(r * math.sin(a), -r * math.cos(a)) for r, a in zip(radii, turn[::6], strict=True)]
    if kind == "cross":
        quarter = [(0.38, -1), (0.38, -0.38), (1, -0.38)]
        turned = [quarter]
        for _ in range(3):
            turned.append([(-y, x) for x, y in turned[-1]])
        return [point for corner in turned for point in corner]
    # Heart curve: x = 16 sin^3 a, y = 13 cos a - 5 cos 2a - 2 cos 3a - cos 4a.
    bumps = ((13, 1), (-5, 2), (-2, 3), (-1, 4))
    return [(16 * math.sin(a) ** 3, -sum(c * math.cos(n * a) for c, n in bumps)) for a in turn]


def draw_shape(rng: random.Random, kind: str, color: str, size: str, texture: str) -> Image.Image:
    """Draw one slightly rotated shape as an RGBA image, cropped to its pixels."""
    angle, longest = rng.uniform(-0.2, 0.2), rng.uniform(*SIZES[size])
    cos, sin = math.cos(angle), math.sin(angle)
    rotated = np.array(_outline(kind)) @ [[cos, sin], [-sin, cos]]
    low, high = rotated.min(axis=0), rotated.max(axis=0)
    middle = math.ceil(longest)  # centre of a square drawn at twice the resolution
    corners = middle + (rotated - (low + high) / 2) * 2 * longest / max(high - low)
    points = [tuple(corner) for corner in corners.tolist()]

    paint = tuple(channel + rng.randint(-8, 5) for channel in COLORS[color][0])
    stamp = Image.new("RGB", (2 * middle, 2 * middle), paint)
    draw = ImageDraw.Draw(stamp)
    step = 12 if size == "small" else 17
    _draw_texture(rng, draw, texture, COLORS[color][1], middle, step)
    draw.line([*points, *points[:2]], fill=paint, width=4, joint="curve")  # a rim of one pixel
    mask = Image.new("L", stamp.size)
    ImageDraw.Draw(mask).polygon(points, fill=255)
    stamp.putalpha(mask)
    stamp = stamp.reduce(2)
    return stamp.crop(stamp.getchannel("A").getbbox())


def _draw_texture(
    rng: random.Random, draw: ImageDraw.ImageDraw, texture: str, ink: Rgb, middle: int, step: int
) -> None:
    """Draw diagonal stripes, a hexagonal grid of dots centred on a dot, or nothing for "solid".

    step: distance between two stripes or dots, in pixels of the drawing, which has twice the
    resolution of the shape.
    """
    reach = range(-2 * middle // step, 2 * middle // step + 1)
    if texture == "striped":
        far, slope = 2 * middle, rng.choice((-1, 1))
        for i in reach:  # sqrt(2) along x makes the perpendicular distance one step
            x = middle + i * step * math.sqrt(2)
            ends = (x - far, middle - slope * far, x + far, middle + slope * far)
            draw.line(ends, fill=ink, width=step // 2)
    elif texture == "dotted":
        for i, j in product(reach, reach):
            px, py = middle + (i + j % 2 / 2) * step, middle + 0.87 * j * step  # 0.87: sqrt(3) / 2
            r = 0.27 * step
            draw.ellipse((px - r, py - r, px + r, py + r), fill=ink)


def draw_background(rng: random.Random) -> Image.Image:
    """Draw a nearly grey background: flat, a gradient or soft noise; light, medium or dark."""
    tone = rng.choice(((205, 235), (120, 160), (25, 60)))
    level, tint = rng.uniform(*tone), [rng.uniform(-7, 7) for _ in range(3)]
    nodes, swing = rng.choice(((2, 0), (2, 20), (9, 16)))
    coarse = Image.new("RGB", (nodes, nodes))
    for x, y in product(range(nodes), range(nodes)):
        shade = level + rng.uniform(-swing, swing)
        coarse.putpixel((x, y), tuple(round(min(max(shade + t, 0), 255)) for t in tint))
    inside = (0.5, 0.5, nodes - 0.5, nodes - 0.5)
    return coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=inside)
