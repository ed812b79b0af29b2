"""Speed of a training step in captions per second: python -m benchmarks.train_step"""

import copy

import torch
from torch import Tensor
from torch.optim import AdamW

from benchmarks import measure, textbook
from benchmarks.setting import (
    SIZES,
    Sizes,
    build,
    draw_batch,
    draw_captions,
    image_operations,
    vary,
    word_operations,
)
from captioner.data.batches import Batch
from captioner.metrics.cider_d import CiderD
from captioner.models.captioning.build import CaptioningModel
from captioner.models.captioning.scst import MAX_LENGTH, SAMPLES, add_rollouts, sample_captions
from captioner.tasks.options import TrainingOptions
from captioner.training.loop import train_step
from captioner.training.optimization import parameter_groups

IMAGES = 32


def main() -> None:
    argv = measure.arguments(__doc__)
    device = measure.device_of(argv)
    for attention in (True, False):
        compare(attention, device, argv.rounds)
    self_critical(device, argv.rounds)
    if not argv.quick:
        growth(device, argv.rounds)


def library_step(model: CaptioningModel, batch: Batch, precision: str) -> measure.Work:
    options = TrainingOptions(precision=precision)
    optimizer = AdamW(parameter_groups(model, options), fused=True)
    model.train()
    return lambda: train_step(model, optimizer, batch, options, batch.tokens.device)


def textbook_rows(batch: Batch) -> tuple[Tensor, Tensor, list[int]]:
    """Return one row per caption, longest first: features (R, P, D), tokens (R, 1 + T), lengths."""
    assert batch.features is not None
    captions = batch.tokens.shape[1]
    tokens = batch.tokens.flatten(0, 1)
    lengths = (tokens[:, 1:] != 0).sum(1)
    order = lengths.argsort(descending=True)
    maps = batch.features.float().flatten(2).mT.repeat_interleave(captions, 0)
    return maps[order].contiguous(), tokens[order], lengths[order].tolist()


def textbook_step(decoder: textbook.Decoder, model: CaptioningModel, batch: Batch) -> measure.Work:
    rows = textbook_rows(batch)
    optimizer = AdamW(decoder.parameters(), lr=TrainingOptions().learning_rate)
    smoothing, coverage = model.options.label_smoothing, model.options.coverage_weight
    clip = TrainingOptions().clip
    decoder.train()
    return lambda: textbook.train_step(decoder, optimizer, *rows, smoothing, coverage, clip)


def check_agreement(model: CaptioningModel, decoder: textbook.Decoder, batch: Batch) -> None:
    """Exit unless the two losses are equal to 1e-4 without dropout."""
    smoothing, coverage = model.options.label_smoothing, model.options.coverage_weight
    with torch.no_grad():
        ours = model.eval().loss(batch).value.item()
        rows = textbook_rows(batch)
        theirs = textbook.loss(decoder.eval(), *rows, smoothing, coverage).item()
    if abs(ours - theirs) > 1e-4:
        raise SystemExit(f"textbook and library disagree: {theirs} and {ours}")


