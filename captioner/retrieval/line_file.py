"""A snapshot of a file of lines; `index_files` defines what the lines contain.

Shapes: N lines.
"""

import mmap
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np


class LineFile:
    """The complete lines of a file, which remains open as long as the object exists.

    The lines stay the same even if another process appends to the file, replaces it or deletes it.
    Several threads may read at the same time. path: path of the file. starts (N + 1,): byte offsets
    of all lines and of the end of the last one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("rb", buffering=0)
        weakref.finalize(self, self._file.close)
        self._lock = threading.Lock()
        self.starts = _line_starts(self._file)

    def __len__(self) -> int:
        """Return the number of complete lines N."""
        return len(self.starts) - 1

    def read(self, line: int) -> bytes:
        """Return a line as bytes; it is incomplete if the file has been truncated since."""
        start, end = self.starts[line : line + 2].tolist()
        if hasattr(os, "pread"):
            return os.pread(self._file.fileno(), end - start, start)
        with self._lock:  # Windows has only one position per file
            self._file.seek(start)
            return self._file.read(end - start)

    @contextmanager
    def mapped(self) -> Iterator[mmap.mmap | bytes]:
        """Yield all complete lines as one memory-mapped buffer, or as b"" if there are none."""
        end = int(self.starts[-1])
        if not end:  # an empty file cannot be mapped
            yield b""
            return
        with mmap.mmap(self._file.fileno(), end, access=mmap.ACCESS_READ) as content:
            yield content


def _line_starts(file: IO[bytes]) -> np.ndarray:
    """Return the byte offsets (N + 1,) of all complete lines and of the end of the last one."""
    ends, offset = [np.zeros(1, np.int64)], 0
    while block := file.read(2**20):
        ends.append(np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n")) + 1 + offset)
        offset += len(block)
    return np.concatenate(ends)
