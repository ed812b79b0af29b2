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
    """The vectors of a data set's captions, in reading order; no other text can be encoded.

    rows (N, Y), with a dtype from DTYPES: one row for each caption, in the order of
    `CaptionData.examples`, across all splits; may be memory-mapped. fingerprint: fingerprint of the
    data set, which prevents the rows from being used with other captions. source: path of the file
    that contains the rows, for error messages.
    """

    rows: np.ndarray
    fingerprint: str
    source: str

    @property
    def dimensions(self) -> int:
        """The number of dimensions Y of the vectors."""
        return int(self.rows.shape[1])

    def check_data(self, fingerprint: str, root: object) -> None:
        """Raise InputError unless the rows belong to the data set with this fingerprint.

        root: path of the data set, for the error message.
        """
        if self.fingerprint != fingerprint:
            raise InputError(
                f"{self.source} cannot be used with {root}: its vectors belong to other captions; "
                "choose the data set that the model was trained on"
            )

    def take(self, positions: Sequence[int]) -> np.ndarray:
        """Return the rows (n, Y) at `positions`, float32, scaled to unit length."""
        return unit_rows(self.rows[list(positions)].astype(np.float64)).astype(np.float32)

    def encode(self, sentences: Sequence[str]) -> np.ndarray:  # noqa: ARG002 - of the protocol
        """Raise InputError, because only the captions' vectors are stored."""
        raise InputError(
            f"new text cannot be encoded: {self.source} contains only the vectors of the data "
            "set's captions; train with another source of sentence vectors"
        )

    def unknown_words(self, sentence: str) -> list[str]:
        """Return all words of the sentence, since no new text can be encoded."""
        return split_words(sentence)


def open_rows(path: Path, title: str = "sentence vectors") -> np.ndarray:
    """Memory-map the array of a .npy file.

    title: what error messages call the rows. Raises InputError if the file cannot be read or does
    not contain a matrix with a dtype from DTYPES and at least one column.
    """
    refuse_pointer_file(path)
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy parses headers as Python, with various exceptions
        reason = "it is damaged or contains Python objects; write it with numpy.save"
        if problem := getattr(error, "strerror", None):
            reason = f"{problem}; check the path"
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
    """Memory-map the vectors of all captions of a data set from a .npy file.

    captions: number N of captions across all splits. fingerprint: as in `GivenRows`; empty for the
    sentences of a file, which has no splits. title: how error messages refer to the rows. Raises
    InputError in the same cases as `open_rows`, and also if the number of rows is not N or a value
    is not finite in float32.
    """
    rows = open_rows(path, title)
    if len(rows) != captions:
        noun, order = "captions", "caption, across all splits, in reading order"
        if not fingerprint:
            noun, order = "sentences", "sentence, in order"
        raise InputError(
            f"{title} {path} have {len(rows)} rows, but there are {captions} {noun}; write one row "
            f"per {order}"
        )
    for first in range(0, len(rows), BLOCK):
        finite = (np.abs(rows[first : first + BLOCK]) <= LARGEST).all(1)  # false for NaN
        if not finite.all():
            row = first + int(finite.argmin())
            raise InputError(
                f"{title} {path} must be finite as float32, but row {row} (counted from 0) is not; "
                "recompute them"
            )
    return GivenRows(rows, fingerprint, str(path))
