"""Requests that wait together are captioned together, each gets its own answer."""

import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor

import pytest

from captioner.decoding.options import DecodingOptions
from captioner.serving.batcher import Batcher, Closed, QueueFull

BEAM, GREEDY = DecodingOptions(), DecodingOptions("greedy")


class Device:
    """Stands for the work: an answer names its image; batches wait until they may go."""

    def __init__(self, go=True):
        self.batches = []
        self.started, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self.free, self.answers_of = go, list

    def __call__(self, images, options):
        self.batches.append(list(images))
        self.started.release()
        if not self.free:
            assert self.go.acquire(timeout=10)
        if "broken" in images:
            raise RuntimeError("broken")
        return self.answers_of([f"{image} by {options.method}" for image in images])


@pytest.fixture
def start():
    """Starts a Batcher; all that were started end with the test."""
    started = []

    def build(device, batch_size=4, places=100, watch=lambda size: None):
        batcher = Batcher(device, batch_size=batch_size, places=places, watch=watch)
        batcher.start()
        started.append((batcher, device))
        return batcher

    yield build
    for batcher, device in started:
        device.free = True
        device.go.release(100)
        batcher.join()


def test_what_waits_goes_together_by_options_oldest_first(start):
    device, sizes = Device(go=False), []
    batcher = start(device, watch=sizes.append)
    first = batcher.submit("a", BEAM)
    assert device.started.acquire(timeout=10)  # the device is busy: now requests gather
    order = [("b", GREEDY), ("c", BEAM), ("d", GREEDY), *((x, BEAM) for x in "efghi")]
    answers = [batcher.submit(*each) for each in order]
    assert batcher.waiting == 8
    device.go.release(100)
    assert first.result(10) == "a by beam"
    assert [each.result(10) for each in answers] == [f"{p} by {o.method}" for p, o in order]
    assert device.batches == [["a"], ["b", "d"], ["c", "e", "f", "g"], ["h", "i"]]
    assert sizes == [1, 2, 4, 2] and batcher.waiting == 0


def test_a_broken_image_fails_alone(start):
    device = Device(go=False)
    batcher = start(device)
    first = batcher.submit("a", BEAM)
    assert device.started.acquire(timeout=10)
    answers = {p: batcher.submit(p, BEAM) for p in ("b", "broken", "c")}
    device.go.release(100)
    assert first.result(10) == "a by beam"
    assert answers["b"].result(10) == "b by beam" and answers["c"].result(10) == "c by beam"
    with pytest.raises(RuntimeError, match="broken"):
        answers["broken"].result(10)
    assert batcher.submit("d", BEAM).result(10) == "d by beam"  # and nothing is left behind


def test_an_answer_too_few_is_nobodys(start):
    device = Device()
    device.answers_of = lambda found: found[1:]
    batcher = start(device)
    with pytest.raises(ValueError, match="zip"):
        batcher.submit("a", BEAM).result(10)


def test_what_is_cancelled_in_time_is_never_worked_on(start):
    device = Device(go=False)
    batcher = start(device)
    batcher.submit("a", BEAM)
    assert device.started.acquire(timeout=10)
    late, kept = batcher.submit("b", BEAM), batcher.submit("c", BEAM)
    assert late.cancel()
    device.go.release(100)
    assert kept.result(10) == "c by beam" and device.batches == [["a"], ["c"]]
    with pytest.raises(CancelledError):
        late.result(10)


def test_places_are_bounded_and_come_back(start):
    batcher = start(Device(), places=2)
    with batcher.admit(), batcher.admit():
        assert batcher.taken == 2
        with pytest.raises(QueueFull), batcher.admit():
            pass
    assert batcher.taken == 0
    with pytest.raises(KeyError), batcher.admit():
        raise KeyError
    assert batcher.taken == 0


def test_closing_answers_what_waits_and_refuses_the_rest(start):
    device = Device(go=False)
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


def test_nothing_is_lost_or_mixed_up_among_many_threads(start):
    device, sizes = Device(), []
    batcher = start(device, batch_size=8, watch=sizes.append)

    def ask(number):
        options = (BEAM, GREEDY)[number % 2]
        return batcher.submit(number, options).result(20) == f"{number} by {options.method}"

    with ThreadPoolExecutor(64) as pool:
        assert all(pool.map(ask, range(1000)))
    assert sum(sizes) == 1000 and max(sizes) <= 8
    assert sorted(p for batch in device.batches for p in batch) == list(range(1000))
