"""Sampling the demo's scenes; some combinations occur in only one split."""

import random
from itertools import chain, combinations, product
from typing import NamedTuple

from PIL import Image

from .captions import describe
from .shapes import COLORS, GAP, KINDS, SIDE, SIZES, TEXTURES, Box, DrawnShape, draw_shape

MARGIN = 2  # minimum distance of a shape to the edge of the image, in pixels
PLACEMENTS = 100  # attempts to place a scene's shapes before new ones are drawn

Combination = tuple[str, str, str]  # kind, colour, texture
Look = tuple[str, str, str, str]  # kind, colour, size, texture

# Number of identical shapes in each group of a scene, and its relative frequency.
GROUP_SIZES = {(1,): 9, (1, 1): 5, (2,): 2, (3,): 2, (2, 1): 1, (1, 1, 1): 1}


def _hold_out() -> dict[str, list[Combination]]:
    """Return the combinations that occur only in val or only in test: 9 each out of 108.

    Among these 18, each kind occurs once with each texture, and never twice in the same colour.
    """
    held_out: dict[str, list[Combination]] = {"train": [], "val": [], "test": []}
    for (i, kind), (k, texture) in product(enumerate(KINDS), enumerate(TEXTURES)):
        j = (k - i) % 6
        held_out["test" if j % 2 else "val"].append((kind, tuple(COLORS)[j], texture))
    return held_out


HELD_OUT = _hold_out()
SEEN = sorted({*product(KINDS, COLORS, TEXTURES)} - {*HELD_OUT["val"], *HELD_OUT["test"]})


class Scene(NamedTuple):
    """The shapes of an image, their RGBA stamps in the same order, and its captions."""

    shapes: list[DrawnShape]
    stamps: list[Image.Image]
    captions: list[str]


def sample_scene(rng: random.Random, split: str) -> Scene:
    """Draw the shapes of a scene of `split`, including a held-out combination if the split has any.

    The groups of a scene differ in both kind and colour, shapes do not overlap, and the captions
    are unambiguous.
    """
    counts = rng.choices(tuple(GROUP_SIZES), tuple(GROUP_SIZES.values()))[0]
    while True:
        looks = _sample_looks(rng, split, len(counts))
        if looks is None:
            continue
        groups_of_stamps = [
            [draw_shape(rng, *look) for _ in range(count)]
            for look, count in zip(looks, counts, strict=True)
        ]
        for _ in range(PLACEMENTS):  # some shapes rarely fit, so attempts are limited
            groups = [
                [_place(rng, look, stamp) for stamp in stamps]
                for look, stamps in zip(looks, groups_of_stamps, strict=True)
            ]
            shapes = list(chain.from_iterable(groups))
            if all(_separate(a.box, b.box) for a, b in combinations(shapes, 2)):
                captions = describe(groups)
                if captions:
                    return Scene(shapes, list(chain.from_iterable(groups_of_stamps)), captions)


def _sample_looks(rng: random.Random, split: str, count: int) -> list[Look] | None:
    """Sample a look for each of `count` groups; return None if two share a kind or a colour."""
    combinations = rng.sample(SEEN, count)
    if HELD_OUT[split]:
        combinations[rng.randrange(count)] = rng.choice(HELD_OUT[split])
    kinds, colors, _ = zip(*combinations, strict=True)
    if len(set(kinds)) < count or len(set(colors)) < count:
        return None
    return [
        (kind, color, rng.choice(tuple(SIZES)), texture) for kind, color, texture in combinations
    ]


def _place(rng: random.Random, look: Look, stamp: Image.Image) -> DrawnShape:
    """Return a shape with this look and the stamp's size at a random position in the image."""
    x, y = (rng.randint(MARGIN, SIDE - MARGIN - length) for length in stamp.size)
    return DrawnShape(*look, (x, y, x + stamp.width, y + stamp.height))


def _separate(a: Box, b: Box) -> bool:
    return max(b[0] - a[2], a[0] - b[2], b[1] - a[3], a[1] - b[3]) >= GAP
