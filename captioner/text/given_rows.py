"""Sentence vectors that the user computed: one row for each caption of a data set.

Shapes: N captions, Y dimensions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..git_lfs import refuse_pointer_file
from .sentence_vectors import unit_rows
from .tokenizer import split_words

BLOCK = 4096  # rows checked at once
LARGEST = np.finfo(np.float32).max  # its square is finite in float64
DTYPES = (np.float16, np.float32, np.float64)


@dataclass(frozen=True, eq=False)
class GivenRows:
    """The vectors of a data set's captions, in its reading order; new text cannot be encoded.

    rows (N, Y), of one of DTYPES: one row for each caption of each example of
    `CaptionData.examples`, over all splits; may be mapped from a file. fingerprint: fingerprint of
    the data set, which prevents use with other captions. source: file of the rows, for messages.
    """

    rows: np.ndarray
    fingerprint: str
    source: str

    @property
    def dimensions(self) -> int:
        """The number of dimensions Y of the vectors."""
        return int(self.rows.shape[1])

    def check_data(self, fingerprint: str, root: object) -> None:
        """Raise InputError unless the data set at `root` has the fingerprint of the rows."""
        if self.fingerprint != fingerprint:
            raise InputError(
                f"{self.source} cannot be used with {root}: its vectors belong to other captions; "
                "choose the data set of the training run"
            )

    def take(self, positions: Sequence[int]) -> np.ndarray:
        """Return the unit rows (n, Y), float32, of the captions at these positions."""
        return unit_rows(self.rows[list(positions)].astype(np.float64)).astype(np.float32)

    def encode(self, sentences: Sequence[str]) -> np.ndarray:  # noqa: ARG002 - of the protocol
        """Raise InputError, because only the captions' vectors are stored."""
        raise InputError(
            f"new text cannot be encoded: {self.source} contains only the vectors of the data "
            "set's captions; train with another source of sentence vectors"
        )

    def unknown_words(self, sentence: str) -> list[str]:
        """Return all words of the sentence."""
        return split_words(sentence)


def open_rows(path: Path, title: str = "sentence vectors") -> np.ndarray:
    """Memory-map the array of a .npy file.

    title: name of the rows in messages. Raises InputError if the file cannot be read or is not a
    matrix of one of DTYPES.
    """
    refuse_pointer_file(path)
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy parses headers as Python, with various exceptions
        reason = getattr(error, "strerror", None) or "it is damaged or contains Python objects"
        raise InputError(f"{title} {path} cannot be read: {reason}") from error
    if (
        not isinstance(rows, np.ndarray)
        or rows.ndim != 2
        or rows.dtype.newbyteorder("=") not in DTYPES
    ):
        found = f"{rows.dtype} {rows.shape}" if isinstance(rows, np.ndarray) else "an archive"
        raise InputError(
            f"{title} {path} must be a matrix of float16, float32 or float64, got {found}"
        )
    if not rows.shape[1]:
        raise InputError(f"{title} {path} must have at least one column, got shape {rows.shape}")
    return rows


def read_rows(
    path: Path, captions: int, fingerprint: str, title: str = "sentence vectors"
) -> GivenRows:
    """Map the vectors of all captions of a data set from a .npy file.

    captions: number N of captions over all splits. fingerprint: as in GivenRows. title: name of the
    rows in messages. Raises InputError in the same cases as `open_rows`, and if there are not N
    rows or a value is not a finite float32.
    """
    rows = open_rows(path, title)
    if len(rows) != captions:
        raise InputError(
            f"{title} {path} have {len(rows)} rows, but there are {captions} captions; write one "
            "row for each caption of all splits, in reading order"
        )
    for first in range(0, len(rows), BLOCK):
        finite = (np.abs(rows[first : first + BLOCK]) <= LARGEST).all(1)  # false for NaN
        if not finite.all():
            row = first + int(finite.argmin())
            raise InputError(
                f"{title} {path} must be finite, got NaN or infinity in row {row}; recompute them"
            )
    return GivenRows(rows, fingerprint, str(path))
