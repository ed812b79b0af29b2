"""Resident memory and speed as batches of new sizes arrive: python -m benchmarks.memory.

Every setting runs in a process of its own, because memory that one setting leaves would count for
the next. To compare two versions, run this program in a checkout of each.
"""

import argparse
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch.optim import AdamW

from benchmarks import measure
from benchmarks.setting import SIZES, Sizes, build, draw_batch, draw_features, forced, vary
from captioner.decoding.decode import decode
from captioner.devices import products_in
from captioner.products import decoding_in
from captioner.tasks.options import TrainingOptions
from captioner.training.loop import train_step
from captioner.training.optimization import parameter_groups
from captioner.vision.encoders import build_encoder

SETTINGS = ("train", "train-plain", "caption", "encode")
FULL_STEPS = {"train": 2000, "train-plain": 2000, "caption": 10_000, "encode": 500}
LARGEST_REQUEST = 32  # images, as in the service
MARKS = (1, 50, 200, 500, 1000, 2000, 5000, 10_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=["train"])
    parser.add_argument("--vocabulary", nargs="+", type=int, default=[10_000], help="words")
    parser.add_argument("--steps", type=int, default=50, help="batches or requests (default: 50)")
    parser.add_argument("--images", type=int, default=32, help="images per batch (default: 32)")
    parser.add_argument("--full", action="store_true", help="all settings, 500 to 10,000 steps")
    parser.add_argument("--precision", default="auto", help="as in captioner [auto]")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    argv = parser.parse_args()
    if argv.child:
        follow(argv.settings[0], argv.vocabulary[0], argv.steps, argv.precision, argv.images)
        return
    vocabularies = [10_000, 30_000] if argv.full else argv.vocabulary
    for setting in SETTINGS if argv.full else argv.settings:
        steps = FULL_STEPS[setting] if argv.full else argv.steps
        for words in vocabularies:
            print(f"### {setting}, {words:,} words, {argv.precision}\n", flush=True)
            options = ["--settings", setting, "--vocabulary", str(words), "--steps", str(steps)]
            options += ["--images", str(argv.images)]
            run = [sys.executable, "-m", "benchmarks.memory", "--child", *options]
            subprocess.run([*run, "--precision", argv.precision], check=True)
            print(flush=True)


def follow(setting: str, vocabulary: int, steps: int, precision: str, images: int) -> None:
    """Print a row of the table at each mark: memory, and speed since the previous mark."""
    sizes = vary(SIZES, vocabulary=vocabulary)
    match setting:
        case "caption":
            work = captioning(sizes, precision)
        case "encode":
            work = encoding(precision)
        case _:
            work = training(sizes, precision, images, attention=setting == "train")
    print("| step | resident MB | steps/s | user CPU ms a step |\n| --- | --- | --- | --- |")
    before, started, used = 0, time.perf_counter(), os.times().user
    for step in range(1, steps + 1):
        work(step)
        if step in MARKS or step == steps:
            count, taken = step - before, time.perf_counter() - started
            cost = 1000 * (os.times().user - used) / count
            print(f"| {step} | {measure.resident():.0f} | {count / taken:.2f} | {cost:.0f} |")
            sys.stdout.flush()
            before, started, used = step, time.perf_counter(), os.times().user


def training(
    sizes: Sizes, precision: str, images: int, *, attention: bool
) -> Callable[[int], object]:
    """Return a training step on images with captions of random lengths, new in every step."""
    cpu = torch.device("cpu")
    model = build(sizes, attention=attention, device=cpu).train()
    options = TrainingOptions(precision=precision)
    optimizer = AdamW(parameter_groups(model, options), fused=True)

    def work(step: int) -> None:
        rng = random.Random(step)
        shortest = rng.randint(6, 12)
        batch = draw_batch(sizes, images, shortest, shortest + rng.randint(0, 12), seed=step)
        train_step(model, optimizer, batch, options, cpu)

    return work


def captioning(sizes: Sizes, precision: str) -> Callable[[int], object]:
    """Return a request of 1 to 32 images' feature maps, with 1 to 5 beams, of random sizes."""
    cpu = torch.device("cpu")
    model = build(sizes, attention=True, device=cpu)
    features = draw_features(sizes, LARGEST_REQUEST, cpu)

    def work(step: int) -> None:
        rng = random.Random(step)
        options = forced(vary(sizes, beams=rng.randint(1, 5), steps=4))
        with torch.inference_mode(), decoding_in(precision, cpu):
            decode(model, features[: rng.randint(1, LARGEST_REQUEST)], options)

    return work


def encoding(precision: str) -> Callable[[int], object]:
    """Return a request of 1 to 32 images of 224 pixels for MobileNetV2, of random sizes."""
    cpu = torch.device("cpu")
    encoder = build_encoder("mobilenet_v2", None, pretrained=False).eval()
    images = torch.rand(LARGEST_REQUEST, 3, 224, 224)

    def work(step: int) -> None:
        with torch.inference_mode(), products_in(precision, cpu):
            encoder(images[: random.Random(step).randint(1, LARGEST_REQUEST)])

    return work


if __name__ == "__main__":
    main()
