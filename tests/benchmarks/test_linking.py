"""The benchmark of linking: the plain ways agree with the library, and the table has all rows."""

import numpy as np
import pytest
import torch

from benchmarks import linking as benchmark
from benchmarks import mcnn


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for name, value in {"CHANNELS": 16, "WORDS": 50, "CHUNK": 32}.items():
        monkeypatch.setattr(mcnn, name, value)


@pytest.mark.parametrize(
    "build",
    [
        lambda: benchmark.cca(60, 300, (8, 6)),
        lambda: benchmark.maps(3, 4, channels=8, dimensions=5),
        lambda: benchmark.pairs("phrase", 4, 20),
        lambda: benchmark.nearest(200, 16),
    ],
)
def test_both_ways_agree(build):
    with torch.inference_mode():
        plain, library = build()
        name, *numbers = benchmark.row("both", (plain, library), rounds=1)
    assert name == "both"
    assert len(numbers) == 3


def test_ways_that_disagree_are_not_timed(monkeypatch):
    monkeypatch.setattr(benchmark, "search", lambda *_: (np.arange(benchmark.TOP), None))
    with pytest.raises(SystemExit, match="exact search: the plain way and the library disagree"):
        benchmark.nearest(200, 16)
