"""Fused layers against the ordinary ones: all families, fallback, blocks, precisions, copies."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from captioner.vision import cpu_layers
from captioner.vision.cpu_layers import CPULayers, FusedConv, FusedResidual, can_fuse, fuse
from captioner.vision.encoders import build_encoder, fold_batch_norms

pytestmark = pytest.mark.skipif(not can_fuse(), reason="convolutions are fused on x86 only")

LINEAR, FLOAT, HALF = nn.Identity, torch.float32, torch.bfloat16
FUNCTIONS = {
    LINEAR: lambda values: values,
    nn.ReLU: F.relu,
    nn.ReLU6: F.relu6,
    nn.SiLU: F.silu,
    nn.Hardswish: F.hardswish,
}


def count(layers, kind):
    return sum(isinstance(module, kind) for module in layers.modules())


def chosen(encoder):
    """Return the layers that an encoder uses, as one module."""
    return nn.ModuleList(encoder._fold[1]._chosen)


def plain_features(encoder, images):
    return encoder.inference_layers()(images.contiguous(memory_format=torch.channels_last))


@pytest.fixture
def encoder():
    torch.manual_seed(1)
    return build_encoder("mobilenet_v2", pretrained=True).eval()


# ---- networks -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "residuals", "activations"),
    [
        ("resnet18", 8, 0),
        pytest.param("resnet50", 16, 0, marks=pytest.mark.slow),
        pytest.param("resnext50_32x4d", 16, 0, marks=pytest.mark.slow),
        ("mobilenet_v2", 10, 0),
        ("mobilenet_v3_small", 6, 9),  # those of squeeze-and-excitation remain, also below
        ("efficientnet_b0", 9, 16),
        pytest.param("efficientnet_v2_s", 33, 30, marks=pytest.mark.slow),
        ("densenet121", 0, 120),  # those before their convolution
        ("shufflenet_v2_x0_5", 0, 0),
        ("mnasnet0_5", 10, 0),
        ("regnet_y_400mf", 16, 16),
        ("squeezenet1_1", 0, 24),
        pytest.param("googlenet", 0, 0, marks=pytest.mark.slow),
        pytest.param("vgg11", 0, 0, marks=pytest.mark.slow),
        ("small_cnn", 0, 5),  # those after pooling or its stand-in
    ],
)
def test_fused_networks_agree_with_the_ordinary_ones(name, residuals, activations, image):
    torch.manual_seed(2)
    encoder = build_encoder(name, pretrained=True).eval()
    with torch.no_grad():
        found, expected = encoder(image), plain_features(encoder, image)
    assert (found - expected).norm() <= 1e-5 * expected.norm()
    assert found.is_contiguous(memory_format=torch.channels_last)
    layers = chosen(encoder)
    assert count(layers, nn.Conv2d) == 0
    assert count(layers, FusedResidual) == residuals
    assert count(layers, nn.ReLU | nn.ReLU6 | nn.SiLU | nn.Hardswish) == activations


def test_every_weight_is_in_the_fused_network(encoder, image):
    layers = fold_batch_norms(encoder.layers)
    convolutions = [module for module in layers.modules() if isinstance(module, nn.Conv2d)]
    with torch.no_grad():
        first = fuse(layers, FLOAT)(image)
        for number in range(0, len(convolutions), 7):
            convolutions[number].bias.add_(0.5)
            second = fuse(layers, FLOAT)(image)
            assert not torch.allclose(first, second)
            torch.testing.assert_close(second, layers(image), rtol=1e-4, atol=1e-4)
            first = second


# ---- convolutions -------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", FUNCTIONS)
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 1},
        {"kernel_size": 3, "padding": 1, "stride": 2},
        {"kernel_size": 3, "padding": 2, "dilation": 2, "bias": False},
        {"kernel_size": 3, "padding": 1, "groups": 16},
        {"kernel_size": (1, 5), "padding": (0, 2), "groups": 4},
    ],
)
def test_a_fused_convolution_for_maps_of_several_sizes(activation, options):
    torch.manual_seed(3)
    conv = nn.Conv2d(16, 32, **options)
    fused = FusedConv(conv, FLOAT, activation)
    with torch.no_grad():
        for shape in ((2, 16, 9, 9), (1, 16, 9, 9), (3, 16, 14, 11), (2, 16, 9, 9)):
            maps = 3 * torch.randn(shape)
            torch.testing.assert_close(fused(maps), FUNCTIONS[activation](conv(maps)))
            assert fused._packed[0] == shape[-2:]  # weights packed for other sizes can be slow


@pytest.mark.parametrize("is_rectified", [False, True])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_fused_addition(is_rectified, mode):
    torch.manual_seed(4)
    conv = nn.Conv2d(8, 24, 3, padding=1)
    with mode():
        maps, target = torch.randn(2, 8, 7, 7), torch.randn(2, 24, 7, 7)
        total = conv(maps) + target
        found = FusedConv(conv, FLOAT).add_to(target, maps, is_rectified)
    torch.testing.assert_close(found, total.relu() if is_rectified else total)


def test_the_input_of_a_block_is_not_overwritten_while_its_only_convolution_reads_it():
    torch.manual_seed(5)
    block = torchvision.models.mobilenetv2.InvertedResidual(8, 8, 1, 2)
    block.conv = nn.Conv2d(8, 8, 3, padding=1)
    maps = torch.randn(1, 8, 9, 9)
    with torch.no_grad():
        expected = block(maps)
        torch.testing.assert_close(fuse(nn.Sequential(block), FLOAT)(maps), expected)


def test_convolutions_that_are_not_plain_are_left():
    layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect"), nn.ReLU())
    fused = fuse(layers, FLOAT)
    assert count(fused, FusedConv) == 0
    maps = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(fused(maps), layers(maps))


# ---- encoders -----------------------------------------------------------------------------------


def test_many_images_pass_the_large_maps_in_blocks(encoder, image, monkeypatch):
    monkeypatch.setattr(cpu_layers, "BLOCK_PIXELS", 2 * 96 * 96)
    images = torch.cat([image, 2 * image, image[:1] / 2])
    kept = images.clone()
    sizes = []
    with torch.inference_mode():
        encoder(images)
        large, small = encoder._fold[1]._chosen
        large.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
        small.register_forward_hook(lambda _, inputs, __: sizes.append(inputs[0].shape))
        found = encoder(images)
    assert sizes == [2, 2, 1, (5, 32, 12, 12)]
    torch.testing.assert_close(found, plain_features(encoder, images), rtol=1e-4, atol=1e-4)
    assert torch.equal(images, kept)


def test_images_of_several_sizes_and_none(encoder, image):
    with torch.inference_mode():
        for images in (image, image[..., :64, :80], image, image[:0]):
            expected = plain_features(encoder, images)
            torch.testing.assert_close(encoder(images), expected, rtol=1e-4, atol=1e-4)


def changed(*_):
    raise RuntimeError("another signature")


@pytest.mark.parametrize(
    ("owner", "name", "value"),
    [
        (torch.ops.mkldnn, "_convolution_pointwise", changed),
        (torch.ops.mkldnn, "_reorder_convolution_weight", changed),
        (cpu_layers._ACTIVATIONS, nn.ReLU6, ("relu", [])),  # as if torch changed its meaning
        (cpu_layers, "can_fuse", lambda: False),
    ],
)
def test_the_ordinary_layers_are_used_where_fused_ones_fail(
    owner, name, value, encoder, image, monkeypatch
):
    for layer in encoder.modules():  # so that ReLU and ReLU6 differ
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.constant_(layer.bias, 4)
    set_value = monkeypatch.setitem if isinstance(owner, dict) else monkeypatch.setattr
    set_value(owner, name, value)
    with torch.inference_mode():
        assert torch.equal(encoder(image), plain_features(encoder, image))
    assert count(chosen(encoder), FusedConv) == 0


def test_weights_that_are_not_numbers_show(encoder, image):
    with torch.no_grad():
        next(encoder.parameters()).fill_(torch.nan)
        assert encoder(image).isnan().any()


def test_the_precision_follows_autocast(encoder, image):
    with torch.inference_mode():
        expected = plain_features(encoder, image)
        for _ in range(2):
            with torch.autocast("cpu", HALF):
                found = encoder(image)
            assert found.dtype == HALF
            assert 1e-4 < (found - expected).norm() / expected.norm() < 0.05
            assert all(m.dtype == HALF for m in chosen(encoder).modules() if hasattr(m, "dtype"))
            torch.testing.assert_close(encoder(image), expected, rtol=1e-4, atol=1e-4)
        assert count(chosen(encoder), FusedConv) == 52
        encoder.double()
        assert encoder(image.double()).dtype == torch.float64
        assert count(chosen(encoder), FusedConv) == 0


def test_copies_and_exports_have_no_fused_layers(encoder, image):
    with torch.no_grad():
        expected = encoder(image)
        for copied in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
            assert copied._fold is None
            assert torch.equal(copied(image), expected)
    assert count(encoder.inference_layers(), FusedConv) == 0
    assert set(dict(encoder.named_modules())) == set(dict(copied.named_modules()))


def test_layers_in_inference_mode_also_work_outside(encoder, image):
    layers = CPULayers(encoder.inference_layers(), encoder.stages, FLOAT)
    images = image.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        expected = layers(images)
    with torch.no_grad():
        assert torch.equal(layers(images), expected)
        layers(images[..., :64])
        assert torch.equal(layers(images), expected)
