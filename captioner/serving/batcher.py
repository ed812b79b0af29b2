"""Batching of concurrent requests for one device; independent of HTTP.

One thread does all the work on the device. While it is busy, requests queue up; it then processes
the oldest request together with others that have the same options. No request waits for a batch to
fill.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")  # an image, or a function that does the work of a request
Options = TypeVar("Options")
Result = TypeVar("Result")


class QueueFull(Exception):  # noqa: N818  named like queue.Full
    """The request queue is full."""

    def __init__(self) -> None:
        super().__init__("The request queue is full.")


class Closed(Exception):  # noqa: N818
    """The batcher no longer accepts requests."""

    def __init__(self) -> None:
        super().__init__("The batcher no longer accepts requests.")


@dataclass
class _Request(Generic[Item, Options, Result]):
    item: Item
    options: Options
    result: Future[Result] = field(default_factory=Future)


class Batcher(Generic[Item, Options, Result]):
    """A bounded queue in front of one thread that processes batches.

    work: function that maps items and options to one result per item, in order.
    batch_size: maximum number of items in a batch. capacity: maximum number of requests that are
    admitted but not yet answered. on_batch: callback that receives the size of each batch.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item], Options], Sequence[Result]],
        *,
        batch_size: int,
        capacity: int,
        on_batch: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.closing = False
        self.admitted = 0  # requests that are admitted but not yet answered
        self._work, self._batch_size = work, batch_size
        self._capacity, self._on_batch = capacity, on_batch
        self._waiting: deque[_Request[Item, Options, Result]] = deque()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)

    def start(self) -> None:
        """Start the worker thread."""
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Number of requests waiting for the device."""
        return len(self._waiting)

    def close(self) -> None:
        """Stop accepting requests; no lock is taken, so that a signal handler may call this."""
        self.closing = True

    def join(self) -> None:
        """Close, then wait until all queued requests are answered and the thread has ended."""
        self.close()
        with self._changed:
            self._changed.notify_all()
        self._thread.join()

    def check_free(self) -> None:
        """Raise QueueFull if no slot is free, and Closed after `close`."""
        if self.closing:
            raise Closed
        if self.admitted >= self._capacity:
            raise QueueFull

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Reserve a slot for one request until it is answered; raises as `check_free` does."""
        with self._changed:
            self.check_free()
            self.admitted += 1
        try:
            yield
        finally:
            with self._changed:
                self.admitted -= 1

    def submit(self, item: Item, options: Options) -> Future[Result]:
        """Queue an item and return the Future of its result, cancellable until work starts.

        Raises Closed after `close`.
        """
        request: _Request[Item, Options, Result] = _Request(item, options)
        with self._changed:
            if self.closing:
                raise Closed
            self._waiting.append(request)
            self._changed.notify_all()
        return request.result

    def _run(self) -> None:
        while batch := self._next_batch():
            self._on_batch(len(batch))
            self._process(batch)

    def _next_batch(self) -> list[_Request[Item, Options, Result]]:
        """Take the oldest request and others with the same options.

        Returns [] once the batcher is closed and no request is left.
        """
        batch: list[_Request[Item, Options, Result]] = []
        others: list[_Request[Item, Options, Result]] = []
        with self._changed:
            while not batch:
                self._changed.wait_for(lambda: self._waiting or self.closing)
                if not self._waiting:
                    return []
                others.clear()
                while self._waiting and len(batch) < self._batch_size:
                    request = self._waiting.popleft()
                    if batch and request.options != batch[0].options:
                        others.append(request)
                    elif request.result.set_running_or_notify_cancel():
                        batch.append(request)
                self._waiting.extendleft(reversed(others))
        return batch

    def _process(self, batch: Sequence[_Request[Item, Options, Result]]) -> None:
        """Process a batch; if this fails, retry its items singly so that only faulty ones fail."""
        try:
            items = [request.item for request in batch]
            pairs = list(zip(batch, self._work(items, batch[0].options), strict=True))
        except Exception as error:
            if len(batch) == 1:
                batch[0].result.set_exception(error)
                return
            for request in batch:
                self._process([request])
        else:
            for request, result in pairs:
                request.result.set_result(result)
