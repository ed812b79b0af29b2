"""Encoder weights from files and by torchvision's names."""

import argparse
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
from tests.support.pointers import POINTER

TINY = "shufflenet_v2_x0_5"  # the smallest network of torchvision


@pytest.fixture
def tiny_values():
    """Weights of the whole of TINY as a file holds them, with statistics as after training."""
    torch.manual_seed(3)
    values = torchvision.models.get_model(TINY, weights=None).state_dict()
    return {k: torch.rand_like(v) + 0.5 if v.is_floating_point() else v for k, v in values.items()}


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".pth.tar", ".ckpt", ".safetensors"])
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


@pytest.mark.parametrize(
    ("prefix", "wrap"),
    [
        ("module.", lambda values: values),
        ("_orig_mod.", lambda values: values),
        ("module._orig_mod.", lambda values: {"epoch": 3, "best": 70.1, "state_dict": values}),
        ("", lambda values: {"model": values, "optimizer": {"state": {0: {"step": values}}}}),
        ("backbone.", lambda values: {"model": {"model_state_dict": values}, "epoch": 1}),
        ("", lambda values: {"generator": values, "optimizer": {}, "epoch": torch.tensor(3)}),
        ("model.", lambda values: {"state_dict": {**values, "criterion.weight": torch.ones(2)}}),
        ("", lambda values: {"state_dict": values, "state_dict_ema": dict.fromkeys(values)}),
    ],
)
def test_prefixes_and_wrappers_are_removed(prefix, wrap, tiny_values, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(wrap({prefix + name: value for name, value in tiny_values.items()}), path)
    plain = tmp_path / "plain.pth"
    torch.save(tiny_values, plain)
    loaded = build_encoder(TINY, str(path))
    assert loaded.fingerprint() == build_encoder(TINY, str(plain)).fingerprint()


def test_the_prefix_with_most_of_the_names_is_removed(tiny_values, tmp_path):
    """A projection head on a copy of the first layer does not make the file ambiguous."""
    path = tmp_path / "weights.pth"
    values = {f"backbone.{name}": value for name, value in tiny_values.items()}
    values["head.conv1.0.weight"] = torch.zeros(1)
    torch.save(values, path)
    encoder = build_encoder(TINY, str(path))
    assert torch.equal(encoder.layers[0][0].weight, tiny_values["conv1.0.weight"])


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


def only_the_classifier(values):
    for name in [name for name in values if not name.startswith("fc.")]:
        del values[name]


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
            only_the_classifier,
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
    torch.save({"optimizer": {"state": {}}, "epoch": 3}, tmp_path / "training.pth")
    with pytest.raises(InputError, match=r"training.pth contain no state dict; save one dict of"):
        load("training.pth")
    torch.save({"student": tiny_values, "teacher": tiny_values}, tmp_path / "two.pth")
    with pytest.raises(InputError, match=r"several state dicts \(student, teacher\); save one"):
        load("two.pth")
    contrast = {f"{side}.{k}": v for k, v in tiny_values.items() for side in ("query", "key")}
    torch.save(contrast, tmp_path / "contrast.pth")
    with pytest.raises(InputError, match=r"several encoders, .* begin with key\., query\.; save"):
        load("contrast.pth")
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")  # unpickling it would run code
    with pytest.raises(InputError, match=r"module.pth .*: it contains torch\.nn\S*Linear"):
        load("module.pth")
    arguments = {"args": argparse.Namespace(), "state_dict": tiny_values}
    torch.save(arguments, tmp_path / "arguments.pth")
    with pytest.raises(InputError, match=r"it contains argparse\.Namespace, not only tensors"):
        load("arguments.pth")
    (tmp_path / "pointer.bin").write_bytes(POINTER)
    with pytest.raises(InputError, match=r"pointer.bin is a Git LFS pointer, not the file itself"):
        load("pointer.bin")
    torch.save(tiny_values, tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    for name, content, reason in (
        ("cut.pth", whole[: len(whole) // 2], "it is damaged"),
        ("page.pth", b"<!DOCTYPE html>", "it is damaged, or was not written by torch.save"),
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
        InputError, match="'DEFAULT' are neither a file nor a run, and small_cnn has no published"
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
    with pytest.raises(InputError, match=r"contain no model\.safetensors; pass a run"):
        build_encoder("small_cnn", str(tmp_path))
    message = "has the encoder small_cnn, not shufflenet_v2_x0_5; pass --encoder small_cnn"
    with pytest.raises(InputError, match=message):
        build_encoder(TINY, str(captioner_run))
    shutil.copytree(captioner_run / "best", tmp_path / "best")
    weights = load_file(tmp_path / "best" / "model.safetensors")
    del weights["encoder.layers.0.0.weight"]
    save_file(weights, tmp_path / "best" / "model.safetensors")
    with pytest.raises(
        InputError, match=r"do not fit small_cnn: 0\.0\.weight is missing; choose weights"
    ):
        build_encoder("small_cnn", str(tmp_path))
    (tmp_path / "best" / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"config\.json does not describe an encoder"):
        build_encoder("small_cnn", str(tmp_path))


def test_an_address_is_not_taken_for_a_path():
    with pytest.raises(
        InputError, match=r"^encoder weights cannot be read from the URL https://a.b/c.pth; down"
    ):
        build_encoder(TINY, "https://a.b/c.pth")
