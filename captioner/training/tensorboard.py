"""A training's numbers and images as TensorBoard reads them; which there are is watching.py's."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import InputError
from ..metrics.caption_statistics import Statistics
from ..metrics.captions import SCORES

_TEXT = {each.name for each in fields(Statistics)}
_USE = ("_per_second", "_seconds", "_share", "_mb")  # endings


def check_tensorboard() -> None:
    """Raises InputError where the extra `tensorboard` is missing."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"--tensorboard needs {error.name}; pip install 'captioner[tensorboard]' brings it"
        ) from error


class Board:
    """Event files in a directory; everything stands at the step after which it was so.

    rows: of the epochs that there were before; written where the directory is new, so that a run
    whose beginning was not watched is there as a whole. What the directory holds of later steps than
    `step`, which a run that was killed had not saved, is forgotten. To be closed.
    """

    def __init__(
        self, directory: Path, step: int = 0, rows: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter

        new = not directory.exists()
        self._writer = SummaryWriter(str(directory), purge_step=step + 1, flush_secs=30)
        for row in rows if new else ():
            self.epoch(row)

    def step(self, step: int, **numbers: float) -> None:
        """Add numbers of one step."""
        for name, value in numbers.items():
            self._writer.add_scalar(f"step/{name}", value, step)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Add all numbers of an epoch's row at its step, in groups that are folded one by one."""
        for name, value in row.items():
            if name not in ("epoch", "step"):
                self._writer.add_scalar(f"{_group(name)}/{name}", value, row["step"])
        self._writer.flush()

    def image(self, name: str, image: Image.Image, step: int) -> None:
        """Add an RGB image."""
        self._writer.add_image(name, np.asarray(image), step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()


def _group(name: str) -> str:
    """Where an epoch's number stands; TensorBoard opens the first two by the alphabet."""
    if name in SCORES:
        return "score"
    if name in _TEXT:
        return "text"
    return "use" if name.endswith(_USE) else "epoch"
