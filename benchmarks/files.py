"""From JPEG files to captions, decoded whole and at a reduced size: python -m benchmarks.files.

The stages run one after the other in one thread, and their processor time is measured. In the
pipeline, the next files are opened while the model runs.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks import measure
from captioner.captioner import Captioner
from captioner.data.image_paths import find_images
from captioner.data.images import Transform
from captioner.data.sources import InputSource
from captioner.decoding.decode import decode
from captioner.decoding.options import DecodingOptions
from captioner.devices import products_in
from captioner.products import decoding_in

BATCH = 32
BEAM = 3
STAGES = ("open", "encode", "search")


class WholeFiles(Transform):
    """A transform for which every file is decoded at its own size."""

    least = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("directories", nargs="+", type=Path, help="directories of JPEG files")
    parser.add_argument("--checkpoint", required=True, help="run or checkpoint")
    parser.add_argument("--count", type=int, help="first files of each directory [all]")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--rounds", type=int, default=5)
    argv = parser.parse_args()
    captioner = Captioner.from_pretrained(argv.checkpoint, "cpu", argv.precision)
    rows = [
        row
        for directory in argv.directories
        for row in compare(captioner, find_images([str(directory)])[: argv.count], argv.rounds)
    ]
    head = ["files", *(f"{stage}, ms" for stage in STAGES), "images per processor second"]
    print(measure.table([*head, "images/s of the pipeline", "captions changed"], rows))
    print(f"\nBeam {BEAM}, precision {argv.precision}. {measure.machine(torch.device('cpu'))}")


def compare(captioner: Captioner, files: Sequence[str], rounds: int) -> list[list[object]]:
    """Return one row for files decoded whole and one for reduced decoding; they take turns."""
    reduced = captioner.transform
    transforms = {"whole": WholeFiles(**asdict(reduced)), "reduced": reduced}
    times: dict[str, list[dict[str, float]]] = {name: [] for name in transforms}
    texts: dict[str, list[str]] = {}
    for number in range(rounds + 1):
        for name, captioner.transform in transforms.items():
            found, texts[name] = run(captioner, files)
            if number:  # the first round is a warm-up
                times[name].append(found)
    captioner.transform = reduced
    medians = {
        name: {key: median(each[key] for each in all_of) for key in all_of[0]}
        for name, all_of in times.items()
    }
    rows: list[list[object]] = []
    for name, taken in medians.items():
        row: list[object] = [f"{len(files)} of {Path(files[0]).parent.name}, {name}"]
        row += [taken[stage] for stage in STAGES]
        for unit in ("processor", "wall"):
            over = medians["whole"][unit] / taken[unit]
            row.append(f"{1000 / taken[unit]:.1f} ({over:.2f}x)")
        changed = sum(a != b for a, b in zip(texts["whole"], texts[name], strict=True))
        rows.append([*row, measure.share(changed, len(files))])
    return rows


def run(captioner: Captioner, files: Sequence[str]) -> tuple[dict[str, float], list[str]]:
    """Return milliseconds per image, of each stage and of the pipeline, and the captions."""
    source, device = InputSource(files, captioner.transform, "stop"), captioner.device
    options, spent = DecodingOptions(beam_size=BEAM), dict.fromkeys(STAGES, 0.0)

    def timed(stage: str, work: Callable[..., Any], *arguments: object) -> Any:
        started = time.process_time()
        result = work(*arguments)
        spent[stage] += time.process_time() - started
        return result

    for first in range(0, len(files), BATCH):
        images = timed("open", source.load, range(first, min(first + BATCH, len(files))))
        with torch.inference_mode():
            with products_in(captioner.precision, device):
                maps = timed("encode", captioner.model.encoder, images)
            with decoding_in(captioner.precision, device):
                timed("search", decode, captioner.model, maps.float(), options)
    started, processor = time.perf_counter(), time.process_time()
    captions = captioner.caption(files, batch_size=BATCH, beam_size=BEAM)
    spent["wall"] = time.perf_counter() - started
    spent["processor"] = time.process_time() - processor
    per_image = {key: 1000 * taken / len(files) for key, taken in spent.items()}
    return per_image, [each.text for each in captions]


if __name__ == "__main__":
    main()
