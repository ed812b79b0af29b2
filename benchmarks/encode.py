"""Images per second of file reading, encoders and the cache: python -m benchmarks.encode."""

import argparse
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.optim import AdamW
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import measure
from benchmarks.setting import SIZES, build, draw_batch
from benchmarks.synthetic_images import draw_images
from captioner.data.batches import epoch_order
from captioner.data.images import Transform
from captioner.data.sources import ImageSource
from captioner.devices import products_in
from captioner.prefetch import load_ahead
from captioner.tasks.options import TrainingOptions
from captioner.training.loop import train_step
from captioner.training.optimization import parameter_groups
from captioner.vision.encoders import Encoder, build_encoder
from captioner.vision.feature_store import SEGMENT, FeatureStore, Runtime, keys_of
from captioner.vision.store_files import KEYS, ROWS

ENCODERS = ("mobilenet_v2", "resnet50")
BATCH = 32
COCO = 120_000  # maps; COCO 2014 has about as many images


def main() -> None:
    argv = measure.arguments(__doc__)
    device = measure.device_of(argv)
    encoders(device, argv)
    files(argv.rounds)
    need = training_need(device, argv.rounds)
    cache_of_coco_size(1000 if argv.quick else COCO, need)


def encoders(device: torch.device, argv: argparse.Namespace) -> None:
    """Compare the library's frozen encoder with the plain torchvision one in NCHW layout."""
    batches = [1, BATCH] if device.type == "cpu" else [1, 64, 512]
    print("### Encoders, 224 x 224 pixels, random weights\n")
    for name in ENCODERS:
        torch.manual_seed(0)
        encoder = build_encoder(name).to(device).eval()
        images = torch.rand(max(batches), 3, 224, 224).to(device)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            encoder.layers(images[:1])
        operations = counter.get_total_flops()
        check_agreement(encoder, images[:2])
        cases: dict[str, measure.Work] = {}
        for batch in batches:
            chosen = images[:batch]
            cases[f"plain, batch {batch}"] = partial(plain, encoder, chosen)
            for precision in ("float32", "bfloat16"):
                case = f"library, batch {batch}, {precision}"
                cases[case] = partial(encode, encoder, chosen, precision)
        products, size = measure.matrix_limits(device)
        times = measure.side_by_side({**cases, **products}, argv.rounds, device)
        limit, _ = measure.limits_of(times, size)
        rows = []
        for case, taken in times.items():
            count = int(case.split("batch ")[1].split(",")[0])
            over = times[f"plain, batch {count}"] / taken
            done = measure.share(count * operations / taken, limit)
            peak = measure.peak_memory(cases[case], device)
            rows.append([f"{name}: {case}", count / taken, 1000 * taken, over, done, peak])
        head = ["", "images/s", "ms per batch", "over plain", "share of float32 matrix limit"]
        print(measure.table([*head, "peak MB"], rows) + "\n")


