"""Figure of a killed and restarted captioning job: python -m benchmarks.restart.

It is for docs/scaling.md: the torchrun recipe runs with two processes, one of which is killed; then
the same command runs again. The figure shows the lines in each process's file over time.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

RECIPE = Path(__file__).parents[1] / "docs" / "recipes" / "torchrun_captions.py"
COLORS = ("#1f5fa8", "#c8641e")
EVERY = 0.1  # seconds between two readings of the files

Seen = list[tuple[float, list[int]]]  # seconds, and the lines of each file


def watch(command: Sequence[str], out: Path, seen: Seen, kill: Callable[[list[int]], bool]) -> str:
    """Run the command, recording the line counts of its files until it ends; return its output.

    kill: a function of the line counts; once true, the second process is killed with SIGKILL.
    """
    with tempfile.TemporaryFile("w+") as printed:
        launcher = subprocess.Popen(command, stdout=printed, stderr=subprocess.STDOUT)
        killed = False
        while launcher.poll() is None:
            lines = [_lines(out / f"captions-{rank}.jsonl") for rank in (0, 1)]
            seen.append((time.perf_counter(), lines))
            if not killed and kill(lines):
                os.kill(_second(launcher.pid), signal.SIGKILL)
                killed = True
            time.sleep(EVERY)
        printed.seek(0)
        return printed.read()


def _lines(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0


def _second(launcher: int) -> int:
    """Return the id of the launcher's child process of rank 1."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    ranks = {
        child: b"\0RANK=1\0" in Path(f"/proc/{child}/environ").read_bytes() for child in children
    }
    return next(int(child) for child, is_second in ranks.items() if is_second)


def draw(first: Seen, second: Seen, total: int, file: Path) -> None:
    """Draw the stacked lines of both files, the total, the kill and the second start."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained", facecolor="white")
    axes = figure.subplots()
    seen, began = [*first, *second], first[0][0]
    places, below = [at - began for at, _ in seen], [0] * len(seen)
    for rank, color in enumerate(COLORS):
        above = [low + lines[rank] for low, (_, lines) in zip(below, seen, strict=True)]
        axes.fill_between(places, below, above, color=color, lw=0, label=f"captions-{rank}.jsonl")
        below = above
    axes.axhline(total, color="0.3", ls="--", lw=1)
    axes.text(places[-1] * 0.01, total * 1.02, f"{total:,} images", color="0.3")
    for (at, lines), said in (
        (first[-1], "process 1 is killed:\ntorchrun stops the other\nand exits"),
        (second[0], "the same command again:\nboth load the model\nand continue"),
    ):
        axes.axvline(at - began, color="0.3", ls=":", lw=1)
        side = "right" if at is first[-1][0] else "left"
        shift = -6 if side == "right" else 6
        place = (at - began, sum(lines) * 1.1)
        axes.annotate(said, place, (shift, 0), textcoords="offset points", ha=side, va="bottom")
    axes.set(xlabel="seconds", ylabel="lines", xlim=(0, places[-1]), ylim=(0, 1.12 * total))
    axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], loc="upper left", bbox_to_anchor=(0, 0.9))
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="a run on the demo data")
    parser.add_argument(
        "--data", type=Path, help="demo data written by captioner demo-data", required=True
    )
    parser.add_argument(
        "--images", type=int, default=2000, help="number of images of the train split"
    )
    parser.add_argument("--output", type=Path, default=Path("docs/scaling/restart.png"))
    arguments = parser.parse_args()
    first: Seen = []
    second: Seen = []
    with tempfile.TemporaryDirectory() as directory:
        images, out = Path(directory) / "images", Path(directory) / "out"
        images.mkdir()
        for image in sorted((arguments.data / "train").glob("*.png"))[: arguments.images]:
            shutil.copy(image, images)
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command = [*launch, "--nproc-per-node=2", *map(str, (RECIPE, arguments.run, images, out))]
        print(watch(command, out, first, lambda lines: sum(lines) > 0.4 * arguments.images))
        print(watch(command, out, second, lambda _: False))
        rows = [json.loads(row) for file in out.iterdir() for row in file.read_text().splitlines()]
    print(f"{len(rows):,} lines for {len({row['image'] for row in rows}):,} images")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    draw(first, second, len(rows), arguments.output)


if __name__ == "__main__":
    main()
