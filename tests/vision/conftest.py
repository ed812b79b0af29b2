"""An image that tests of encoders share."""

import pytest
import torch


@pytest.fixture(scope="module")
def image():
    return torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
