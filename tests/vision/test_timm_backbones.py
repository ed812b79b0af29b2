"""timm backbones: maps, transforms, weights, positions of cells, and what is refused."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from captioner import Captioner
from captioner.data.images import Transform
from captioner.errors import InputError
from captioner.training.config import TrainConfig
from captioner.vision.encoders import build_encoder, encoder_transform
from captioner.vision.options import EncoderOptions
from captioner.vision.timm_backbones import TimmBackbone, timm_transform

timm = pytest.importorskip("timm")
# name: channels, stride, offset
BACKBONES = {
    "tf_efficientnet_lite0": (1280, 32, 15.5 / 32),  # TensorFlow adds the odd pixel at the end
    "efficientnet_lite0": (1280, 32, -15.5 / 32),
    "resnet18": (512, 32, -15.5 / 32),
    "convnext_atto": (320, 32, 0),  # blocks of pixels without overlap
    "vit_tiny_patch16_224": (192, 16, 0),
    "deit_tiny_distilled_patch16_224": (192, 16, 0),  # two prefix tokens
    "eva02_tiny_patch14_224": (192, 14, 0),  # rotary positions, which are not saved
}


@pytest.fixture(scope="module", params=BACKBONES)
def backbone(request):
    torch.manual_seed(0)
    return request.param, build_encoder(f"timm:{request.param}").eval()


def pixels(size, seed=0):
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_maps(backbone):
    name, encoder = backbone
    channels, stride, offset = BACKBONES[name]
    assert (encoder.channels, encoder.stride) == (channels, stride)
    assert encoder.offset == pytest.approx(offset)
    assert encoder.frozen
    size = timm_transform(f"timm:{name}").size
    with torch.no_grad():
        features = encoder(pixels(size))
        assert features.shape == (1, channels, size // stride, size // stride)
        expected = encoder.layers[0].model.forward_features(pixels(size))
        if expected.ndim == 3:  # row by row after the prefix tokens
            prefix = expected.shape[1] - (size // stride) ** 2
            expected = expected[0, prefix + size // stride + 2]
            features = features[0, :, 1, 2]
        torch.testing.assert_close(features, expected)


def test_an_encoder_is_restored_from_its_saved_weights(backbone):
    name, encoder = backbone
    with torch.device("meta"):
        state = torch.get_rng_state()
        restored = build_encoder(f"timm:{name}")
        assert torch.equal(torch.get_rng_state(), state)
        assert all(parameter.is_meta for parameter in restored.parameters())
    restored.load_state_dict(encoder.state_dict(), assign=True)
    restored.eval()
    assert (restored.stride, restored.offset) == (encoder.stride, encoder.offset)
    images = pixels(timm_transform(f"timm:{name}").size)
    with torch.no_grad():
        assert torch.equal(restored(images), encoder(images))
    assert restored.fingerprint() == encoder.fingerprint()


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "efficientnet_lite0", "resnet18"])
def test_cells_of_cnns_are_where_the_offset_says(name):
    """Kernels of equal positive values spread a point evenly around the centres of the cells."""
    encoder = build_encoder(f"timm:{name}").eval()
    for module in encoder.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.constant_(module.weight, 1 / module.weight[0].numel())
        elif isinstance(module, torch.nn.BatchNorm2d):  # some start with 0
            torch.nn.init.ones_(module.weight)
    size, stride = 1024, encoder.stride
    for x, y in ((512, 512), (460, 540)):
        image = torch.zeros(1, 3, size, size)
        image[..., y, x] = 1e3
        with torch.no_grad():
            response = encoder(image)[0].sum(0).double()
        cells = torch.arange(size // stride, dtype=torch.float64)
        for position, sums in ((x, response.sum(0)), (y, response.sum(1))):
            cell = (sums * cells).sum() / sums.sum()
            centre = (cell + 0.5 + encoder.offset) * stride
            assert abs(centre - (position + 0.5)) < 3  # of 1,024 pixels


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "convnext_atto"])
def test_a_change_within_one_cell_changes_its_own_cell_most(name):
    """Composite images: one cell of a grey image is replaced by noise."""
    torch.manual_seed(0)
    encoder = build_encoder(f"timm:{name}").eval()
    size = timm_transform(f"timm:{name}").size
    grid, stride = size // encoder.stride, encoder.stride
    with torch.no_grad():
        plain = encoder(torch.zeros(1, 3, size, size))
        for row, column in ((0, 0), (2, 5), (grid - 1, 1), (3, grid - 1)):
            image = torch.zeros(1, 3, size, size)
            area = image[..., row * stride :, column * stride :][..., :stride, :stride]
            area.copy_(3 * torch.randn(area.shape))
            changed = (encoder(image) - plain).pow(2).sum(1)[0]
            assert divmod(int(changed.argmax()), grid) == (row, column)


def test_the_transform_is_that_of_the_data_config():
    assert timm_transform("timm:tf_efficientnet_lite0") == Transform(224, (0.5,) * 3, (0.5,) * 3)
    assert timm_transform("timm:convnext_atto") == Transform(224)
    assert timm_transform("timm:vit_small_patch14_dinov2").size == 518
    assert timm_transform("timm:resnet18.tv_in1k").interpolation == "bilinear"
    config = TrainConfig.from_options(encoder="timm:vit_small_patch14_dinov2")
    assert encoder_transform(config.encoder).size == 518
    config = TrainConfig.from_options(encoder="timm:resnet18.tv_in1k", image_size=96)
    assert encoder_transform(config.encoder) == Transform(96, interpolation="bilinear")
    assert encoder_transform(EncoderOptions("resnet18")) == Transform(224)


def test_the_interpolation_is_applied_and_saved():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8))
    for name in ("bilinear", "lanczos", "nearest"):
        transform = Transform(16, interpolation=name)
        method = Image.Resampling[name.upper()]
        expected = image.resize((16, 40), method).resize((16, 16), method)
        assert np.array_equal(np.asarray(transform.squash(image)), np.asarray(expected))
        assert Transform(**transform.to_dict()) == transform
    assert set(Transform(16).to_dict()) == {"size", "mean", "std"}  # as in older checkpoints
    with pytest.raises(InputError, match="interpolation must be one of bicubic, bilinear"):
        Transform(16, interpolation="cubic")


def test_weights_from_a_file(tmp_path):
    torch.manual_seed(1)
    whole = timm.create_model("efficientnet_lite0")  # with its classifier
    torch.save(whole.state_dict(), tmp_path / "timm.pth")
    names = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1"}
    names["classifier"] = "_fc"
    inner = ("_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_project_conv", "_bn2")
    other, number = {}, -1
    seen = None
    for key, value in whole.state_dict().items():
        if not key.startswith("blocks."):
            part, _, end = key.partition(".")
            other[f"{names[part]}.{end}"] = value
            continue
        _, stage, block, part, end = key.split(".")
        number += (stage, block) != seen
        seen = stage, block
        own = ("conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3")
        if not hasattr(whole.blocks[int(stage)][int(block)], "conv_pwl"):
            own = (None, None, "conv_dw", "bn1", "conv_pw", "bn2")
        other[f"_blocks.{number}.{inner[own.index(part)]}.{end}"] = value
    torch.save(other, tmp_path / "other.pth")
    images = pixels(64)
    with torch.no_grad():
        expected = whole.eval().forward_features(images)
        for name in ("timm.pth", "other.pth"):
            encoder = build_encoder("timm:efficientnet_lite0", str(tmp_path / name)).eval()
            torch.testing.assert_close(encoder(images), expected)
            assert encoder.pretrained
    with pytest.raises(InputError, match=r"do not fit timm:resnet18: conv1.weight is missing"):
        build_encoder("timm:resnet18", str(tmp_path / "timm.pth"))


def test_fine_tuning_trains_the_whole_network():
    encoder = build_encoder("timm:convnext_atto", fine_tune_from=0)
    assert all(parameter.requires_grad for parameter in encoder.parameters())
    encoder.train()(pixels(64)).sum().backward()
    assert encoder.layers[0].model.stem[0].weight.grad is not None
    with pytest.raises(InputError, match="must be 0, the only stage of timm:convnext_atto, got"):
        build_encoder("timm:convnext_atto", fine_tune_from=4)


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("timm:resnet19", None, r"timm .* has no such model; did you mean 'resnet18"),
        ("timm:coat_tiny", None, "does not return a square feature map"),
        (
            "timm:resnet18",
            "in99k",
            "has no weights .in99k.; choose DEFAULT, a file, a run, a model",
        ),
        ("timm:resnet18", "gone.pth", r"encoder weights gone\.pth do not exist"),
    ],
)
def test_mistakes(name, weights, message):
    with pytest.raises(InputError, match=message):
        build_encoder(name, weights)


def test_a_network_without_published_weights(monkeypatch):
    monkeypatch.setattr(timm, "is_model_pretrained", lambda _: False)
    monkeypatch.setattr(timm, "list_pretrained", lambda _: [])
    for weights in ("DEFAULT", "in1k"):
        with pytest.raises(InputError, match=r"^timm:resnet18 has no published weights; pass a"):
            build_encoder("timm:resnet18", weights)


def test_a_missing_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"need timm; run pip install 'captioner\[timm\]'"):
        build_encoder("timm:resnet18")


@pytest.mark.slow
def test_a_model_with_a_transformer_is_trained_and_loaded(tmp_path, monkeypatch, tmp_path_factory):
    import train
    from tests.support import tiny

    monkeypatch.chdir(tmp_path)
    options = "--encoder timm:vit_tiny_patch16_224 --attention --run vit --epochs 1".split()
    train.main(["--data", str(tiny.data(tmp_path_factory)), *tiny.OPTIONS, *options])
    captioner = Captioner.from_pretrained("checkpoints/vit")
    assert isinstance(captioner.model.encoder.layers[0], TimmBackbone)
    assert captioner.transform == Transform(32, (0.5,) * 3, (0.5,) * 3)
    caption = captioner(Image.new("RGB", (20, 30), "red"))
    assert caption.attention.shape[1:] == (2, 2)
