"""What is loaded ahead: in order, no further than asked for, errors in their place."""

import threading
import time

import pytest

from captioner.prefetch import load_ahead, timed


@pytest.mark.parametrize("workers", [0, 1, 3, 50])
def test_all_in_order(workers):
    assert list(load_ahead(lambda i: i * i, range(20), workers)) == [i * i for i in range(20)]
    assert list(load_ahead(lambda i: i, [], workers)) == []


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_no_more_is_loaded_than_may_be_ahead(workers):
    asked = []
    loaded = load_ahead(asked.append, range(20), workers)
    next(loaded)
    loaded.close()  # waits for what is under way
    assert len(asked) <= 1 + workers


def test_it_loads_while_the_caller_is_busy():
    """Each load waits for the caller to have got the one before it."""
    got = [threading.Event() for _ in range(3)]
    got[0].set()
    for i in load_ahead(lambda i: got[i].wait(60) and i, range(3), 1):
        if i + 1 < len(got):
            got[i + 1].set()
    names = set(load_ahead(lambda i: threading.current_thread().name, range(5), 2))
    assert threading.current_thread().name not in names


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_comes_in_its_place(workers):
    loaded = load_ahead(lambda i: 1 // (2 - i), range(9), workers)
    assert [next(loaded), next(loaded)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(loaded)
    assert list(loaded) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_loaded_is_pinned_where_that_is_asked_for(workers):
    class Loaded:
        def pin_memory(self):
            return "pinned"

    assert list(load_ahead(lambda i: Loaded(), range(2), workers, pin=True)) == ["pinned"] * 2
    assert "pinned" not in list(load_ahead(lambda i: Loaded(), range(2), workers))


def test_the_time_that_each_takes_to_come_is_not_that_of_its_use():
    def slow():
        for i in range(3):
            time.sleep(0.05 * i)
            yield i

    found = []
    for item, seconds in timed(slow()):
        found.append((item, seconds))
        time.sleep(0.03)
    assert [item for item, _ in found] == [0, 1, 2]
    for item, seconds in found:
        assert 0.05 * item <= seconds < 0.05 * item + 0.03
