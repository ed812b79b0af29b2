"""A data set of plain colours and runs on it, small enough to be made by every test session.

Sixteen images are for training, seven for validation, three for testing; a run learns in two
seconds to name their colours.
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
LEARNING = (  # a rate at which each of five seeds learned
    f"{SIZES} {PLAIN} --hidden-size 64 --embedding-size 64 --epochs 20 --patience 20 "
    "--batch-size 8 --learning-rate 0.02 --encoder-learning-rate 0.003 --clip 1 "
    "--dropout 0 --label-smoothing 0 --watch cider"  # BLEU is content with one caption for all
).split()


def write_colours(root: Path) -> Path:
    """A COCO directory; the same files each time."""
    noise = np.random.default_rng(0)
    (root / "annotations").mkdir(parents=True)
    for number, (split, count) in enumerate(COUNTS.items()):
        (root / split).mkdir()
        images, annotations = [], []
        for i in range(count):
            identity, colour = 100 * number + i, list(COLOURS)[i % len(COLOURS)]
            pixels = COLOURS[colour] + noise.normal(0, 10, (24, 36, 3))
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            image.save(root / split / f"{identity}.png")
            images.append({"id": identity, "file_name": f"{identity}.png"})
            more = " at all" * (i % 3 == 0)  # images differ in how many words they have
            for k, rest in enumerate(["is all one sees here", "and nothing else" + more]):
                caption = {"id": 10 * identity + k, "image_id": identity}
                annotations.append({**caption, "caption": f"{colour} {rest}"})
        content = json.dumps({"images": images, "annotations": annotations})
        (root / "annotations" / f"captions_{split}.json").write_text(content)
    return root


def write_shards(root: Path, colours: Path, each: int = 4) -> Path:
    """The same images and captions in tar files: `each` of training's in one."""
    for split in COUNTS:
        content = json.loads((colours / "annotations" / f"captions_{split}.json").read_text())
        captions: dict[int, list[str]] = {}
        for row in content["annotations"]:
            captions.setdefault(row["image_id"], []).append(row["caption"])
        samples = list(captions.items())
        step = each if split == "train" else len(samples)
        for number, first in enumerate(range(0, len(samples), step)):
            members = []
            for identity, several in samples[first : first + step]:
                image = (colours / split / f"{identity}.png").read_bytes()
                text = "".join(f"{caption}\n" for caption in several).encode()
                members += [(f"{identity}.png", image), (f"{identity}.txt", text)]
            write_tar(root / f"{split}-{number:02}.tar", members)
    return root


def untimed(row: dict) -> dict:
    """A row of a log without what is another in each run: times and memory."""
    changing = ("second", "waiting", "memory")
    return {k: v for k, v in row.items() if not any(part in k for part in changing)}


def data(factory: pytest.TempPathFactory) -> Path:
    """The colours, written once."""
    root = factory.getbasetemp() / "colours"
    return root if root.exists() else write_colours(root)


def run(factory: pytest.TempPathFactory, *, attention: bool) -> Path:
    """A run that has learned the colours, trained once; tests must not write into it."""
    base, name = factory.getbasetemp(), "attention" if attention else "plain"
    directory = base / "checkpoints" / name
    if not directory.exists():
        kind = ["--attention"] if attention else []
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(base)
            train.main(["--data", str(data(factory)), "--run", name, *LEARNING, *kind])
    return directory