def compare(attention: bool, device: torch.device, rounds: int) -> None:
    model = build(SIZES, attention=attention, device=device)
    decoder = textbook.with_weights_of(model)
    batch = draw_batch(SIZES, IMAGES, 8, 16).to(device)
    check_agreement(model, decoder, batch)
    cases = {"textbook": textbook_step(decoder, model, batch)}
    for precision in ("float32", "bfloat16", "auto"):
        cases[f"library, {precision}"] = library_step(copy.deepcopy(model), batch, precision)
    products, operations = measure.matrix_limits(device)
    times = measure.side_by_side({**cases, **products}, rounds, device)
    limit, both = measure.limits_of(times, operations)
    memory = {name: measure.peak_memory(work, device) for name, work in cases.items()}
    captions = IMAGES * SIZES.captions
    words = int((batch.tokens[..., 1:] != 0).sum())
    # The backward pass costs twice the forward pass; the features need no gradient.
    counted = 3 * words * word_operations(SIZES, attention)
    counted += 2 * IMAGES * image_operations(SIZES, attention)
    rows = []
    for name, taken in times.items():
        done = measure.share(counted / taken, limit)
        over = times["textbook"] / taken
        rows.append([name, captions / taken, 1000 * taken, over, done, memory[name]])
    kind = "Show, Attend and Tell" if attention else "Show and Tell"
    print(f"### Training step, {kind}: {IMAGES} images x {SIZES.captions} captions\n")
    head = ["", "captions/s", "ms", "over textbook", "share of float32 matrix limit", "peak MB"]
    print(measure.table(head, rows))
    print(f"\n{both} {words} words, 8-16 per caption and its end token, take")
    print(f"{counted / 1e9:.0f} GFLOP by the plain equations; the library needs fewer.\n")


def self_critical(device: torch.device, rounds: int) -> None:
    """Print the shares of sampling and reward in a self-critical step."""
    model = build(SIZES, attention=True, device=device)
    batch = draw_batch(SIZES, IMAGES, 8, 16).to(device)
    cider = CiderD.of(draw_captions(SIZES, 6000, 8, 16), SIZES.vocabulary).to(device)
    captions = batch.tokens[:, :1, 1:].repeat(1, SAMPLES, 1)
    precision = TrainingOptions().precision
    sampled, _ = add_rollouts(batch, model, cider.score, 0.1, precision=precision)
    times = measure.side_by_side(
        {
            "sampling": lambda: sample_captions(batch, model, precision, SAMPLES, MAX_LENGTH),
            "reward": lambda: cider.score(captions, batch.tokens[..., 1:]),
            "step": library_step(copy.deepcopy(model), sampled, precision),
            "step without samples": library_step(copy.deepcopy(model), batch, precision),
        },
        rounds,
        device,
    )
    alone = times.pop("step without samples")
    whole = sum(times.values())
    rows: list[list[object]] = [
        [name, 1000 * taken, f"{100 * taken / whole:.1f} %"] for name, taken in times.items()
    ]
    rows += [["all", 1000 * whole, "100 %"], ["a step without samples", 1000 * alone, ""]]
    print(f"### Self-critical step, Show, Attend and Tell: {IMAGES} images x {SAMPLES} samples\n")
    print(measure.table(["", "ms", "share"], rows))
    print(
        f"\nPrecision {precision}; most samples have {MAX_LENGTH} words: the model is untrained.\n"
    )


def growth(device: torch.device, rounds: int) -> None:
    """Print the cost per caption as one size grows and the others are fixed."""
    print("### Growth of the training step, Show, Attend and Tell, float32\n")
    cases: dict[str, list[tuple[object, Sizes, int, int]]] = {
        "images": [(n, SIZES, n, 12) for n in (4, 16, 32, 64)],
        "vocabulary": [
            (n, vary(SIZES, vocabulary=n), IMAGES, 12) for n in (1000, 2541, 10_000, 30_000)
        ],
        "positions": [(n, vary(SIZES, positions=n), IMAGES, 12) for n in (49, 196, 576)],
        "words": [(n, SIZES, IMAGES, n) for n in (6, 12, 24)],
    }
    for name, settings in cases.items():
        rows = []
        for value, sizes, images, words in settings:
            model = build(sizes, attention=True, device=device)
            batch = draw_batch(sizes, images, words, words).to(device)
            work = library_step(model, batch, "float32")
            taken = measure.side_by_side({"": work}, min(rounds, 3), device)[""]
            used = measure.peak_memory(work, device)
            captions = images * sizes.captions
            rows.append([value, 1000 * taken / captions, used])
        print(measure.table([name, "ms per caption", "peak MB"], rows) + "\n")


if __name__ == "__main__":
    main()
