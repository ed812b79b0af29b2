"""Encoders against torchvision's own classifiers: what reaches the pooling, weights, freezing."""

import urllib.error

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from captioner.errors import InputError
from captioner.vision.encoders import Coordinates, Encoder, EncoderOptions, SmallCNN, build_encoder

TINY = "shufflenet_v2_x0_5"  # the smallest of torchvision's, for tests about files


@pytest.fixture(scope="module")
def image():
    return torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def tiny_values():
    """Values for the whole of TINY, as a file holds them, its statistics unlike those at birth."""
    torch.manual_seed(3)
    values = torchvision.models.get_model(TINY, weights=None).state_dict()
    return {k: torch.rand_like(v) + 0.5 if v.is_floating_point() else v for k, v in values.items()}


# ---- the cut ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "head", "channels"),
    [
        ("resnet18", "fc", 512),
        ("resnet50", "fc", 2048),
        ("mobilenet_v2", "classifier", 1280),
        ("mobilenet_v3_small", "classifier", 576),
        ("mobilenet_v3_large", "classifier", 960),
        ("efficientnet_b0", "classifier", 1280),
        ("convnext_tiny", "classifier", 768),
        ("densenet121", "classifier", 1024),
        ("shufflenet_v2_x0_5", "fc", 1024),
        ("mnasnet0_5", "classifier", 1280),
        ("regnet_y_400mf", "fc", 440),
        ("googlenet", "fc", 1024),
    ],
)
def test_trunk_and_pooling_and_classifier_are_the_torchvision_model(name, head, channels, image):
    settings = {"init_weights": False} if name == "googlenet" else {}
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None, **settings).eval()
    if name == "googlenet":
        model.transform_input = True  # as its published weights ask for
    classifier, reached = getattr(model, head), []
    classifier.register_forward_pre_hook(lambda module, inputs: reached.append(inputs[0]))
    torch.manual_seed(0)
    encoder = build_encoder(name).eval()
    with torch.no_grad():
        expected = model(image)
        features = encoder(image)
        logits = classifier(features.mean((2, 3)).view_as(reached[0]))
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
def test_networks_are_built_without_memory(name, channels):
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
def test_the_small_cnn(size):
    encoder = build_encoder("small_cnn")
    assert (encoder.channels, encoder.stride) == (128, 16)
    assert encoder.stages[:4] == [0, 1, 2, 3]
    assert max(encoder.stages) == 3
    assert encoder(torch.zeros(2, 3, size, size)).shape == (2, 128, size // 16, size // 16)


def test_coordinates_say_where_each_cell_is():
    features = torch.rand(2, 4, 3, 5)
    seen = Coordinates()(features)
    assert seen.shape == (2, 6, 3, 5)
    assert torch.equal(seen[:, :4], features)
    x, y = seen[1, 4], seen[0, 5]
    assert (x / x.max())[[0, 2]].tolist() == [[-1, -0.5, 0, 0.5, 1]] * 2
    assert (y / y.max())[:, [0, 4]].tolist() == [[-1, -1], [0, 0], [1, 1]]
    assert any(isinstance(module, Coordinates) for module in SmallCNN().modules())


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


@pytest.mark.parametrize("name", ["vit_b_16", "swin_t", "maxvit_t"])
def test_what_is_not_a_cnn_is_refused(name):
    with (
        torch.device("meta"),
        pytest.raises(InputError, match=f"'{name}' gives no feature map .B, D, h, w.; choose"),
    ):
        build_encoder(name)


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"unknown encoder 'resnet19'; choose small_cnn or one of"):
        build_encoder("resnet19")
    with pytest.raises(InputError, match="resnet18, resnet34, resnet50"):
        build_encoder("fcn_resnet50")  # known to torchvision, but no classifier


# ---- weights ------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_files_load_the_very_values(suffix, tiny_values, tmp_path, image):
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(tiny_values, path)
    encoder = build_encoder(TINY, str(path))
    model = torchvision.models.get_model(TINY, weights=None).eval()
    model.load_state_dict(tiny_values)
    reached = []
    model.fc.register_forward_pre_hook(lambda module, inputs: reached.append(inputs[0]))
    with torch.no_grad():
        model(image)
    torch.testing.assert_close(encoder(image).mean((2, 3)), reached[0])
    assert torch.equal(encoder.layers[0][0].weight, tiny_values["conv1.0.weight"])
    assert torch.equal(encoder.layers[0][1].running_var, tiny_values["conv1.1.running_var"])


def test_the_classifier_need_not_fit_nor_be_there(tiny_values, tmp_path):
    path = tmp_path / "weights.pth"
    tiny_values["fc.weight"] = torch.zeros(10, 1024)
    del tiny_values["fc.bias"]
    torch.save(tiny_values, path)
    build_encoder(TINY, str(path))


