"""A figure that compares the library with ONNX Runtime: python -m benchmarks.elsewhere.

Both caption demo images; the figure in docs/export.md shows each word's map and the differences.
Shapes: T words, V vocabulary, h, w grid.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from captioner import Captioner
from captioner.data.images import load_image
from captioner.data.readers import read_captions
from captioner.inference.export import export_onnx
from captioner.plots.overlays import DIM, INK, is_dimmed, overlay

PANEL, GAP, LEFT, TOP, WORD, BELOW = 92, 6, 120, 34, 20, 26  # pixels
DPI = 110


@dataclass(frozen=True)
class CaptionOutput:
    """A caption: T words, their log-probabilities, and their maps (T, h, w)."""

    words: Sequence[str]
    log_probs: np.ndarray
    maps: np.ndarray


class Programs:
    """Exported programs in ONNX Runtime, used with numpy and Pillow only."""

    def __init__(self, directory: Path) -> None:
        from onnxruntime import InferenceSession

        self.metadata = json.loads((directory / "captioner.json").read_text(encoding="utf-8"))
        programs = self.metadata["programs"].items()
        self.sessions = {
            name: InferenceSession(directory / part["file"]) for name, part in programs
        }

    def run(self, program: str, **inputs: np.ndarray) -> dict[str, Any]:
        names = [output["name"] for output in self.metadata["programs"][program]["outputs"]]
        return dict(zip(names, self.sessions[program].run(names, inputs), strict=True))

    def pixels(self, path: Path) -> np.ndarray:
        image, side = self.metadata["image"], self.metadata["image"]["size"]
        small = load_image(path).resize((side, side), 3)  # bicubic
        values = np.asarray(small, np.float32) / 255 - np.float32(image["mean"])
        return np.ascontiguousarray((values / np.float32(image["std"])).transpose(2, 0, 1)[None])

    def caption(self, path: Path) -> CaptionOutput:
        """Caption the image by greedy search."""
        inputs = self.run("start", **self.run("encoder", pixels=self.pixels(path)))
        token, end = self.metadata["tokens"]["START"], self.metadata["tokens"]["END"]
        words: list[str] = []
        log_probs: list[float] = []
        maps: list[np.ndarray] = []
        while len(words) < self.metadata["decoding"]["max_length"]:
            found = self.run("step", tokens=np.array([[token]]), **inputs)
            scores = found["scores"][0, 0].astype(np.float64)  # (V,)
            scores[self.metadata["never"]] = -np.inf
            scores -= scores.max()
            scores -= np.log(np.exp(scores).sum())
            token = int(scores.argmax())
            if token == end:
                break
            words.append(self.metadata["words"][token])
            log_probs.append(scores[token])
            maps.append(found["attention"][0, 0])
            inputs |= {
                n.removeprefix("next_"): v for n, v in found.items() if n.startswith("next_")
            }
        return CaptionOutput(words, np.array(log_probs), np.array(maps))


def by_library(captioner: Captioner, path: Path) -> CaptionOutput:
    """Caption the image by greedy search."""
    found = captioner.caption(path, method="greedy")
    assert found.attention is not None
    return CaptionOutput(
        found.words, np.array(found.log_probs[: len(found.words)]), found.attention
    )


def draw(paths: Sequence[Path], captioner: Captioner, programs: Programs, file: Path) -> None:
    """Draw two rows of panels per image, with log-probabilities and a line of differences."""
    from matplotlib.figure import Figure

    pairs = [(by_library(captioner, path), programs.caption(path)) for path in paths]
    longest = max(len(each.words) for pair in pairs for each in pair)
    row, block = PANEL + BELOW, TOP + WORD + 2 * (PANEL + BELOW)
    width, height = LEFT + (longest + 1) * (PANEL + GAP), block * len(paths)
    figure = Figure(figsize=(width / DPI, height / DPI), facecolor="white")
    page = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    page.set_axis_off()
    for number, (path, pair) in enumerate(zip(paths, pairs, strict=True)):
        top = number * block
        page.text(12, top + 22, describe_difference(*pair), color=INK, size=9)
        page.text(12, top + TOP + WORD + PANEL / 2, "the library", color=INK, size=9)
        page.text(12, top + TOP + WORD + PANEL / 2 + row, "ONNX Runtime", color=INK, size=9)
        small = load_image(path).resize((PANEL, PANEL), 1)
        for line, output in enumerate(pair):
            vmax = float(output.maps.max())
            shown = [
                overlay(small, m, vmax=vmax, offset=programs.metadata["offset"])
                for m in output.maps
            ]
            for t, panel in enumerate([small, *shown]):
                x, y = LEFT + t * (PANEL + GAP), top + TOP + WORD + line * row
                page.imshow(panel, extent=(x, x + PANEL, y + PANEL, y), interpolation="none")
                if not t:
                    continue
                word, middle = output.words[t - 1], x + PANEL / 2
                color = DIM if is_dimmed(word) else INK
                if not line:
                    page.text(middle, y - 6, word, color=color, size=9, ha="center")
                said = f"{output.log_probs[t - 1]:.5f}"
                page.text(middle, y + PANEL + 16, said, color=DIM, size=8, ha="center")
    page.set(xlim=(0, width), ylim=(height, 0), aspect="auto")
    figure.savefig(file, dpi=DPI)


def describe_difference(ours: CaptionOutput, theirs: CaptionOutput) -> str:
    """Describe the differences between two captions."""
    if list(ours.words) != list(theirs.words):
        return "different words"
    maps = float(abs(ours.maps - theirs.maps).max())
    log_probs = float(abs(ours.log_probs - theirs.log_probs).max())
    return (
        f"the same {len(ours.words)} words; the maps differ by at most {maps:.0e}, "
        f"the log-probabilities below them by at most {log_probs:.0e}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="a run on the demo data")
    parser.add_argument(
        "--data", type=Path, help="demo data written by captioner demo-data", required=True
    )
    parser.add_argument(
        "--scenes",
        type=int,
        nargs="+",
        default=[4, 25, 76],
        help="numbers of scenes in the val split",
    )
    parser.add_argument("--output", type=Path, default=Path("docs/export/onnx.png"))
    arguments = parser.parse_args()
    captioner = Captioner.from_pretrained(arguments.run, "cpu")
    examples = read_captions(arguments.data).split("val")
    paths = [examples[scene - 1].path for scene in arguments.scenes]
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        export_onnx(captioner, Path(directory) / "onnx")
        draw(paths, captioner, Programs(Path(directory) / "onnx"), arguments.output)


if __name__ == "__main__":
    main()
