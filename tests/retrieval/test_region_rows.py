"""Region embeddings as bytes."""

import numpy as np
import torch

from captioner.retrieval.index_files import RegionShape
from captioner.retrieval.region_rows import pack, unpack


def test_cosines_survive_packing():
    torch.manual_seed(0)
    for size in (1, 40, 300):
        regions = torch.nn.functional.normalize(torch.randn(4, 3, size, 2, 5), dim=2)
        shape = RegionShape(3, size, 2, 5)
        rows = pack(regions)
        assert (rows.dtype, rows.shape) == (np.uint8, (4, shape.bytes))
        found = unpack(rows, shape)
        vectors = torch.nn.functional.normalize(torch.randn(50, size), dim=1)
        before, after = (torch.einsum("nkehw,le->nklhw", r, vectors) for r in (regions, found))
        assert (before - after).abs().max() < 0.005


def test_zeros_stay_zeros():
    shape = RegionShape(1, 2, 1, 1)
    assert (unpack(pack(torch.zeros(1, 1, 2, 1, 1)), shape) == 0).all()
