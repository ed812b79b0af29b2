"""Loading ahead: threads load the next items while the present one is used.

Threads suffice, since Pillow and numpy release Python's global lock while they work. What they load
must not use torch's own threads, which belong to the computation.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar


def _default_workers() -> int:
    """Cores per process on this machine minus one for the computation, from 1 to 8."""
    affinity = getattr(os, "sched_getaffinity", None)  # only on Linux
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(8, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)) - 1))


WORKERS = _default_workers()

Item = TypeVar("Item")
Loaded = TypeVar("Loaded", bound=Any)  # has pin_memory() if load_ahead is called with pin


def load_ahead(
    load: Callable[[Item], Loaded], items: Iterable[Item], workers: int, *, pin: bool = False
) -> Iterator[Loaded]:
    """Yield load(item) for each item, in order, while threads load the next `workers` items.

    workers: 0 loads each item when it is asked for. pin: copy to pinned memory, from which a GPU
    copies while it computes. An exception of `load` is raised when its item's turn comes.
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
    """Yield each item with the seconds that were spent waiting for it."""
    started = time.perf_counter()
    for item in items:
        yield item, time.perf_counter() - started
        started = time.perf_counter()
