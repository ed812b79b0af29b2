"""Decoding speed from feature maps in captions per second: python -m benchmarks.decode."""

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import Tensor

from benchmarks import measure, textbook
from benchmarks.setting import (
    SIZES,
    Sizes,
    build,
    draw_features,
    forced,
    vary,
)
from captioner.decoding.decode import decode
from captioner.devices import pick_format
from captioner.models.captioning.build import CaptioningModel
from captioner.models.captioning.ensemble import compile_steps
from captioner.products import decoding_in

BEAMS = (5, 3, 1)
PRECISIONS = ("float32", "bfloat16", "auto")


def main() -> None:
    argv = measure.arguments(__doc__)
    device = measure.device_of(argv)
    process = measure.resident() if device.type == "cpu" else 0.0
    for attention in (True, False):
        compare(attention, device, argv.rounds, argv.compile)
    if not argv.quick:
        memory(device, process)
        growth(device, argv.rounds)


def captions_of(
    model: CaptioningModel, features: Tensor, sizes: Sizes, precision: str
) -> Callable[[], object]:
    def work() -> object:
        with decoding_in(precision, features.device):
            return decode(model, features, forced(sizes))

    return work


def rows_of(features: Tensor) -> Tensor:
    """Convert maps (B, D, h, w) to the textbook's layout (B, P, D)."""
    return features.flatten(2).mT.contiguous()


def check_agreement(model: CaptioningModel, decoder: textbook.Decoder, features: Tensor) -> None:
    """Exit unless library and textbook give equal captions, with scores equal to 1e-4."""
    found = decode(model, features, forced(SIZES))
    for (best, *_), image in zip(found, rows_of(features), strict=True):
        tokens, score = textbook.beam_search(decoder, image, SIZES.beams, SIZES.steps, SIZES.steps)
        if list(best.tokens) != tokens or abs(best.score - score) > 1e-4:
            raise SystemExit(f"textbook and library disagree: {tokens} {score} and {best}")


def compare(attention: bool, device: torch.device, rounds: int, compiled: bool) -> None:
    model = build(SIZES, attention=attention, device=device)
    decoder = textbook.with_weights_of(model)
    largest = SIZES.batch if device.type == "cpu" else 512
    features = draw_features(SIZES, largest, device)
    check_agreement(model, decoder, features[:8])
    one, steps = rows_of(features[:1])[0], SIZES.steps
    models = {"": model}
    if compiled:
        models[", compiled"] = cast(CaptioningModel, compile_steps(model))
    settings = [(beams, batch) for batch in (largest, 1) for beams in BEAMS]
    cases: dict[str, measure.Work] = {}
    for beams in BEAMS:
        cases[f"{beams} textbook"] = partial(
            textbook.beam_search, decoder, one, beams, steps, steps
        )
    for beams, batch in settings:
        for precision in PRECISIONS:
            for how, chosen in models.items():
                sizes = vary(SIZES, beams=beams)
                work = captions_of(chosen, features[:batch], sizes, precision)
                cases[f"{beams} {batch} {precision}{how}"] = work
    products, operations = measure.matrix_limits(device)
    times = measure.side_by_side({**cases, **products}, rounds, device)
    _, both = measure.limits_of(times, operations)
    rows = []
    for beams, batch in settings:
        for name, taken in times.items():
            if not name.startswith(f"{beams} {batch} "):
                continue
            precision = name.split(" ", 2)[2]
            over = times[f"{beams} textbook"] * batch / taken
            exact = times[f"{beams} {batch} float32"] / taken
            peak = measure.peak_memory(cases[name], device)
            rows.append([beams, batch, precision, batch / taken, 1000 * taken, over, exact, peak])
    kind = "Show, Attend and Tell" if attention else "Show and Tell"
    print(f"### Decoding, {kind}: {steps} forced words\n")
    head = ["beams", "batch", "precision", "captions/s", "ms per batch", "over textbook"]
    print(measure.table([*head, "over float32", "peak MB"], rows))
    print(f'\n{both} "auto" is {pick_format("auto", device)} here.\n')


def memory(device: torch.device, process: float) -> None:
    """Print the peak memory of one call at the target batch size, greedy and with beams.

    process: megabytes used by the interpreter and its libraries, before any model is built.
    """
    features = draw_features(SIZES, SIZES.batch, device)
    rows = []
    for precision in ("float32", "bfloat16"):
        model = build(SIZES, attention=True, device=device)
        held = sum(x.numel() * x.element_size() for x in (*model.parameters(), features)) / 1e6
        taken = {}
        for beams in (1, 5, 10):
            work = captions_of(model, features, vary(SIZES, beams=beams), precision)
            work()
            taken[beams] = measure.peak_memory(work, device)
        for beams, used in taken.items():
            ratios = [(base + used) / (base + taken[1]) for base in (0, held, process + held)]
            rows.append([precision, beams, used, *ratios])
    print(f"### Peak memory of decoding, batch {SIZES.batch}, over greedy\n")
    head = ["", "beams", "MB of the call", "the call", "with weights and features"]
    print(measure.table([*head, "with the whole process"], rows) + "\n")


def growth(device: torch.device, rounds: int) -> None:
    """Print the cost per caption as one size grows and the others are fixed."""
    batches = (1, 4, 16, 64, 256) if device.type == "cpu" else (1, 4, 16, 64, 256, 512)
    variations = {
        "batch": batches,
        "beams": (1, 2, 3, 5, 10),
        "vocabulary": (1000, 2541, 10_000, 30_000),
        "positions": (49, 196, 576),
        "steps": (10, 20, 40),
    }
    print("### Growth of decoding, Show, Attend and Tell, float32\n")
    for name, values in variations.items():
        rows = []
        for value in values:
            sizes = vary(SIZES, **{name: value})
            model = build(sizes, attention=True, device=device)
            features = draw_features(sizes, sizes.batch, device)
            work = captions_of(model, features, sizes, "float32")
            taken = measure.side_by_side({"": work}, min(rounds, 3), device)[""] / sizes.batch
            used = measure.peak_memory(work, device) / sizes.batch
            rows.append([value, 1000 * taken, 1e6 * taken / (sizes.beams * sizes.steps), used])
        head = [name, "ms per caption", "us per word and beam", "peak MB per image"]
        print(measure.table(head, rows) + "\n")


if __name__ == "__main__":
    main()