def test_old_files_without_batch_norm_counters_load(tiny_values, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({k: v for k, v in tiny_values.items() if "num_batches" not in k}, path)
    encoder = build_encoder(TINY, str(path))
    assert torch.equal(encoder.layers[0][1].running_var, tiny_values["conv1.1.running_var"])


def test_densenet_files_with_the_old_names_load(tmp_path):
    path = tmp_path / "weights.safetensors"
    with torch.device("meta"):
        names = torchvision.models.densenet121(weights=None).state_dict()
    values = {}
    for name, value in names.items():
        for layer in ("norm1", "conv1", "norm2", "conv2"):
            name = name.replace(f".{layer}.", f".{layer[:-1]}.{layer[-1]}.")
        if value.is_floating_point():
            values[name] = torch.full(value.shape, 0.25)
    assert "features.denseblock1.denselayer1.norm.1.weight" in values
    save_file(values, path)
    encoder = build_encoder("densenet121", str(path))
    assert all((parameter == 0.25).all() for parameter in encoder.parameters())


def test_small_cnn_files(tmp_path):
    path = tmp_path / "small.safetensors"
    trained = build_encoder("small_cnn")
    save_file(trained.layers.state_dict(), path)
    loaded = build_encoder("small_cnn", str(path))
    assert loaded.fingerprint() == trained.fingerprint()
    assert loaded.frozen
    assert not trained.frozen


def without_conv1(values):
    del values["conv1.0.weight"]


def with_another_shape(values):
    values["conv1.0.weight"] = torch.zeros(24, 3, 5, 5)


def with_nan(values):
    values["conv5.0.weight"][3] = torch.nan


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_conv1, f"the weights do not fit {TINY}: conv1.0.weight is missing"),
        (with_another_shape, r"conv1.0.weight is \(24, 3, 5, 5\), not \(24, 3, 3, 3\)"),
        (with_nan, "conv5.0.weight is not finite"),
        (dict.clear, r"conv1.0.weight is missing; .*; and \d+ more"),
    ],
)
def test_weights_that_do_not_fit(spoil, message, tiny_values, tmp_path):
    path = tmp_path / "weights.pth"
    spoil(tiny_values)
    torch.save(tiny_values, path)
    with pytest.raises(InputError, match=message):
        build_encoder(TINY, str(path))


