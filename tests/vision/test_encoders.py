"""Encoders against torchvision's classifiers: feature maps, freezing, folded batch norms."""

import subprocess
import sys

import pytest
import torch
import torchvision
from torch import nn

from captioner.errors import InputError
from captioner.vision import encoders
from captioner.vision.encoders import (
    Coordinates,
    Encoder,
    SmallCNN,
    build_encoder,
    fold_batch_norms,
)
from captioner.vision.options import EncoderOptions

TINY = "shufflenet_v2_x0_5"  # the smallest of torchvision's, for tests about files


# ---- feature maps -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "head", "channels"),
    [
        ("resnet18", "fc", 512),
        pytest.param("resnet50", "fc", 2048, marks=pytest.mark.slow),
        ("mobilenet_v2", "classifier", 1280),
        ("mobilenet_v3_small", "classifier", 576),
        ("mobilenet_v3_large", "classifier", 960),
        ("efficientnet_b0", "classifier", 1280),
        pytest.param("convnext_tiny", "classifier", 768, marks=pytest.mark.slow),
        ("densenet121", "classifier", 1024),
        ("shufflenet_v2_x0_5", "fc", 1024),
        ("mnasnet0_5", "classifier", 1280),
        ("regnet_y_400mf", "fc", 440),
        ("googlenet", "fc", 1024),
    ],
)
def test_pooling_and_classifying_the_feature_map_gives_torchvisions_logits(
    name, head, channels, image
):
    settings = {"init_weights": False} if name == "googlenet" else {}
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None, **settings).eval()
    if name == "googlenet":
        model.transform_input = True  # as for its published weights
    classifier, pooled = getattr(model, head), []
    classifier.register_forward_pre_hook(lambda _, inputs: pooled.append(inputs[0]))
    torch.manual_seed(0)
    encoder = build_encoder(name).eval()
    with torch.no_grad():
        expected = model(image)
        features = encoder(image)
        logits = classifier(features.mean((2, 3)).view_as(pooled[0]))
    assert features.shape == (2, channels, 3, 3)
    assert (encoder.channels, encoder.stride) == (channels, 32)
    assert expected.std() > 0
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("resnet18", 512),
        ("resnet34", 512),
        ("resnet50", 2048),
        ("resnet101", 2048),
        ("resnet152", 2048),
        ("mobilenet_v2", 1280),
        ("mobilenet_v3_large", 960),
        ("efficientnet_b0", 1280),
        ("convnext_tiny", 768),
        ("regnet_x_400mf", 400),
        ("inception_v3", 2048),
        ("vgg16", 512),
    ],
)
def test_encoders_are_built_on_the_meta_device(name, channels):
    with torch.device("meta"):
        encoder = build_encoder(name)
        features = encoder(torch.empty(1, 3, 224, 224))
    assert all(parameter.is_meta for parameter in encoder.parameters())
    assert (encoder.channels, encoder.stride) == (channels, 32)
    side = 5 if name == "inception_v3" else 7  # it does not pad
    assert features.shape == (1, channels, side, side)
    assert encoder.frozen
    assert not any(p.requires_grad for p in encoder.parameters())


