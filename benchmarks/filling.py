"""Filling the feature store and an index beside the encoder alone: python -m benchmarks.filling.

`captioner index` loads the model, computes the features that it reads (pooled, or maps) through a
store and embeds them. Every round begins with an empty store and an empty index.
"""

import argparse
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks import measure
from captioner.data.image_paths import find_images
from captioner.data.sources import ImageSource
from captioner.data.storage.files import parse_location
from captioner.inference.indexing import IndexOptions, index_images
from captioner.linker import Linker
from captioner.vision.encoders import Encoder
from captioner.vision.feature_store import FeatureStore, Runtime

BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("directory", type=Path, help="directory of images")
    parser.add_argument("--checkpoint", required=True, help="joint or other linking model")
    parser.add_argument("--count", type=int, default=512, help="number of images")
    parser.add_argument("--workers", type=int, default=2, help="threads that open images")
    parser.add_argument("--rounds", type=int, default=5)
    argv = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    run = Path(argv.checkpoint)
    linker = Linker.from_pretrained(run, device)
    paths = find_images([str(argv.directory)])[: argv.count]
    with tempfile.TemporaryDirectory() as place:
        cases = works(run, linker, paths, Path(place), Runtime(device, argv.workers, BATCH))
        times = measure.side_by_side(cases, argv.rounds, device)
    alone = times["encoder alone"]
    rows = [
        [
            name,
            f"{1000 * taken / len(paths):.1f}",
            f"{len(paths) / taken:.1f}",
            f"{alone / taken:.0%}",
        ]
        for name, taken in times.items()
    ]
    head = ["work", "ms per image", "images/s", "rate over that of the encoder alone"]
    print(measure.table(head, rows))
    print(f"\n{len(paths)} images, opened by {argv.workers} threads. {measure.machine(device)}")


def works(
    run: Path, linker: Linker, paths: Sequence[str], place: Path, runtime: Runtime
) -> dict[str, Callable[[], object]]:
    """Return what is timed, from files that were read before."""
    encoder = linker.model.encoder
    assert isinstance(encoder, Encoder)
    source = ImageSource([parse_location(path) for path in paths], linker.transform)
    starts = range(0, len(paths), BATCH)
    batches = [source.load(range(i, min(i + BATCH, len(paths)))) for i in starts]

    def encode() -> None:
        with torch.inference_mode():
            for pixels in batches:
                encoder(pixels.to(runtime.device))

    def open_images() -> None:
        for first in starts:
            source.load(range(first, min(first + BATCH, len(paths))))

    def fill(kind: str) -> None:
        shutil.rmtree(place / "cache", ignore_errors=True)
        FeatureStore(place / "cache", encoder, linker.transform).open_files(source, runtime, kind)

    def fill_index() -> None:
        for name in ("cache", "index"):
            shutil.rmtree(place / name, ignore_errors=True)
        options = IndexOptions(
            cache=place / "cache",
            batch_size=BATCH,
            workers=runtime.workers,
            device=str(runtime.device),
        )
        index_images(run, list(paths), place / "index", options)

    return {
        "encoder alone": encode,
        "opening alone, one thread": open_images,
        "feature store, maps": partial(fill, "maps"),
        "feature store, pooled": partial(fill, "pooled"),
        "index": fill_index,
    }


if __name__ == "__main__":
    main()
