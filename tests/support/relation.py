"""Texts about images of one colour that are true or false, and runs trained on them once."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import train
from tests.support.tiny import COLOURS

COUNTS = {"train": 48, "val": 16, "test": 8}
HEADS = "cmi=0,0.5,1 sc=-1,1"
PLAIN = (
    "--system relation --image-size 32 --workers 0 --device cpu --precision float32 --no-curves "
    "--word-size 16 --sentence-size 32 --article-size 48 --support-groups 4 --head-size 16 "
    "--thumbnail-size 8 --batch-size 8 --text-min-count 1 --average 0.9 --dropout 0 "
    "--image-dropout 0"
).split()
PLAIN += ["--heads", HEADS]
CLASSIFIER = (
    "--epochs 16 --patience 16 --learning-rate 0.01 --encoder-learning-rate 0.005 "
    "--average 0.8 --weight-decay 0.01"
).split()
AUTOENCODER = "--recipe autoencoder --epochs 6 --learning-rate 0.01 --heatmaps 2".split()


def texts(colour: str, rng: random.Random) -> list[dict]:
    """Texts about an image of this colour, with their labels."""
    others = [name for name in COLOURS if name != colour]
    false, second, third = rng.sample(others, 3)
    pairs = [[colour, colour], [colour, false], [second, third]]
    rows = [{"text": f"It is {colour}.\nOne sees {colour} here.", "source": "pairs"}]
    for value, named in zip((1, 0.5, 0), pairs, strict=True):
        rng.shuffle(named)
        sentences = [f"it is {named[0]}", f"one sees {named[1]} here"]
        rows.append({"text": sentences, "labels": {"cmi": value}, "source": "two"})
    for value, name in ((1, colour), (-1, rng.choice(others))):
        rows.append({"text": f"The image is {name}.", "labels": {"sc": value}, "source": "one"})
    return rows


def write(root: Path) -> Path:
    """Write relations.jsonl and its images; the files are always the same."""
    noise, rng, rows = np.random.default_rng(0), random.Random(0), []
    root.mkdir()
    for split, count in COUNTS.items():
        for i in range(count):
            colour, name = list(COLOURS)[i % len(COLOURS)], f"{split}-{i}.png"
            pixels = COLOURS[colour] + noise.normal(0, 10, (24, 24, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / name)
            rows += [{"image": name, "split": split, **row} for row in texts(colour, rng)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (root / "relations.jsonl").write_text(lines, encoding="utf-8")
    return root


def data(factory: pytest.TempPathFactory) -> Path:
    """Return the directory of the texts and images, which is written once per session."""
    root = factory.getbasetemp() / "relations"
    return root if root.exists() else write(root)


def run(factory: pytest.TempPathFactory, name: str = "relation") -> Path:
    """Return a run, trained once: "relation" or "autoencoder"; tests must not write into it."""
    base = factory.getbasetemp()
    directory = base / "checkpoints" / name
    if not directory.exists():
        options = AUTOENCODER if name == "autoencoder" else CLASSIFIER
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(base)
            train.main([*PLAIN, "--data", str(data(factory)), "--run", name, *options])
    return directory
