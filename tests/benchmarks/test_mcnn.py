"""The benchmark of m-CNNs: unsplit networks give the same scores, and the table has all levels."""

import pytest
import torch

from benchmarks import mcnn as benchmark
from captioner.models.linking.options import LEVELS

CPU = torch.device("cpu")


@pytest.fixture
def small(monkeypatch):
    sizes = {"CHANNELS": 16, "WORDS": 50, "CHUNK": 32}
    for name, value in sizes.items():
        monkeypatch.setattr(benchmark, name, value)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.usefixtures("small")
def test_unsplit_scores_are_the_same(level):
    model, (features, texts) = benchmark.build(level, CPU), benchmark.draw(5, 40, CPU)
    with torch.inference_mode():
        found = benchmark.split(model, features, texts)
        expected = benchmark.unsplit(model, features, texts, block=7)
        once, every = benchmark.layer_alone(model, features, texts)
        torch.testing.assert_close(once(), every(), atol=1e-5, rtol=0)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert found.shape == (5, 40)


@pytest.mark.usefixtures("small")
def test_the_table(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", "benchmarks.mcnn --images 5 --texts 40 --rounds 1".split())
    benchmark.main()
    out = capsys.readouterr().out
    assert [line.split(" | ")[0] for line in out.splitlines()[2:6]] == [f"| {n}" for n in LEVELS]
    assert "5 x 40 pairs." in out
