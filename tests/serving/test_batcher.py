"""Batching of concurrent requests: order, grouping, failures, limits, closing."""

import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor

import pytest

from captioner.decoding.options import DecodingOptions
from captioner.serving.batcher import Batcher, Closed, QueueFull

BEAM, GREEDY = DecodingOptions(), DecodingOptions("greedy")


class Device:
    """A stand-in for the model: captions name their image; batches may be held back."""

    def __init__(self, free=True):
        self.batches = []
        self.started, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self.free, self.change = free, list

    def __call__(self, images, options):
        self.batches.append(list(images))
        self.started.release()
        if not self.free:
            assert self.go.acquire(timeout=10)
        if "broken" in images:
            raise RuntimeError("broken")
        return self.change([f"{image} by {options.method}" for image in images])


@pytest.fixture
def start():
    """Start a Batcher; all of them are stopped after the test."""
    started = []

    def build(device, batch_size=4, capacity=100, on_batch=lambda _: None):
        batcher = Batcher(device, batch_size=batch_size, capacity=capacity, on_batch=on_batch)
        batcher.start()
        started.append((batcher, device))
        return batcher

    yield build
    for batcher, device in started:
        device.free = True
        device.go.release(100)
        batcher.join()


def test_waiting_requests_are_grouped_by_options_oldest_first(start):
    device, sizes = Device(free=False), []
    batcher = start(device, on_batch=sizes.append)
    first = batcher.submit("a", BEAM)
    assert device.started.acquire(timeout=10)  # the device is busy: requests queue up
    order = [("b", GREEDY), ("c", BEAM), ("d", GREEDY), *((x, BEAM) for x in "efghi")]
    results = [batcher.submit(*each) for each in order]
    assert batcher.waiting == 8
    device.go.release(100)
    assert first.result(10) == "a by beam"
    assert [each.result(10) for each in results] == [f"{p} by {o.method}" for p, o in order]
    assert device.batches == [["a"], ["b", "d"], ["c", "e", "f", "g"], ["h", "i"]]
    assert sizes == [1, 2, 4, 2]
    assert batcher.waiting == 0


def test_only_the_faulty_request_of_a_batch_fails(start):
    device = Device(free=False)
    batcher = start(device)
    first = batcher.submit("a", BEAM)
    assert device.started.acquire(timeout=10)
    results = {p: batcher.submit(p, BEAM) for p in ("b", "broken", "c")}
    device.go.release(100)
    assert first.result(10) == "a by beam"
    assert results["b"].result(10) == "b by beam"
    assert results["c"].result(10) == "c by beam"
    with pytest.raises(RuntimeError, match="broken"):
        results["broken"].result(10)
    assert batcher.submit("d", BEAM).result(10) == "d by beam"  # the queue still works


def test_a_missing_caption_fails_the_request(start):
    device = Device()
    device.change = lambda captions: captions[1:]
    batcher = start(device)
    with pytest.raises(ValueError, match="zip"):
        batcher.submit("a", BEAM).result(10)


def test_a_request_cancelled_in_time_is_never_captioned(start):
    device = Device(free=False)
    batcher = start(device)
    batcher.submit("a", BEAM)
    assert device.started.acquire(timeout=10)
    cancelled, kept = batcher.submit("b", BEAM), batcher.submit("c", BEAM)
    assert cancelled.cancel()
    device.go.release(100)
    assert kept.result(10) == "c by beam"
    assert device.batches == [["a"], ["c"]]
    with pytest.raises(CancelledError):
        cancelled.result(10)


def test_the_capacity_is_bounded_and_released(start):
    batcher = start(Device(), capacity=2)
    with batcher.admit(), batcher.admit():
        assert batcher.admitted == 2
        with pytest.raises(QueueFull, match=r"^The request queue is full\.$"), batcher.admit():
            pass
    assert batcher.admitted == 0
    with pytest.raises(KeyError), batcher.admit():
        raise KeyError
    assert batcher.admitted == 0


def test_closing_captions_waiting_requests_and_rejects_new_ones(start):
    device = Device(free=False)
    batcher = start(device)
    batcher.submit("a", BEAM)
    assert device.started.acquire(timeout=10)
    waiting = [batcher.submit(p, BEAM) for p in "bc"]
    batcher.close()
    with pytest.raises(Closed):
        batcher.submit("d", BEAM)
    with pytest.raises(Closed), batcher.admit():
        pass
    device.go.release(100)
    batcher.join()
    assert [each.result(0) for each in waiting] == ["b by beam", "c by beam"]


def test_many_threads_each_get_their_own_caption(start):
    device, sizes = Device(), []
    batcher = start(device, batch_size=8, on_batch=sizes.append)

    def request(number):
        options = (BEAM, GREEDY)[number % 2]
        return batcher.submit(number, options).result(20) == f"{number} by {options.method}"

    with ThreadPoolExecutor(64) as pool:
        assert all(pool.map(request, range(1000)))
    assert sum(sizes) == 1000
    assert max(sizes) <= 8
    assert sorted(p for batch in device.batches for p in batch) == list(range(1000))
