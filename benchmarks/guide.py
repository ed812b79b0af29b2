"""Figures and table of the decoding options: python -m benchmarks.guide.

They are for docs/decoding.md and use a run on the demo data: one scene's captions with each option,
and the effect of the options on a whole split.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import measure
from captioner import Captioner
from captioner.data.dataset import Example
from captioner.data.images import load_image
from captioner.data.readers import read_captions
from captioner.evaluation.split import ScoringSettings, score_captions
from captioner.text.tokenizer import split_words

Cases = Sequence[tuple[str, Mapping[str, Any]]]
SAMPLE = {"method": "sample", "num_captions": 3, "seed": 0}
SCENE: Cases = (
    ("method greedy", {"method": "greedy"}),
    ("method beam", {"method": "beam"}),
    ("length_penalty 0", {"length_penalty": 0.0}),
    ("max_length 6", {"max_length": 6}),
    ("min_length 12", {"min_length": 12}),
    ("beam_size 5, num_captions 5", {"beam_size": 5, "num_captions": 5}),
    ("method sample, seed 0, num_captions 3", SAMPLE),
    ("and temperature 0.5", {**SAMPLE, "temperature": 0.5}),
    ("and temperature 2", {**SAMPLE, "temperature": 2.0}),
    ("and top_k 2", {**SAMPLE, "top_k": 2}),
    ("and top_p 0.5", {**SAMPLE, "top_p": 0.5}),
)
METHODS: Cases = (
    ("greedy", {"method": "greedy"}),
    ("sample", {"method": "sample", "seed": 0}),
    ("sample, temperature 0.5", {"method": "sample", "seed": 0, "temperature": 0.5}),
    ("beam 3, length penalty 0", {"beam_size": 3, "length_penalty": 0.0}),
    ("beam 3", {"beam_size": 3}),
    ("beam 5", {"beam_size": 5}),
    ("beam 10", {"beam_size": 10}),
)
PENALTIES = (0.0, 0.25, 0.5, 0.7, 1.0, 1.5, 2.0)
TEMPERATURES = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
BLUE, ORANGE, GREEN, GREY = "#1f5fa8", "#c8641e", "#3c8c3c", "#666666"
WIDTH, LINE, GAP = 11, 0.235, 0.5  # of the scene figure: inches, inches, lines


def captions_of(captioner: Captioner, image: Any, options: Mapping[str, Any]) -> list[Any]:
    """Return the texts of the caption and its alternatives."""
    best = captioner.caption(image, **options)
    return [best, *best.alternatives]


def draw_scene(captioner: Captioner, example: Example, cases: Cases, file: Path) -> None:
    """Draw the image and each case's captions; those among the references are bold."""
    from matplotlib.figure import Figure

    found = [(name, captions_of(captioner, example.path, options)) for name, options in cases]
    lines = sum(len(captions) + GAP for _, captions in found) + 1.5
    height = LINE * lines
    figure = Figure(figsize=(WIDTH, height), facecolor="white")
    image = figure.add_axes((0.2 / WIDTH, 1 - 2.5 / height, 2.2 / WIDTH, 2.2 / height))
    image.imshow(load_image(example.path))
    axes = figure.add_axes((0.24, 0, 0.76, 1), xlim=(0, 1), ylim=(lines, 0))
    axes.text(0.27, 1, "log p", color=GREY, ha="right")
    row = 2.2
    references = {" ".join(split_words(text)) for text in example.captions}
    for name, captions in found:
        for number, part in enumerate(name.split(", ")):
            axes.text(0, row + number, part, color=BLUE)
        for caption in captions:
            weight = "bold" if caption.text in references else "normal"
            axes.text(0.27, row, f"{caption.score:.2f}", color=GREY, ha="right")
            axes.text(0.29, row, caption.text, weight=weight)
            row += 1
        row += GAP
    for each in (image, axes):
        each.set_axis_off()
    figure.savefig(file, dpi=110)