def plain(encoder: Encoder, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return encoder.layers(images)


def encode(encoder: Encoder, images: torch.Tensor, precision: str) -> torch.Tensor:
    with torch.inference_mode(), products_in(precision, images.device):
        return encoder(images)


def check_agreement(encoder: Encoder, images: torch.Tensor) -> None:
    """Exit unless library and plain maps are equal to 1e-4 of the largest value."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        expected, found = plain(encoder, images), encode(encoder, images, "float32")
    difference = ((found - expected).abs().max() / expected.abs().max()).item()
    if not difference < 1e-4:
        raise SystemExit(f"plain and library maps differ by {difference} of the largest value")


def files(rounds: int) -> None:
    """Time opening, decoding and resizing JPEG files, with and without threads."""
    cpu = torch.device("cpu")
    with tempfile.TemporaryDirectory() as directory:
        paths = draw_images(Path(directory), 128)
        source = ImageSource(paths, Transform(224))
        batches = [range(len(paths))[i : i + 16] for i in range(0, len(paths), 16)]
        cases: dict[str, measure.Work] = {
            f"{workers} ahead": partial(read_all, source, batches, workers) for workers in (0, 1, 2)
        }
        times = measure.side_by_side(cases, rounds, cpu)
    print("### JPEG files of 640 x 480 pixels to tensors of 224 x 224\n")
    rows = [[name, 128 / taken, 1000 * taken / 128] for name, taken in times.items()]
    print(measure.table(["threads", "images/s", "ms per image"], rows) + "\n")


def read_all(source: ImageSource, batches: Sequence[range], workers: int) -> int:
    return sum(len(images) for images in load_ahead(source.load, batches, workers))


def training_need(device: torch.device, rounds: int) -> float:
    """Return the images per second that the fastest training step reads from the cache."""
    model = build(SIZES, attention=True, device=device).train()
    batch = draw_batch(SIZES, BATCH, 8, 16).to(device)
    options = TrainingOptions()
    optimizer = AdamW(parameter_groups(model, options), fused=True)
    work = {"": lambda: train_step(model, optimizer, batch, options, device)}
    return BATCH / measure.side_by_side(work, rounds, device)[""]


def cache_of_coco_size(count: int, need: float) -> None:
    """Measure opening, epoch order, random reads and memory of a sparse store of `count` maps."""
    copied = (
        measure.copy_limit(torch.device("cpu")) / 2
    )  # the copy reads and writes; only reading is compared
    with tempfile.TemporaryDirectory() as directory:
        store = FeatureStore(Path(directory), build_encoder("small_cnn"), Transform(224))
        stamps = [f"image {i}".encode() for i in range(count)]
        size = write_sparse_store(store, stamps)
        captions = [[[1] * (8 + (i * 7 + c) % 9) for c in range(5, 0, -1)] for i in range(count)]
        before, own = measure.resident(), measure.resident("RssAnon")
        started = time.perf_counter()
        cache = store.open(ImageSource([], store.transform), stamps, Runtime(torch.device("cpu")))
        opened = time.perf_counter() - started
        started = time.perf_counter()
        order = epoch_order(captions, BATCH, seed=0, epoch=0)
        ordered = time.perf_counter() - started
        rates = {}
        for workers in (0, 1):
            started, read = time.perf_counter(), 0
            for batch in load_ahead(cache.load, order, workers):
                read += len(batch)
            rates[workers] = read / (time.perf_counter() - started)
        bytes_read = max(rates.values()) * size / count
        grown, own = measure.resident() - before, measure.resident("RssAnon") - own
    print(f"### A feature cache of {count:,} images, {size / 1e9:.1f} GB (sparse files)\n")
    rows = [
        ["opened in", f"{1000 * opened:.1f} ms"],
        ["an epoch's order made in", f"{ordered:.2f} s"],
        ["read in that order, no thread", f"{rates[0]:,.0f} images/s"],
        ["read in that order, a thread ahead", f"{rates[1]:,.0f} images/s"],
        ["the fastest training step needs", f"{need:,.0f} images/s"],
        ["read rate over needed rate", f"{max(rates.values()) / need:.0f}x"],
        ["bytes read per second over those of a copy", measure.share(bytes_read, copied)],
        ["memory growth (with order and batches)", f"{grown:,.0f} MB, anonymous {own:,.0f} MB"],
    ]
    print(measure.table(["", ""], rows) + "\n")


def write_sparse_store(store: FeatureStore, stamps: Sequence[bytes]) -> int:
    """Write empty segments for images with these stamps; return the bytes of the maps."""
    side = round(SIZES.positions**0.5)
    store.directory.mkdir(parents=True)
    keys, total = keys_of(stamps), 0
    for first in range(0, len(keys), SEGMENT):
        part = keys[first : first + SEGMENT]
        shape = (len(part), side, side, SIZES.channels)
        np.save(store.directory / f"maps-{first:06}{KEYS}", part)
        with (store.directory / f"maps-{first:06}{ROWS}").open("wb") as maps:
            header = {"descr": "<f2", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(maps, header)
            total += 2 * int(np.prod(shape))
            maps.truncate(maps.tell() + 2 * int(np.prod(shape)))
    return total


if __name__ == "__main__":
    main()