@pytest.mark.parametrize("size", [32, 96, 224])
def test_the_small_cnn_has_stride_16(size):
    encoder = build_encoder("small_cnn")
    assert (encoder.channels, encoder.stride) == (128, 16)
    assert encoder.stages[:4] == [0, 1, 2, 3]
    assert max(encoder.stages) == 3
    assert encoder(torch.zeros(2, 3, size, size)).shape == (2, 128, size // 16, size // 16)


def test_coordinates_are_those_of_each_cell():
    features = torch.rand(2, 4, 3, 5)
    extended = Coordinates()(features)
    assert extended.shape == (2, 6, 3, 5)
    assert torch.equal(extended[:, :4], features)
    x, y = extended[1, 4], extended[0, 5]
    assert (x / x.max())[[0, 2]].tolist() == [[-1, -0.5, 0, 0.5, 1]] * 2
    assert (y / y.max())[:, [0, 4]].tolist() == [[-1, -1], [0, 0], [1, 1]]
    assert any(isinstance(module, Coordinates) for module in SmallCNN().modules())


@pytest.mark.parametrize("name", ["vit_b_16", "swin_t", "maxvit_t"])
def test_networks_without_a_feature_map_are_refused(name):
    with (
        torch.device("meta"),
        pytest.raises(
            InputError, match=f"'{name}' does not return a square feature map .B, D, h, w.;"
        ),
    ):
        build_encoder(name)


def test_an_unknown_name_is_refused_with_a_list_of_names():
    with pytest.raises(InputError, match=r"unknown encoder 'resnet19'; choose small_cnn, timm:N"):
        build_encoder("resnet19")
    with pytest.raises(InputError, match="resnet18, resnet34, resnet50"):
        build_encoder("fcn_resnet50")  # a torchvision network, but not a classifier


def test_the_fingerprint_changes_with_any_value(tiny_encoder):
    encoder = tiny_encoder()
    first = encoder.fingerprint()
    assert tiny_encoder().fingerprint() == first != tiny_encoder(seed=1).fingerprint()
    for name, value in encoder.state_dict().items():
        before = value.clone()
        value.view(-1)[-1] += 1
        assert encoder.fingerprint() != first, name
        value.copy_(before)
    assert encoder.fingerprint() == first
    assert Encoder("other", encoder.layers).fingerprint() != first


# ---- freezing -----------------------------------------------------------------------------------


def batch_norms_in_training(encoder):
    """The stages whose batch norms update their statistics."""
    return {
        stage
        for stage, layer in zip(encoder.stages, encoder.layers, strict=True)
        for module in layer.modules()
        if isinstance(module, nn.BatchNorm2d) and module.training
    }


@pytest.mark.parametrize("trained_from", [None, 0, 1, 2])
def test_only_stages_from_trained_from_on_are_trained(trained_from, tiny_encoder):
    encoder = tiny_encoder(trained_from)
    trained = set(range(3)) - set(range(3 if trained_from is None else trained_from))
    assert encoder.stages == [0, 1, 2]
    for stage, layer in enumerate(encoder.layers):
        assert {p.requires_grad for p in layer.parameters()} == {stage in trained}
    assert encoder.frozen == (trained_from is None)
    features = encoder(torch.rand(2, 3, 32, 32))
    assert features.shape == (2, 10, 4, 4)
    assert features.requires_grad == bool(trained)
    if trained:
        features.sum().backward()
    for stage, layer in enumerate(encoder.layers):
        assert all((p.grad is not None) == (stage in trained) for p in layer.parameters())


def test_batch_norm_keeps_its_statistics_in_frozen_and_in_pretrained_stages(tiny_encoder):
    for encoder, expected in (
        (tiny_encoder(None), set()),
        (tiny_encoder(1), {1, 2}),
        (tiny_encoder(0), {0, 1, 2}),
        (tiny_encoder(0, pretrained=True), set()),
    ):
        assert batch_norms_in_training(encoder) == expected
        assert batch_norms_in_training(encoder.eval()) == set()
        nn.Sequential(encoder).train()  # as by a model that contains it
        assert batch_norms_in_training(encoder) == expected


def test_fine_tuning_a_resnet_trains_its_last_layer():
    encoder = build_encoder("resnet18", fine_tune_from=4)
    trained = {name for name, p in encoder.named_parameters() if p.requires_grad}
    assert trained
    assert trained == {n for n, _ in encoder.named_parameters() if "layers.7." in n}


def test_a_stage_that_does_not_exist_is_refused(tiny_encoder):
    for stage in (-1, 3):
        message = f"--fine-tune-encoder must be a stage of tiny, from 0 to 2, got {stage}"
        with pytest.raises(InputError, match=message):
            tiny_encoder(stage)


def test_a_small_cnn_without_weights_is_trained():
    assert build_encoder("small_cnn").trained_from == 0
    assert build_encoder("small_cnn", fine_tune_from=2).trained_from == 2
    assert build_encoder(TINY).trained_from is None
    awaiting_weights = build_encoder("small_cnn", pretrained=True)
    assert awaiting_weights.frozen
    assert awaiting_weights.pretrained


def test_building_leaves_batch_norm_statistics_unchanged():
    values = build_encoder("small_cnn").state_dict()
    counters = [value for name, value in values.items() if name.endswith("num_batches_tracked")]
    assert counters
    assert not any(counters)


def test_an_image_size_below_32_is_refused():
    with pytest.raises(InputError, match="image_size must be at least 32, got 31"):
        EncoderOptions(image_size=31)


# ---- batch norms folded into convolutions -------------------------------------------------------


def randomise_batch_norms(encoder):
    """Give every batch norm other statistics and weights than at initialisation."""
    generator = torch.Generator().manual_seed(5)
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.bias, module.running_mean, module.running_var):
                drawn = torch.rand(values.shape, generator=generator)
                values.data.copy_(drawn + 0.5)
    return encoder


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("resnet18", 0),
        ("mobilenet_v2", 0),
        ("mobilenet_v3_small", 0),
        ("efficientnet_b0", 0),
        ("densenet121", 62),  # those before their convolution
        ("shufflenet_v2_x0_5", 0),
        ("mnasnet0_5", 0),
        ("regnet_y_400mf", 0),
        pytest.param("googlenet", 0, marks=pytest.mark.slow),
        ("small_cnn", 5),  # those after pooling or its stand-in
    ],
)
def test_folding_does_not_change_the_features(name, left, image):
    encoder = randomise_batch_norms(build_encoder(name)).eval()
    with torch.no_grad():
        expected, folded = encoder.layers(image), encoder(image)
    scale = expected.abs().max().item()
    torch.testing.assert_close(folded, expected, rtol=1e-3, atol=1e-4 * scale)
    modules = fold_batch_norms(encoder.layers).modules()
    norms = [module for module in modules if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == left


def test_batch_norms_are_folded_once(tiny_encoder, image, monkeypatch):
    copies = []
    monkeypatch.setattr(
        encoders,
        "fold_batch_norms",
        lambda layers: copies.append(fold_batch_norms(layers)) or copies[-1],
    )
    encoder = tiny_encoder(0).eval()
    with torch.inference_mode():
        assert torch.equal(encoder(image), encoder(image))
    assert len(copies) == 1


def test_the_folded_copy_follows_the_weights(tiny_encoder, image):
    encoder = tiny_encoder(0).eval()
    with torch.inference_mode():
        first = encoder(image)
    names = set(encoder.state_dict())
    with torch.no_grad():
        next(encoder.parameters()).mul_(2)
        changed = encoder(image)
        assert not torch.allclose(changed, first)
        torch.testing.assert_close(changed, encoder.layers(image))
    encoder.train()(image)  # updates the statistics
    with torch.no_grad():
        torch.testing.assert_close(encoder.eval()(image), encoder.layers(image))
    encoder.load_state_dict(tiny_encoder(0, seed=1).state_dict())
    with torch.no_grad():
        torch.testing.assert_close(encoder(image), encoder.layers(image))
    assert set(encoder.state_dict()) == names


def test_gradients_flow_through_the_layers_themselves(tiny_encoder, image):
    encoder = tiny_encoder(0).eval()
    with torch.no_grad():
        encoder(image)
    encoder(image).sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


def test_the_folded_copy_follows_an_optimizer_whose_writes_torch_does_not_count(
    tiny_encoder, image
):
    encoder = tiny_encoder(0, pretrained=True)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=0.1, fused=True)
    for _ in range(2):
        with torch.no_grad():
            torch.testing.assert_close(encoder.eval()(image), encoder.layers(image))
        encoder.train()(image).sum().backward()
        optimizer.step()
    with torch.no_grad():
        torch.testing.assert_close(encoder.eval()(image), encoder.layers(image))


def test_torchvision_is_imported_without_the_compiler():
    code = (
        "import sys, captioner.vision.encoders, torch\n"
        "print('torch._dynamo' in sys.modules)\n"
        "boxes = torch.tensor([[0, 0, 0, 3, 3.0]])\n"
        "import torchvision\n"
        "print(torchvision.ops.roi_align(torch.ones(1, 1, 4, 4), boxes, (1, 1)).item())\n"
        "import torch._dynamo.utils\n"
        "print(type(torch._dynamo.utils).__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "1.0", "module"]
