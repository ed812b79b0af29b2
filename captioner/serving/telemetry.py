"""What the service tells of itself: counts and histograms as Prometheus reads them.

https://prometheus.io/docs/instrumenting/exposition_formats/ says how the text looks.
"""

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SIZES = (1, 2, 4, 8, 16, 32, 64)


class Histogram:
    """How many values were at most each bound, their number and their sum; for several threads."""

    def __init__(self, name: str, help: str, bounds: Sequence[float]) -> None:
        self.name, self.help, self.bounds = name, help, tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._lock = threading.Lock()

    def observe(self, value: float) -> None:
        with self._lock:
            self._counts[bisect_left(self.bounds, value)] += 1
            self._sum += value

    def lines(self) -> list[str]:
        with self._lock:
            counts, total = list(self._counts), self._sum
        lines = [f"# HELP {self.name} {self.help}", f"# TYPE {self.name} histogram"]
        reached = 0
        for bound, count in zip((*self.bounds, "+Inf"), counts, strict=True):
            reached += count
            lines.append(f'{self.name}_bucket{{le="{bound}"}} {reached}')
        return [*lines, f"{self.name}_sum {total:.6f}", f"{self.name}_count {reached}"]


class Telemetry:
    """The service's numbers since it started."""

    def __init__(self) -> None:
        self.answers: Counter[int] = Counter()  # of the event loop's thread alone
        self.seconds = Histogram(
            "captioner_request_seconds", "Time from a request to its caption.", SECONDS
        )
        self.batches = Histogram(
            "captioner_batch_size", "Images that were captioned together.", SIZES
        )

    def text(self, *, waiting: int, taken: int) -> str:
        """waiting: requests before the device. taken: all that are not answered yet."""
        lines = [
            "# HELP captioner_requests_total Answers to requests for captions, by HTTP status.",
            "# TYPE captioner_requests_total counter",
            *(
                f'captioner_requests_total{{status="{status}"}} {count}'
                for status, count in sorted(self.answers.items())
            ),
        ]
        for name, help, value in (
            ("captioner_waiting", "Requests that wait for the device.", waiting),
            ("captioner_unanswered", "Requests that are not answered yet.", taken),
        ):
            lines += [f"# HELP {name} {help}", f"# TYPE {name} gauge", f"{name} {value}"]
        return "\n".join([*lines, *self.seconds.lines(), *self.batches.lines(), ""])
