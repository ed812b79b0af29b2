"""A tiny data set of plain colours, and runs trained on it in each test session.

It has 16 images for training, 7 for validation and 3 for testing; a run learns to name their
colours in two seconds.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import train
from tests.support.layouts import write_tar

COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 180, 40),
    "blue": (40, 60, 230),
    "yellow": (240, 230, 40),
    "purple": (150, 40, 190),
    "white": (250, 250, 250),
    "black": (10, 10, 10),
    "grey": (128, 128, 128),
}
COUNTS = {"train": 16, "val": 7, "test": 3}
SIZES = "--hidden-size 16 --embedding-size 16 --image-size 32 --min-count 1"
# Reproducible on every machine, and without the images that take longer than an epoch.
PLAIN = "--workers 0 --precision float32 --device cpu --samples 0 --heatmaps 0 --no-curves"
OPTIONS = f"{SIZES} {PLAIN} --epochs 2 --batch-size 8".split()
# With these rates, each of five seeds learned the colours. CIDEr is watched, because BLEU is high
# even if all captions are the same.
LEARNING = (
    f"{SIZES} {PLAIN} --hidden-size 64 --embedding-size 64 --epochs 20 --patience 20 "
    "--batch-size 8 --learning-rate 0.02 --encoder-learning-rate 0.003 --clip 1 "
    "--dropout 0 --label-smoothing 0 --watch cider"
).split()


def write_colours(root: Path) -> Path:
    """Write a COCO directory; the files are always the same."""
    noise = np.random.default_rng(0)
    (root / "annotations").mkdir(parents=True)
    for number, (split, count) in enumerate(COUNTS.items()):
        (root / split).mkdir()
        images, annotations = [], []
        for i in range(count):
            image_id, colour = 100 * number + i, list(COLOURS)[i % len(COLOURS)]
            pixels = COLOURS[colour] + noise.normal(0, 10, (24, 36, 3))
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            image.save(root / split / f"{image_id}.png")
            images.append({"id": image_id, "file_name": f"{image_id}.png"})
            ending = " at all" * (i % 3 == 0)  # so that captions differ in length
            for k, rest in enumerate(["is all one sees here", "and nothing else" + ending]):
                caption = {"id": 10 * image_id + k, "image_id": image_id}
                annotations.append({**caption, "caption": f"{colour} {rest}"})
        content = json.dumps({"images": images, "annotations": annotations})
        (root / "annotations" / f"captions_{split}.json").write_text(content)
    return root


def write_shards(root: Path, colours: Path, per_shard: int = 4) -> Path:
    """Write the same images and captions as tar files, `per_shard` training images in each."""
    for split in COUNTS:
        content = json.loads((colours / "annotations" / f"captions_{split}.json").read_text())
        captions: dict[int, list[str]] = {}
        for row in content["annotations"]:
            captions.setdefault(row["image_id"], []).append(row["caption"])
        samples = list(captions.items())
        step = per_shard if split == "train" else len(samples)
        for number, first in enumerate(range(0, len(samples), step)):
            members = []
            for image_id, texts in samples[first : first + step]:
                image = (colours / split / f"{image_id}.png").read_bytes()
                text = "".join(f"{caption}\n" for caption in texts).encode()
                members += [(f"{image_id}.png", image), (f"{image_id}.txt", text)]
            write_tar(root / f"{split}-{number:02}.tar", members)
    return root


def untimed(row: dict) -> dict:
    """Return a row of a log without the values that differ between runs: times and memory."""
    varying = ("second", "waiting", "memory")
    return {k: v for k, v in row.items() if not any(part in k for part in varying)}


def data(factory: pytest.TempPathFactory) -> Path:
    """Return the directory of the colours, which is written once per session."""
    root = factory.getbasetemp() / "colours"
    return root if root.exists() else write_colours(root)


def run(factory: pytest.TempPathFactory, *, attention: bool) -> Path:
    """Return a run that has learned the colours, trained once; tests must not write into it."""
    base, name = factory.getbasetemp(), "attention" if attention else "plain"
    directory = base / "checkpoints" / name
    if not directory.exists():
        kind = ["--attention"] if attention else []
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(base)
            train.main(["--data", str(data(factory)), "--run", name, *LEARNING, *kind])
    return directory
