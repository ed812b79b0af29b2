"""Counters and histograms of the service in Prometheus text format.

https://prometheus.io/docs/instrumenting/exposition_formats/ describes the format.
"""

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from http import HTTPStatus

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
NAMES = {  # of the metrics by kind of request
    "caption": "captioner_request",
    "search": "captioner_search_request",
    "label": "captioner_label_request",
    "projection": "captioner_projection_request",
    "relation": "captioner_relation_request",
    "thumbnail": "captioner_thumbnail_request",
}
SIZES = (1, 2, 4, 8, 16, 32, 64)


class Histogram:
    """A thread-safe histogram: counts of values up to each bound, and their sum."""

    def __init__(self, name: str, help: str, bounds: Sequence[float]) -> None:
        self.name, self.help, self.bounds = name, help, tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._lock = threading.Lock()

    def observe(self, value: float) -> None:
        """Add a value to the histogram."""
        with self._lock:
            self._counts[bisect_left(self.bounds, value)] += 1
            self._sum += value

    def lines(self) -> list[str]:
        """Return the histogram in Prometheus text format, with cumulative buckets."""
        with self._lock:
            counts, total = list(self._counts), self._sum
        lines = [f"# HELP {self.name} {self.help}", f"# TYPE {self.name} histogram"]
        cumulative = 0
        for bound, count in zip((*self.bounds, "+Inf"), counts, strict=True):
            cumulative += count
            lines.append(f'{self.name}_bucket{{le="{bound}"}} {cumulative}')
        return [*lines, f"{self.name}_sum {total:.6f}", f"{self.name}_count {cumulative}"]


class Telemetry:
    """Counts and durations of requests since the service started, by kind of request.

    The kinds are the keys of NAMES.
    """

    def __init__(self) -> None:
        self.batches = Histogram(
            "captioner_batch_size", "Number of images captioned together.", SIZES
        )
        # By HTTP status; only the event loop's thread writes them.
        self._answers: dict[str, Counter[int]] = {kind: Counter() for kind in NAMES}
        self._seconds = {
            kind: Histogram(f"{name}_seconds", f"Duration of successful {kind} requests.", SECONDS)
            for kind, name in NAMES.items()
        }

    def count(self, kind: str, status: int, seconds: float) -> None:
        """Count a response by its status; record its duration in seconds if the status is 200."""
        self._answers[kind][status] += 1
        if status == HTTPStatus.OK:
            self._seconds[kind].observe(seconds)

    def text(self, *, waiting: int, unanswered: int) -> str:
        """Return the contents of /metrics.

        waiting: number of requests waiting for the device. unanswered: number of requests
        that are admitted but not yet answered, including the waiting ones.
        """
        lines = []
        for kind, name in NAMES.items():
            lines += [
                f"# HELP {name}s_total Responses to {kind} requests, by HTTP status.",
                f"# TYPE {name}s_total counter",
                *(
                    f'{name}s_total{{status="{status}"}} {count}'
                    for status, count in sorted(self._answers[kind].items())
                ),
            ]
        for name, help, value in (
            ("captioner_waiting", "Requests waiting for the device.", waiting),
            ("captioner_unanswered", "Requests not yet answered.", unanswered),
        ):
            lines += [f"# HELP {name} {help}", f"# TYPE {name} gauge", f"{name} {value}"]
        for each in (*self._seconds.values(), self.batches):
            lines += each.lines()
        return "\n".join([*lines, ""])
