"""Stages and offsets of encoders, against their layers and gradients."""

import pytest
import torch
from torch import nn

from captioner.vision.encoders import build_encoder


def test_stages_of_a_resnet_are_its_layers():
    with torch.device("meta"):
        encoder = build_encoder("resnet18")
    # conv1, bn1 and relu at half the size; maxpool and layer1 at a quarter; layer2; layer3; layer4
    assert encoder.stages == [0, 0, 0, 1, 1, 2, 3, 4]


@pytest.mark.parametrize("name", ["mobilenet_v2", "mnasnet0_5", "regnet_y_400mf", "densenet121"])
def test_other_networks_have_the_same_five_stages(name):
    with torch.device("meta"):
        encoder = build_encoder(name)
    assert sorted(set(encoder.stages)) == [0, 1, 2, 3, 4]
    assert encoder.stages == sorted(encoder.stages)


def receptive_field_centre(layers, side, light):
    """Column of the middle cell's receptive field's centre, in pixels, and the cell's index.

    It is the mean column of the gradient if all weights are equal and all pixels are `light`.
    """
    for parent in list(layers.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.MaxPool2d):  # its gradient would go to one of many equal inputs
                shape = child.kernel_size, child.stride, child.padding, child.ceil_mode
                setattr(parent, name, nn.AvgPool2d(*shape))
    values = {name: torch.ones(value.shape) for name, value in layers.state_dict().items()}
    for name, value in values.items():
        value /= value[0].numel() if value.ndim == 4 else 1
        if name.endswith(("bias", "running_mean")):
            value.zero_()
    layers.load_state_dict(values, assign=True)
    images = torch.full((1, 3, side, side), light, requires_grad=True)
    features = layers.eval()(images)
    middle = features.shape[-1] // 2
    (gradient,) = torch.autograd.grad(features[0, :, middle, middle].sum(), images)
    columns = gradient.sum((0, 1, 2))
    return (columns * torch.arange(side)).sum().item() / columns.sum().item(), middle


@pytest.mark.parametrize(
    ("name", "side", "light", "low", "high"),
    [
        ("resnet18", 256, 0.01, -0.5, -0.4),
        (
            "mobilenet_v3_small",
            256,
            0.01,
            -0.5,
            -0.4,
        ),  # dark, as squeeze and excitation sees the whole image
        pytest.param("densenet121", 192, 0.01, -0.1, 0.0, marks=pytest.mark.slow),
        ("googlenet", 256, 1.0, 0.1, 0.3),  # anything darker is negative after Recentre
        ("small_cnn", 256, 1.0, 0, 0),
    ],
)
def test_the_offset_is_that_of_the_gradient(name, side, light, low, high):
    with torch.device("meta"):  # drawing weights takes longer than the rest
        encoder = build_encoder(name)
    centre, cell = receptive_field_centre(encoder.layers, side, light)
    square = cell * encoder.stride + (encoder.stride - 1) / 2
    assert encoder.offset == pytest.approx((centre - square) / encoder.stride, abs=0.02)
    assert low <= encoder.offset <= high


@pytest.mark.parametrize("name", ["vgg11", "convnext_tiny", "alexnet"])
def test_networks_that_halve_by_pooling_or_patches_have_no_offset(name):
    with torch.device("meta"):
        assert build_encoder(name).offset == 0
