"""The number of threads of a training run, adapted to what other programs leave of the processor.

The threads of OpenMP wait for each other after every operation. If other programs use the cores,
each operation waits until the last thread gets its turn, and several threads are slower than one.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import torch

from ..distributed import say

INTERVAL = 5.0  # seconds between two looks at the processor's load
BUSY = 0.5  # cores that other programs must use before the number of threads changes
STAT = Path("/proc/stat")
# Seconds: the time now, the time that all cores together were busy, and this process's CPU time.
Times: TypeAlias = tuple[float, float, float]


class Threads:
    """Adapts torch's number of threads to the load; does nothing where the load is unknown.

    The load is unknown on systems without /proc/stat, and if the process may use only some of the
    cores. The number never exceeds the initial one.
    """

    def __init__(self, read: "Callable[[], Times | None] | None" = None) -> None:
        """Start to observe the load.

        read: function that returns `Times`, or None if the load is unknown; by default, the times
        are read from Linux's counters.
        """
        self._read = read or _read_times
        self._most = torch.get_num_threads()
        self._last = self._read()
        self._said = False

    def adapt(self) -> None:
        """Set the number of threads for the next operations, at most once every INTERVAL seconds.

        The first change is noted on the console.
        """
        if self._last is None or self._most == 1:
            return
        now = self._read()
        if now is None or now[0] - self._last[0] < INTERVAL:
            return
        elapsed, busy, own = (b - a for a, b in zip(self._last, now, strict=True))
        self._last = now
        others = max(0.0, busy - own) / elapsed  # cores
        wanted = self._most if others < BUSY else max(1, self._most - round(others))
        if wanted == torch.get_num_threads():
            return
        torch.set_num_threads(wanted)
        if not self._said:
            say(
                f"note: other programs use {others:.1f} cores; training continues with "
                f"{wanted} of {self._most} threads while they do"
            )
            self._said = True

    def close(self) -> None:
        """Restore the initial number of threads."""
        if torch.get_num_threads() != self._most:
            torch.set_num_threads(self._most)


def _read_times() -> Times | None:
    """Return the times that `Threads` compares, from Linux's counters; None if unknown."""
    try:
        cores = os.cpu_count() or 1
        if len(os.sched_getaffinity(0)) < cores:
            return None
        user, nice, system, _, _, irq, softirq = map(int, STAT.read_text().split()[1:8])
        busy = (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError):
        return None
    return time.monotonic(), busy, time.process_time()
