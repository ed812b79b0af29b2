"""What a training tells while it goes on, from the numbers of its steps and epochs: the log, the
curves, TensorBoard, a line for each epoch; how the numbers come about is training.py's.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..atomic_io import atomic_write
from ..plots.curves import draw_curves
from .tensorboard import Board

LOG, CURVES = "log.jsonl", "curves.png"
STEPS = 10  # from one to the next that TensorBoard gets


@dataclass(frozen=True)
class TrainingLog:
    """Where a training's numbers go: files in the run's directory, TensorBoard, lines for people."""

    run: Path
    board: Board | None = None

    def step(self, step: int, loss: float, learning_rate: float) -> None:
        """Take in the loss of a step, by its number in the whole training, and its rate."""
        if self.board and step % STEPS == 0:
            self.board.step(step, loss=loss, learning_rate=learning_rate)

    def epoch(
        self, rows: Sequence[Mapping[str, Any]], epochs: int, watch: str, best_epoch: int
    ) -> None:
        """Take in the epochs so far, a row of numbers each, of `epochs` that there may be.

        watch: the score that decided on the best epoch, 0 where there is none yet.
        """
        write_log(self.run / LOG, rows)
        draw_curves(self.run / CURVES, rows, watch, best_epoch)
        if self.board:
            self.board.epoch(rows[-1])
        tqdm.write(line(rows[-1], epochs, watch, best_epoch))


def write_log(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A row of JSON for each epoch; what is no finite number becomes null."""
    finite = [{k: v if math.isfinite(v) else None for k, v in row.items()} for row in rows]
    atomic_write(path, "".join(json.dumps(row) + "\n" for row in finite))


def line(row: Mapping[str, Any], epochs: int, watch: str, best_epoch: int) -> str:
    """One epoch for people: loss, watched score, speed, and what of the machine it took."""
    memory = f"{row['memory_mb'] / 1000:.2f} GB"
    if "gpu_memory_mb" in row:
        memory += f" and {row['gpu_memory_mb'] / 1000:.2f} GB of the GPU"
    return (
        f"epoch {row['epoch']}/{epochs}: loss {row['loss']:.3f}, "
        f"validation {watch} {row[watch]:.2f}"
        + (" (best so far)" if row["epoch"] == best_epoch else "")
        + f", {row['words_per_second']:,.0f} words/s, "
        f"{100 * row['waiting_share']:.0f} % of the time waiting for data, memory {memory}"
    )
