"""Models built without memory have the shapes of real ones, and need no compiler."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from captioner.meta import on_meta_device
from captioner.vision.encoders import build_encoder

ENCODERS = ("mobilenet_v2", "resnet18", "efficientnet_b0", "mobilenet_v3_small", "densenet121")


@pytest.mark.parametrize("name", [*ENCODERS, "convnext_tiny", "small_cnn", "vgg11", "googlenet"])
def test_an_encoder_has_the_same_shapes_and_receptive_field(name):
    real = build_encoder(name, None, pretrained=False)
    with on_meta_device():
        empty = build_encoder(name, None, pretrained=False)
    shapes = [
        {key: tuple(value.shape) for key, value in encoder.state_dict().items()}
        for encoder in (real, empty)
    ]
    assert shapes[0] == shapes[1]
    assert all(value.is_meta for value in empty.parameters())
    for field in ("stages", "channels", "stride", "offset"):
        assert getattr(real, field) == getattr(empty, field)


def test_outside_the_context_values_are_drawn():
    with on_meta_device():
        assert nn.Linear(3, 4).weight.is_meta
    torch.manual_seed(0)
    assert nn.Linear(3, 4).weight.abs().sum() > 0
    with on_meta_device():
        drawn = torch.zeros(5, device="cpu").normal_()
    assert drawn.abs().sum() > 0


@pytest.mark.parametrize("name", ENCODERS[:2])
def test_the_compiler_is_not_imported(name):
    code = (
        "import sys\n"
        "from captioner.meta import on_meta_device\n"
        "from captioner.vision.encoders import build_encoder\n"
        "with on_meta_device():\n"
        f"    build_encoder({name!r}, None, pretrained=False)\n"
        "print('torch._dynamo' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
