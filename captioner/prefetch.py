"""Prefetching: threads load the next items while the current one is used.

Threads suffice because Pillow and NumPy release the global interpreter lock while they work. The
loading function must not use torch's own threads, which the computation needs.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar


def _default_workers() -> int:
    """Return the number of cores per process, minus one for the computation, clamped to [1, 8]."""
    affinity = getattr(os, "sched_getaffinity", None)  # only on Linux
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(8, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)) - 1))


WORKERS = _default_workers()

Item = TypeVar("Item")
Loaded = TypeVar("Loaded", bound=Any)  # must have pin_memory() if `pin` is true


def load_ahead(
    load: Callable[[Item], Loaded], items: Iterable[Item], workers: int, *, pin: bool = False
) -> Iterator[Loaded]:
    """Yield load(item) for each item, in order, while threads load the next `workers` items.

    workers: number of threads; 0 loads each item when it is requested. pin: whether to copy the
    loaded items to pinned memory, from which a GPU can copy them while it computes. An exception
    raised by `load` is raised again when its item is due.
    """

    def get(item: Item) -> Loaded:
        loaded = load(item)
        if pin:
            loaded = loaded.pin_memory()
        return loaded

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
    """Yield each item and the time spent waiting for it, in seconds."""
    started = time.perf_counter()
    for item in items:
        yield item, time.perf_counter() - started
        started = time.perf_counter()
