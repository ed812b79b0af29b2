"""Masks of the demo's shapes, redrawn from the seed of the data set."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...atomic_io import atomic_directory
from ...errors import InputError
from ..dataset import split_name
from ..masks import CLASSES, IMAGES, MASKS, mask_image
from .dataset import VERSION
from .scenes import Scene, sample_scene
from .shapes import KINDS, SIDE, draw_background

SOLID = 128  # opacity from which a pixel belongs to a shape


def scene_mask(scene: Scene) -> np.ndarray:
    """Return the mask (SIDE, SIDE), uint8, of a scene: 0 for background, i + 1 for KINDS[i]."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    for shape, stamp in zip(scene.shapes, scene.stamps, strict=True):
        x0, y0, x1, y1 = shape.box
        inside = np.asarray(stamp.getchannel("A")) >= SOLID
        mask[y0:y1, x0:x1][inside] = KINDS.index(shape.kind) + 1
    return mask


def draw_masks(root: Path, split: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the file name of each image of a split, and the mask of its scene (see `scene_mask`).

    Raises InputError if `root` is not a demo data set of this version, or if the split is unknown.
    """
    split = split_name(split)
    try:
        about = json.loads((root / "demo.json").read_text(encoding="utf-8"))
        seed, version, count = about["seed"], about["version"], about[split]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{root} is not a demo data set; write one with captioner demo-data"
        ) from error
    if version != VERSION:
        raise InputError(
            f"{root} is version {version} of the demo data, but this version of captioner draws "
            f"version {VERSION}; write the new version to another directory with "
            "captioner demo-data"
        )
    for number in range(1, count + 1):
        rng = random.Random(f"{seed} {split} {number}")
        draw_background(rng)  # it uses the same random numbers as when the image was drawn
        yield f"{number:06}.png", scene_mask(sample_scene(rng, split))


def write_masks(root: Path, split: str, directory: Path) -> None:
    """Write a split's images and masks in Pascal VOC's layout, completely or not at all.

    Raises InputError as `draw_masks` does, and OSError if the directory cannot be written or is not
    empty.
    """
    with atomic_directory(directory, replace=False) as draft:
        for name in (IMAGES, MASKS):
            (draft / name).mkdir()
        (draft / CLASSES).write_text("\n".join(KINDS) + "\n", encoding="utf-8")
        for name, mask in draw_masks(root, split):
            (draft / IMAGES / name).write_bytes((root / split / name).read_bytes())
            mask_image(mask).save(draft / MASKS / name)
