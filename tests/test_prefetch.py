"""Prefetching: in order, within the limit, with errors in their place."""

import threading
import time

import pytest

from captioner.prefetch import load_ahead, timed


@pytest.mark.parametrize("workers", [0, 1, 3, 50])
def test_items_come_in_order(workers):
    assert list(load_ahead(lambda i: i * i, range(20), workers)) == [i * i for i in range(20)]
    assert list(load_ahead(lambda i: i, [], workers)) == []


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_at_most_so_many_items_are_loaded_ahead_as_there_are_workers(workers):
    requested = []
    loaded = load_ahead(requested.append, range(20), workers)
    next(loaded)
    loaded.close()  # waits for running loads
    assert len(requested) <= 1 + workers


def test_items_are_loaded_by_other_threads_while_the_caller_works():
    """Each load waits until the caller has received the item before it."""
    got = [threading.Event() for _ in range(3)]
    got[0].set()
    for i in load_ahead(lambda i: got[i].wait(60) and i, range(3), 1):
        if i + 1 < len(got):
            got[i + 1].set()
    names = set(load_ahead(lambda _: threading.current_thread().name, range(5), 2))
    assert threading.current_thread().name not in names


@pytest.mark.parametrize("workers", [0, 2])
def test_an_exception_is_raised_in_the_place_of_its_item(workers):
    loaded = load_ahead(lambda i: 1 // (2 - i), range(9), workers)
    assert [next(loaded), next(loaded)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(loaded)
    assert list(loaded) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_loaded_items_are_pinned_on_request(workers):
    class Loaded:
        def pin_memory(self):
            return "pinned"

    assert list(load_ahead(lambda _: Loaded(), range(2), workers, pin=True)) == ["pinned"] * 2
    assert "pinned" not in list(load_ahead(lambda _: Loaded(), range(2), workers))


def test_timing_counts_waiting_and_not_the_use_of_an_item():
    def slow():
        for i in range(3):
            time.sleep(0.05 * i)
            yield i

    times = []
    for item, seconds in timed(slow()):
        times.append((item, seconds))
        time.sleep(0.03)
    assert [item for item, _ in times] == [0, 1, 2]
    for item, seconds in times:
        assert 0.05 * item <= seconds < 0.05 * item + 0.03
