"""Loading ahead: the next batches are read by threads while the present one is computed.

Threads suffice, since Pillow and numpy let go of Python's lock while they work; nothing that is
loaded here may use torch's own threads, which belong to the computation.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar


def _workers() -> int:
    """Threads that help: one of the cores of each process is busy with the computation."""
    affinity = getattr(os, "sched_getaffinity", None)  # not everywhere
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(8, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)) - 1))


WORKERS = _workers()

Item = TypeVar("Item")
Loaded = TypeVar("Loaded", bound=Any)  # with pin_memory(), where that is asked for


def load_ahead(
    load: Callable[[Item], Loaded], items: Iterable[Item], workers: int, *, pin: bool = False
) -> Iterator[Loaded]:
    """load(item) of each item, in their order, `workers` of them loaded ahead of what is asked for.

    workers 0 loads each when it is asked for. What `load` raises is raised in its item's place.
    pin: what is loaded goes to pinned memory, from which a GPU copies while it computes.
    """

    def get(item: Item) -> Loaded:
        return load(item).pin_memory() if pin else load(item)

    if workers == 0:
        yield from map(get, items)
        return
    waiting: deque[Future[Loaded]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for item in items:
            waiting.append(pool.submit(get, item))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def timed(items: Iterable[Item]) -> Iterator[tuple[Item, float]]:
    """Each item, and the seconds that it took to come."""
    started = time.perf_counter()
    for item in items:
        yield item, time.perf_counter() - started
        started = time.perf_counter()