def measure_captions(
    captioner: Captioner, examples: Sequence[Example], options: Mapping[str, Any]
) -> dict[str, float]:
    """Return scores and statistics of the split's captions, and the captioning time in seconds."""
    images = [load_image(example.path) for example in examples]
    started = time.perf_counter()
    captions = captioner.caption(images, batch_size=64, **options)
    seconds = time.perf_counter() - started
    texts = {e.id: caption.text for e, caption in zip(examples, captions, strict=True)}
    references = {example.id: example.captions for example in examples}
    scoring = ScoringSettings(("bleu", "cider"))
    return {**score_captions(texts, references, scoring).numbers, "seconds": seconds}


def distinct_share(
    captioner: Captioner, examples: Sequence[Example], options: Mapping[str, Any]
) -> float:
    """Return the percentage of distinct captions among five per image."""
    images = [load_image(example.path) for example in examples]
    found = captioner.caption(images, batch_size=64, num_captions=5, **options)
    different = [len({c.text for c in (best, *best.alternatives)}) for best in found]
    return 100 * sum(different) / (5 * len(found))


def draw_curves(captioner: Captioner, examples: Sequence[Example], file: Path) -> None:
    """Plot length and BLEU-4 by length penalty, and BLEU-4 and distinct captions by temperature."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.4), layout="constrained", facecolor="white")
    length, bleu, heat = figure.subplots(1, 3)
    for beams, colour in ((3, BLUE), (10, ORANGE)):
        cases = [{"beam_size": beams, "length_penalty": each} for each in PENALTIES]
        rows = [measure_captions(captioner, examples, options) for options in cases]
        label = f"beam_size {beams}"
        length.plot(PENALTIES, [r["mean_length"] for r in rows], "o-", c=colour, label=label)
        bleu.plot(PENALTIES, [r["BLEU-4"] for r in rows], "o-", c=colour, label=label)
    words = [len(text.split()) for example in examples for text in example.captions]
    length.axhline(sum(words) / len(words), c=GREY, ls="--", label="references")
    length.set(xlabel="length_penalty", ylabel="words per caption")
    bleu.set(xlabel="length_penalty", ylabel="BLEU-4")
    sampled = [{"method": "sample", "seed": 0, "temperature": each} for each in TEMPERATURES]
    rows = [measure_captions(captioner, examples, options) for options in sampled]
    heat.plot(TEMPERATURES, [r["BLEU-4"] for r in rows], "o-", c=BLUE, label="BLEU-4")
    distinct = [distinct_share(captioner, examples, options) for options in sampled]
    heat.plot(TEMPERATURES, distinct, "s-", c=GREEN, label="distinct of 5 captions, %")
    heat.set(xlabel="temperature", ylim=(0, 100))
    for axes in (length, bleu, heat):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(file, dpi=110)


def table(captioner: Captioner, examples: Sequence[Example]) -> str:
    """Return a Markdown table with one row for each of METHODS."""
    rows = []
    for name, options in METHODS:
        found = measure_captions(captioner, examples, options)
        keys = ("BLEU-4", "CIDEr", "mean_length", "distinct", "seconds")
        rows.append([name, *(f"{found[key]:.1f}" for key in keys)])
    return measure.table(["", "BLEU-4", "CIDEr", "words", "distinct, %", "seconds"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="a run on the demo data")
    parser.add_argument(
        "--data", type=Path, help="demo data written by captioner demo-data", required=True
    )
    parser.add_argument("--scene", type=int, default=2, help="number of the scene in the val split")
    parser.add_argument("--output", type=Path, default=Path("docs/decoding"))
    arguments = parser.parse_args()
    captioner = Captioner.from_pretrained(arguments.run)
    examples = read_captions(arguments.data).split("val")
    arguments.output.mkdir(parents=True, exist_ok=True)
    draw_scene(captioner, examples[arguments.scene - 1], SCENE, arguments.output / "scene.png")
    draw_curves(captioner, examples, arguments.output / "curves.png")
    print(table(captioner, examples))


if __name__ == "__main__":
    main()
