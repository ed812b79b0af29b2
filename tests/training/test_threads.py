"""The number of threads follows what other programs leave of the processor."""

import multiprocessing
import time

import pytest
import torch

from captioner.training import threads
from captioner.training.threads import Threads


@pytest.fixture
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


class Load:
    """Times of a machine on which this process uses `own` cores and others use `others`."""

    def __init__(self):
        self.now = self.busy = self.cpu = 0.0

    def run(self, seconds, own, others):
        self.now += seconds
        self.busy += seconds * (own + others)
        self.cpu += seconds * own

    def __call__(self):
        return self.now, self.busy, self.cpu


@pytest.mark.usefixtures("four_threads")
def test_threads_give_way_to_other_programs_and_come_back(capsys):
    load = Load()
    adapted = Threads(load)
    counts = []
    for own, others in ((4, 0), (4, 0.4), (2, 1.2), (2, 2.9), (1, 7), (4, 0)):
        load.run(threads.INTERVAL, own, others)
        adapted.adapt()
        counts.append(torch.get_num_threads())
    assert counts == [4, 4, 3, 1, 1, 4]
    out = capsys.readouterr().out
    assert out.count("note: other programs use") == 1
    assert "use 1.2 cores; training continues with 3 of 4 threads" in out


@pytest.mark.usefixtures("four_threads")
def test_the_load_is_looked_at_rarely_and_the_number_is_restored():
    load = Load()
    adapted = Threads(load)
    load.run(threads.INTERVAL / 2, 1, 3)
    adapted.adapt()
    assert torch.get_num_threads() == 4
    load.run(threads.INTERVAL / 2, 1, 3)
    adapted.adapt()
    assert torch.get_num_threads() == 1
    adapted.close()
    assert torch.get_num_threads() == 4


@pytest.mark.usefixtures("four_threads")
def test_an_unknown_load_changes_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(threads, "STAT", tmp_path / "missing")
    adapted = Threads()
    adapted.adapt()
    assert torch.get_num_threads() == 4


def _spin(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


@pytest.mark.skipif(not threads.STAT.exists(), reason="there is no /proc/stat")
def test_real_times_count_the_work_of_other_processes():
    if (before := threads._read_times()) is None:
        pytest.skip("this process may use only some of the cores")
    process = multiprocessing.get_context("spawn").Process(target=_spin, args=(1.0,))
    process.start()
    process.join()
    after = threads._read_times()
    elapsed, busy, own = (b - a for a, b in zip(before, after, strict=True))
    assert elapsed > 1
    assert busy - own > 0.1  # on a loaded machine, others work as well