def test_files_that_hold_no_weights(tiny_values, tmp_path):
    def load(name):
        return build_encoder(TINY, str(tmp_path / name))

    with pytest.raises(InputError, match=r"encoder weights .*none.pth do not exist"):
        load("none.pth")
    torch.save({"state_dict": tiny_values, "epoch": 3}, tmp_path / "training.pth")
    with pytest.raises(InputError, match=r"training.pth hold no plain state dict of tensors"):
        load("training.pth")
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")  # a pickled object is not unpickled
    with pytest.raises(InputError, match=r"module.pth cannot be read: Weights only load failed"):
        load("module.pth")
    torch.save(tiny_values, tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    for name, content, reason in (
        ("cut.pth", whole[: len(whole) // 2], r"\S"),
        ("empty.pth", b"", "the file is empty"),
        ("foreign.safetensors", whole, r"\S"),
        ("empty.safetensors", b"", r"\S"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=rf"{name} cannot be read: {reason}"):
            load(name)


def test_weights_by_torchvision_name(tiny_values, monkeypatch):
    asked = []

    def download(url, **settings):
        asked.append(url)
        return tiny_values

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    for name in ("IMAGENET1K_V1", "DEFAULT"):
        encoder = build_encoder(TINY, name)
        assert torch.equal(encoder.layers[0][0].weight, tiny_values["conv1.0.weight"])
    assert len(asked) == 2
    assert all("shufflenetv2_x0.5" in url for url in asked)

    def offline(url, **settings):
        raise urllib.error.URLError("no route")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(InputError, match=r"IMAGENET1K_V1 of .* could not be downloaded: .*no rout"):
        build_encoder(TINY, "IMAGENET1K_V1")
    with pytest.raises(InputError, match=r"has no weights 'V7'; torchvision has IMAGENET1K_V1"):
        build_encoder(TINY, "V7")
    with pytest.raises(InputError, match=r"small_cnn has no published weights; .* takes a file"):
        build_encoder("small_cnn", "DEFAULT")


def test_nothing_is_downloaded_unasked(monkeypatch):
    def download(url, **settings):
        raise AssertionError(url)

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    build_encoder(TINY)


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


# ---- what is trained ----------------------------------------------------------------------------


def batch_norms_in_training(encoder):
    """The stages whose batch norms would change their statistics."""
    return {
        stage
        for stage, layer in zip(encoder.stages, encoder.layers, strict=True)
        for module in layer.modules()
        if isinstance(module, nn.BatchNorm2d) and module.training
    }


@pytest.mark.parametrize("trained_from", [None, 0, 1, 2])
def test_exactly_the_stages_asked_for_are_trained(trained_from, tiny_encoder):
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


def test_batch_norm_learns_only_in_trained_stages_without_weights_of_their_own(tiny_encoder):
    for encoder, expected in (
        (tiny_encoder(None), set()),
        (tiny_encoder(1), {1, 2}),
        (tiny_encoder(0), {0, 1, 2}),
        (tiny_encoder(0, pretrained=True), set()),
    ):
        assert batch_norms_in_training(encoder) == expected
        assert batch_norms_in_training(encoder.eval()) == set()
        nn.Sequential(encoder).train()  # as the model that holds it does
        assert batch_norms_in_training(encoder) == expected


def test_fine_tuning_a_resnet_trains_its_last_layer():
    encoder = build_encoder("resnet18", fine_tune_from=4)
    trained = {name for name, p in encoder.named_parameters() if p.requires_grad}
    assert trained
    assert trained == {n for n, _ in encoder.named_parameters() if "layers.7." in n}


def test_stages_that_do_not_exist(tiny_encoder):
    for stage in (-1, 3):
        message = f"--fine-tune-encoder must be a stage of tiny, from 0 to 2, got {stage}"
        with pytest.raises(InputError, match=message):
            tiny_encoder(stage)


def test_a_small_cnn_without_weights_is_trained():
    assert build_encoder("small_cnn").trained_from == 0
    assert build_encoder("small_cnn", fine_tune_from=2).trained_from == 2
    assert build_encoder(TINY).trained_from is None
    coming = build_encoder("small_cnn", pretrained=True)
    assert coming.frozen
    assert coming.pretrained


def test_building_moves_no_statistics():
    values = build_encoder("small_cnn").state_dict()
    counters = [value for name, value in values.items() if name.endswith("num_batches_tracked")]
    assert counters
    assert not any(counters)


def test_images_must_have_32_pixels():
    with pytest.raises(InputError, match="image_size must be at least 32, got 31"):
        EncoderOptions(image_size=31)


# ---- batch norms folded into convolutions -------------------------------------------------------


def unlike_at_birth(encoder):
    """Give every batch norm statistics and weights of its own."""
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
        ("densenet121", 62),  # those that stand before their convolution
        ("shufflenet_v2_x0_5", 0),
        ("mnasnet0_5", 0),
        ("regnet_y_400mf", 0),
        ("googlenet", 0),
        ("small_cnn", 5),  # those behind a pooling or what stands for one
    ],
)
def test_folding_changes_nothing(name, left, image):
    encoder = unlike_at_birth(build_encoder(name)).eval()
    with torch.no_grad():
        expected, folded = encoder.layers(image), encoder(image)
    scale = expected.abs().max().item()
    torch.testing.assert_close(folded, expected, rtol=1e-3, atol=1e-4 * scale)
    norms = [m for m in encoder._folded().modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == left


def test_the_folded_copy_follows_the_weights(tiny_encoder, image):
    encoder = tiny_encoder(0).eval()
    with torch.inference_mode():
        first = encoder(image)
        assert encoder._folded() is encoder._folded()
    names = set(encoder.state_dict())
    with torch.no_grad():
        next(encoder.parameters()).mul_(2)
        changed = encoder(image)
        assert not torch.allclose(changed, first)
        torch.testing.assert_close(changed, encoder.layers(image))
    encoder.train()(image)  # moves the statistics
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


def middle_of_what_a_cell_sees(layers, side, light):
    """Of the middle cell, in pixels: where its gradient lies with weights and pixels all alike."""
    for parent in list(layers.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.MaxPool2d):  # whose gradient would lie at one of many equals
                shape = child.kernel_size, child.stride, child.padding, child.ceil_mode
                setattr(parent, name, nn.AvgPool2d(*shape))
    values = {name: torch.ones(each.shape) for name, each in layers.state_dict().items()}
    for name, each in values.items():
        each /= each[0].numel() if each.ndim == 4 else 1
        if name.endswith(("bias", "running_mean")):
            each.zero_()
    layers.load_state_dict(values, assign=True)
    images = torch.full((1, 3, side, side), light, requires_grad=True)
    features = layers.eval()(images)
    middle = features.shape[-1] // 2
    (gradient,) = torch.autograd.grad(features[0, :, middle, middle].sum(), images)
    columns = gradient.sum((0, 1, 2))
    return (columns * torch.arange(side)).sum().item() / columns.sum().item(), middle


@pytest.mark.parametrize(
    ("name", "side", "light", "least", "most"),
    [
        ("resnet18", 256, 0.01, -0.5, -0.4),
        ("mobilenet_v3_small", 256, 0.01, -0.5, -0.4),  # little light: it looks at the whole, too
        ("densenet121", 192, 0.01, -0.1, 0.0),
        ("googlenet", 256, 1.0, 0.1, 0.3),  # less would be dark once it is recentred
        ("small_cnn", 256, 1.0, 0, 0),
    ],
)
def test_the_offset_is_where_the_gradient_lies(name, side, light, least, most):
    with torch.device("meta"):  # no weights are drawn, which takes longer than all the rest
        encoder = build_encoder(name)
    seen, cell = middle_of_what_a_cell_sees(encoder.layers, side, light)
    square = cell * encoder.stride + (encoder.stride - 1) / 2
    assert encoder.offset == pytest.approx((seen - square) / encoder.stride, abs=0.02)
    assert least <= encoder.offset <= most


@pytest.mark.parametrize("name", ["vgg11", "convnext_tiny", "alexnet"])
def test_networks_that_halve_by_pooling_or_patches_look_at_their_own_squares(name):
    with torch.device("meta"):
        assert build_encoder(name).offset == 0
