"""Encoder weights from files and by torchvision's names."""

import shutil
import urllib.error

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import nn

from captioner import Captioner
from captioner.errors import InputError
from captioner.vision.encoders import build_encoder
from tests.support import tiny

TINY = "shufflenet_v2_x0_5"  # the smallest network of torchvision


@pytest.fixture
def tiny_values():
    """Weights of the whole of TINY as a file holds them, with statistics as after training."""
    torch.manual_seed(3)
    values = torchvision.models.get_model(TINY, weights=None).state_dict()
    return {k: torch.rand_like(v) + 0.5 if v.is_floating_point() else v for k, v in values.items()}


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_files_load_exactly(suffix, tiny_values, tmp_path, image):
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(tiny_values, path)
    encoder = build_encoder(TINY, str(path))
    model = torchvision.models.get_model(TINY, weights=None).eval()
    model.load_state_dict(tiny_values)
    pooled = []
    model.fc.register_forward_pre_hook(lambda _, inputs: pooled.append(inputs[0]))
    with torch.no_grad():
        model(image)
    torch.testing.assert_close(encoder(image).mean((2, 3)), pooled[0])
    assert torch.equal(encoder.layers[0][0].weight, tiny_values["conv1.0.weight"])
    assert torch.equal(encoder.layers[0][1].running_var, tiny_values["conv1.1.running_var"])


def test_the_classifier_may_be_different_or_missing(tiny_values, tmp_path):
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


def test_a_small_cnn_loads_from_a_file(tmp_path):
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
        (
            without_conv1,
            rf"encoder weights .*weights.pth do not fit {TINY}: conv1.0.weight is missing; choose",
        ),
        (
            with_another_shape,
            r"conv1.0.weight has shape \(24, 3, 5, 5\), expected \(24, 3, 3, 3\); choose",
        ),
        (with_nan, "conv5.0.weight is not finite"),
        (
            dict.clear,
            r"conv1.0.weight is missing; .*; and \d+ more; choose weights for",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(spoil, message, tiny_values, tmp_path):
    path = tmp_path / "weights.pth"
    spoil(tiny_values)
    torch.save(tiny_values, path)
    with pytest.raises(InputError, match=message):
        build_encoder(TINY, str(path))


def test_files_without_weights_are_refused(tiny_values, tmp_path):
    def load(name):
        return build_encoder(TINY, str(tmp_path / name))

    with pytest.raises(InputError, match=r"encoder weights .*none.pth do not exist"):
        load("none.pth")
    torch.save({"state_dict": tiny_values, "epoch": 3}, tmp_path / "training.pth")
    with pytest.raises(InputError, match=r"training.pth are not a plain state dict; save a dict"):
        load("training.pth")
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")  # unpickling it would run code
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
    urls = []

    def download(url, **_):
        urls.append(url)
        return tiny_values

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    for name in ("IMAGENET1K_V1", "DEFAULT"):
        encoder = build_encoder(TINY, name)
        assert torch.equal(encoder.layers[0][0].weight, tiny_values["conv1.0.weight"])
    assert len(urls) == 2
    assert all("shufflenetv2_x0.5" in url for url in urls)

    def offline(*_, **__):
        raise urllib.error.URLError("no route")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(InputError, match=r"IMAGENET1K_V1 of .*: download failed: .*no rout"):
        build_encoder(TINY, "IMAGENET1K_V1")
    with pytest.raises(InputError, match=r"has no weights 'V7'; choose IMAGENET1K_V1, "):
        build_encoder(TINY, "V7")
    with pytest.raises(
        InputError, match="'DEFAULT' cannot be downloaded: small_cnn has no published weights; pass"
    ):
        build_encoder("small_cnn", "DEFAULT")


def test_nothing_is_downloaded_unasked(monkeypatch):
    def download(url, **_):
        raise AssertionError(url)

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    build_encoder(TINY)


@pytest.fixture
def captioner_run(tmp_path_factory):
    return tiny.run(tmp_path_factory, attention=False)


@pytest.mark.parametrize("part", ["", "best"])
def test_a_run_provides_the_weights_of_its_encoder(captioner_run, part):
    encoder = build_encoder("small_cnn", str(captioner_run / part))
    expected = Captioner.from_pretrained(captioner_run, "cpu").model.encoder
    assert encoder.frozen
    assert encoder.fingerprint() == expected.fingerprint()


def test_runs_without_a_fitting_encoder_are_refused(captioner_run, tmp_path):
    with pytest.raises(InputError, match="are not a run, a checkpoint or a file"):
        build_encoder("small_cnn", str(tmp_path))
    message = "has the encoder small_cnn, not shufflenet_v2_x0_5; pass --encoder small_cnn"
    with pytest.raises(InputError, match=message):
        build_encoder(TINY, str(captioner_run))
    shutil.copytree(captioner_run / "best", tmp_path / "best")
    weights = load_file(tmp_path / "best" / "model.safetensors")
    del weights["encoder.layers.0.0.weight"]
    save_file(weights, tmp_path / "best" / "model.safetensors")
    with pytest.raises(InputError, match=r"do not fit small_cnn: 0\.0\.weight is missing$"):
        build_encoder("small_cnn", str(tmp_path))
    (tmp_path / "best" / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"config\.json does not describe an encoder"):
        build_encoder("small_cnn", str(tmp_path))
