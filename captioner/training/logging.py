"""The training log: log.jsonl, curves, trackers and one console line per epoch.

The training loop computes the values.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..atomic_io import atomic_write
from ..console import say
from ..plots.curves import draw_curves
from .trackers import Tracker

LOG, CURVES = "log.jsonl", "curves.png"
TRACKING_INTERVAL = 10  # in steps


@dataclass(frozen=True)
class TrainingLog:
    """The destinations of the values logged per step and per epoch.

    directory: the run's directory, for log.jsonl and curves.png. trackers: other destinations.
    curves: whether to draw curves.png. negligible: as in `fit`.
    """

    directory: Path
    trackers: Sequence[Tracker] = ()
    curves: bool = True
    negligible: float = 0.0

    def log_step(self, step: int, loss: float, learning_rate: float) -> None:
        """Log loss and learning rate to the trackers, every TRACKING_INTERVAL steps.

        step: the number of the step, counted from 1 over all epochs.
        """
        if step % TRACKING_INTERVAL == 0:
            for tracker in self.trackers:
                tracker.add_step(step, loss=loss, learning_rate=learning_rate)

    def log_epoch(
        self, history: Sequence[Mapping[str, Any]], epochs: int, watch: str, best_epoch: int
    ) -> None:
        """Log and print the last epoch of `history`, which has one row per finished epoch.

        epochs: the maximum number of epochs. watch: the score that determines the best epoch.
        best_epoch: number of the best epoch; 0 if there is none yet.
        """
        write_log(self.directory / LOG, history)
        if self.curves:
            draw_curves(self.directory / CURVES, history, watch, best_epoch)
        for tracker in self.trackers:
            tracker.add_epoch(history[-1])
        say(format_epoch(history[-1], epochs, watch, best_epoch, self.negligible))


def write_log(path: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Write one line with a JSON object per epoch; non-finite values become null."""
    rows = [{k: v if math.isfinite(v) else None for k, v in row.items()} for row in history]
    atomic_write(path, "".join(json.dumps(row) + "\n" for row in rows))


def format_epoch(
    row: Mapping[str, Any], epochs: int, watch: str, best_epoch: int, negligible: float = 0.0
) -> str:
    """Format an epoch's loss, watched score, speed, waiting time and memory as one line.

    If a BLEU score is watched and is at most `negligible`, the line explains the low score instead
    of calling it the best.
    """
    speed = next(name for name in row if name.endswith("_per_second"))
    memory = f"{row['memory_mb'] / 1000:.2f} GB"
    if "gpu_memory_mb" in row:
        memory += f", GPU memory {row['gpu_memory_mb'] / 1000:.2f} GB"
    return (
        f"epoch {row['epoch']}/{epochs}: loss {row['loss']:.3f}, "
        f"validation {watch} {row[watch]:.2f}"
        + _remark(row, watch, best_epoch, negligible)
        + f", {row[speed]:,.0f} {speed.removesuffix('_per_second')}/s, "
        f"{100 * row['waiting_share']:.0f} % of the time waiting for data, memory {memory}"
    )


def _remark(row: Mapping[str, Any], watch: str, best_epoch: int, negligible: float) -> str:
    order = watch.removeprefix("BLEU-")
    if order != watch and row[watch] <= negligible:
        words = "no word of a caption is" if order == "1" else f"no {order} words in a row are"
        return f" ({words} in the references yet; this is usual for the first epochs)"
    return " (best so far)" if row["epoch"] == best_epoch else ""
