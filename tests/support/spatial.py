"""A run of the spatial embedding on images of two colours side by side, trained once per session.

Captions name both colours, so that the model has to find out which of them is where.
"""

import json
import random
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import train

COLOURS = {"red": (220, 30, 30), "green": (30, 180, 40), "blue": (40, 60, 230)}
COUNTS = {"train": 72, "val": 12, "test": 6}
SIDE = 32
OPTIONS = (
    "--system spatial --image-size 128 --text-min-count 1 --min-images 1 --text-dimensions 16 "
    "--workers 0 --device cpu --precision float32 --no-curves --epochs 8 --patience 8 "
    "--batch-size 12 --learning-rate 0.01 --encoder-learning-rate 0.01 --average 0 --heatmaps 1"
).split()


def halves(left: str, right: str, noise: np.random.Generator) -> Image.Image:
    """An image whose halves have two colours."""
    pixels = np.empty((SIDE, SIDE, 3))
    pixels[:, : SIDE // 2], pixels[:, SIDE // 2 :] = COLOURS[left], COLOURS[right]
    pixels += noise.normal(0, 8, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write(root: Path) -> Path:
    """Write a COCO directory; the files are always the same."""
    noise, rng = np.random.default_rng(0), random.Random(0)
    pairs = [*permutations(COLOURS, 2), *((colour, colour) for colour in COLOURS)]
    (root / "annotations").mkdir(parents=True)
    for number, (split, count) in enumerate(COUNTS.items()):
        (root / split).mkdir()
        images, annotations = [], []
        for i in range(count):
            pair, image_id = pairs[i % len(pairs)], 100 * number + i
            name = f"{image_id}-{pair[0]}-{pair[1]}.png"
            halves(*pair, noise).save(root / split / name)
            images.append({"id": image_id, "file_name": name})
            for k in range(2):
                caption = " and ".join(rng.sample(sorted(set(pair)), len(set(pair))))
                entry = {"id": 10 * image_id + k, "image_id": image_id}
                annotations.append({**entry, "caption": caption})
        content = json.dumps({"images": images, "annotations": annotations})
        (root / "annotations" / f"captions_{split}.json").write_text(content)
    return root


def data(factory: pytest.TempPathFactory) -> Path:
    """Return the directory of the images, which is written once per session."""
    root = factory.getbasetemp() / "halves"
    return root if root.exists() else write(root)


def run(factory: pytest.TempPathFactory) -> Path:
    """Return the last checkpoint of a run on the images, trained once; tests must not change it.

    The first epochs already label all images correctly, but their maps do not show the halves.
    """
    base = factory.getbasetemp()
    directory = base / "checkpoints" / "spatial"
    if not directory.exists():
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(base)
            train.main(["--data", str(data(factory)), "--run", "spatial", *OPTIONS])
    return directory / "last"
