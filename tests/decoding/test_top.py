"""The largest values, against torch's own selection."""

import pytest
import torch

from captioner.decoding import top as module
from captioner.decoding.top import top


@pytest.mark.parametrize(
    ("rows", "size", "count"),
    [(3, 2541, 10), (2, 64 * 40, 10), (1, 64 * 8 + 1, 2), (2, 300, 1), (2, 70, 3), (1, 5, 5)],
)
def test_the_values_and_indices_are_those_of_topk(rows, size, count):
    values = torch.randn(rows, size, generator=torch.Generator().manual_seed(size))
    expected = values.topk(count)
    best, index = top(values, count)
    assert torch.equal(best, expected.values)
    assert torch.equal(index, expected.indices)


def test_values_after_the_last_whole_chunk_are_found():
    values = torch.zeros(1, 64 * 20 + 3)
    values[0, -2:] = torch.tensor([2.0, 1.0])
    best, index = top(values, 2)
    assert best.tolist() == [[2, 1]]
    assert index.tolist() == [[64 * 20 + 1, 64 * 20 + 2]]


def test_indices_are_distinct_and_exist_if_few_values_are_finite():
    values = torch.full((2, 1000), -torch.inf)
    values[:, 500] = 1
    best, index = top(values, 3)
    assert best[:, 0].tolist() == [1, 1]
    assert best[:, 1:].isneginf().all()
    for row in index.tolist():
        assert len(set(row)) == 3
        assert all(0 <= i < 1000 for i in row)


def test_only_the_chunks_with_the_largest_maxima_are_selected_from(monkeypatch):
    sizes, topk = [], torch.Tensor.topk
    monkeypatch.setattr(
        torch.Tensor, "topk", lambda self, k: (sizes.append(self.shape[1]), topk(self, k))[1]
    )
    top(torch.randn(1, module.CHUNK * 100 + 5), 4)
    assert sizes == [100, 4 * module.CHUNK + 5]
