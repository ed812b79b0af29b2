"""TensorBoard event files of a training run.

The callers choose which steps, epochs and images are logged.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import InputError
from ..metrics.caption_statistics import Statistics
from ..metrics.captions import SCORES

_TEXT_STATISTICS = {field.name for field in fields(Statistics)}
_RESOURCE_SUFFIXES = ("_per_second", "_seconds", "_share", "_mb")


def check_tensorboard() -> None:
    """Raise InputError if the extra `tensorboard` is missing or too old."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"--logger tensorboard needs {error.name or 'a newer tensorboard'}; run pip install "
            "'captioner[tensorboard]'"
        ) from error


class TensorBoardWriter:
    """A writer of event files in one directory; implements `trackers.Tracker`.

    step: the number of steps already taken. Events of later steps, logged by an interrupted run
    after its last checkpoint, are purged. history: the rows of all finished epochs. They are
    written only if the directory is new, so that the curves are complete even if TensorBoard is
    enabled only when a run is resumed. Close the writer after use.
    """

    def __init__(
        self, directory: Path, step: int = 0, history: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter

        is_new = not directory.exists()
        self._writer = SummaryWriter(str(directory), purge_step=step + 1, flush_secs=30)
        for row in history if is_new else ():
            self.add_epoch(row)

    def add_step(self, step: int, **values: float) -> None:
        """Log named values of one step."""
        for name, value in values.items():
            self._writer.add_scalar(f"step/{name}", value, step)

    def add_epoch(self, row: Mapping[str, Any]) -> None:
        """Log all values of an epoch's row at its last step, in collapsible groups."""
        for name, value in row.items():
            if name not in ("epoch", "step"):
                self._writer.add_scalar(f"{_group(name)}/{name}", value, row["step"])
        self._writer.flush()

    def add_image(self, name: str, image: Image.Image, step: int) -> None:
        """Log an RGB image at a step."""
        self._writer.add_image(name, np.asarray(image), step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()


def _group(name: str) -> str:
    """Return the group of an epoch's value.

    TensorBoard expands only the first two groups in alphabetical order.
    """
    if name in SCORES:
        return "score"
    if name in _TEXT_STATISTICS:
        return "text"
    return "use" if name.endswith(_RESOURCE_SUFFIXES) else "epoch"
