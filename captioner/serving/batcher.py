"""Requests that wait at the same time are captioned together; nothing here knows of HTTP or files.

One thread does all the work on the device. While it is busy, requests gather; then the oldest and
all that ask for the same options go together, so that a batch costs nobody a wait of its own.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field

from ..caption import Caption
from ..data.images import ImageInput
from ..decoding.options import DecodingOptions

Work = Callable[[Sequence[ImageInput], DecodingOptions], Sequence[Caption]]


class QueueFull(Exception):
    """As many requests are in the house as it holds."""


class Closed(Exception):
    """Nothing is accepted any more."""


@dataclass
class _Request:
    image: ImageInput
    options: DecodingOptions
    answer: Future[Caption] = field(default_factory=Future)


class Batcher:
    """A bounded queue before one thread that captions batches.

    work: images and options -> a caption of each, in their order. batch_size: most images of a
    batch. places: requests in the house at most, counted by `admit`. watch: told the size of every
    batch.
    """

    def __init__(
        self,
        work: Work,
        *,
        batch_size: int,
        places: int,
        watch: Callable[[int], None] = lambda size: None,
    ) -> None:
        self.closing = False
        self.taken = 0
        self._work, self._batch_size, self._places, self._watch = work, batch_size, places, watch
        self._waiting: deque[_Request] = deque()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Requests that wait for the device."""
        return len(self._waiting)

    def close(self) -> None:
        """Accept nothing more; may be called from a signal handler, as it takes no lock."""
        self.closing = True

    def join(self) -> None:
        """Close, let what waits be captioned, and end the thread."""
        self.close()
        with self._changed:
            self._changed.notify_all()
        self._thread.join()

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Room for one request, from before its image is read until it is answered.

        Raises Full where there is none left and Closed after `close`.
        """
        if self.closing:
            raise Closed
        with self._changed:
            if self.taken >= self._places:
                raise QueueFull
            self.taken += 1
        try:
            yield
        finally:
            with self._changed:
                self.taken -= 1

    def submit(self, image: ImageInput, options: DecodingOptions) -> Future[Caption]:
        """The caption to come; one that is cancelled before its turn is never worked on.

        Raises Closed after `close`.
        """
        request = _Request(image, options)
        with self._changed:
            if self.closing:
                raise Closed
            self._waiting.append(request)
            self._changed.notify_all()
        return request.answer

    def _run(self) -> None:
        while batch := self._next_batch():
            self._watch(len(batch))
            self._caption(batch)

    def _next_batch(self) -> list[_Request]:
        """The oldest request and those after it with its options; none once all is done."""
        batch: list[_Request] = []
        others: list[_Request] = []
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
                    elif request.answer.set_running_or_notify_cancel():
                        batch.append(request)
                self._waiting.extendleft(reversed(others))
        return batch

    def _caption(self, batch: Sequence[_Request]) -> None:
        """Answer a batch; where it fails as a whole, each on its own, so that the guilty fails."""
        try:
            images = [request.image for request in batch]
            pairs = list(zip(batch, self._work(images, batch[0].options), strict=True))
        except Exception as error:
            if len(batch) == 1:
                batch[0].answer.set_exception(error)
                return
            for request in batch:
                self._caption([request])
        else:
            for request, caption in pairs:
                request.answer.set_result(caption)
