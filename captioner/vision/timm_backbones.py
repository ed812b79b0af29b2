"""Backbones of the timm library as encoders: feature maps of CNNs, patch tokens of transformers.

timm is imported inside functions because it is an extra.
Shapes: B images, S image side, D channels, (h, w) grid, N tokens.
"""

import math
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from ..data.images import INTERPOLATIONS, Transform
from ..errors import InputError
from ..options import did_you_mean
from .options import TIMM, WEIGHTS_FILES
from .receptive_field import SIDE, ReceptiveField, record_shifts
from .weights import load_weights

# Names of the parts of a block in the package efficientnet_pytorch, and in timm.
EXPANDING = {
    **{"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"},
    **{"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"},
    **{"_project_conv": "conv_pwl", "_bn2": "bn3"},
}
SEPARABLE = {
    **{"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"},
    **{"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"},
}


class TimmBackbone(nn.Module):
    """A timm network without its classifier: (B, 3, S, S) -> (B, D, h, w).

    The tokens of a transformer form the map, without its prefix tokens (class token, registers).
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.prefix = int(getattr(model, "num_prefix_tokens", 0))
        self.is_channels_last = str(getattr(model, "output_fmt", "NCHW")).endswith("NHWC")

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.model.forward_features(images)
        if not isinstance(features, Tensor):  # several maps, of networks such as CoaT
            raise RuntimeError(f"the network must return a tensor, got {type(features).__name__}")
        if features.ndim == 3:  # (B, N, D)
            tokens = features[:, self.prefix :]
            side = math.isqrt(tokens.shape[1])
            batch, _, channels = tokens.shape  # len() would fix the batch size of exported programs
            return tokens.transpose(1, 2).reshape(batch, channels, side, -1)
        return features.permute(0, 3, 1, 2) if self.is_channels_last else features


def is_timm(name: str) -> bool:
    """Return whether an encoder's name starts with "timm:", the prefix of timm networks."""
    return name.startswith(TIMM)


def timm_transform(name: str, size: int | None = None) -> Transform:
    """Return the transform of a timm encoder: the mean, std, interpolation and size of its config.

    size: side length that replaces the config's. The whole image is squashed to the square, as for
    every encoder; the config's central crop is not applied, so that the map covers the image.
    """
    config = _import_timm().get_pretrained_cfg(_known(name))
    interpolation = config.interpolation if config.interpolation in INTERPOLATIONS else "bilinear"
    return Transform(
        size or config.input_size[-1],
        tuple(config.mean),
        tuple(config.std),
        interpolation,
    )


def build_timm(name: str, weights: str | None) -> tuple[nn.Sequential, ReceptiveField]:
    """Return the layers of a timm encoder, a single TimmBackbone, and their receptive field.

    weights: None for random weights; "DEFAULT" or a tag of timm ("in1k"), which is downloaded; or a
    local .pth or .safetensors file with the parameter names of timm or of efficientnet_pytorch. The
    state of the caller's random generator, which random weights depend on, does not change. With
    the default device "meta", the parameters are on it. Raises InputError for an unknown name, a
    network without a square feature map, and weights that cannot be read, downloaded or used.
    """
    to_meta = torch.get_default_device().type == "meta"
    # timm computes some buffers, which a checkpoint lacks, so that they must not be on "meta".
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        model = _create(name, weights)
        backbone = TimmBackbone(model)
        if weights is not None and _is_file(weights):
            _load_file(name, model, backbone, weights)
        field = _measure(name, backbone)
    if to_meta:
        move_state(backbone)
    return nn.Sequential(backbone), field


def _create(name: str, weights: str | None) -> Any:
    """Create a network, for images of any size if it has an option for that.

    weights: DEFAULT or a tag, whose weights are downloaded; None or a file yields random weights.
    """
    timm, known = _import_timm(), _known(name)
    downloads = weights is not None and not _is_file(weights)
    if downloads and weights != "DEFAULT":
        known = f"{known.partition('.')[0]}.{weights}"
    if downloads and not timm.is_model_pretrained(known):
        tags = timm.list_pretrained(f"{known.partition('.')[0]}.*")
        raise InputError(
            f"{name} has no weights {weights!r}; choose DEFAULT, a file, a run, a model of "
            f"the package, or one of "
            f"{', '.join(tag.partition('.')[2] for tag in tags)}"
            if tags
            else f"{name} has no published weights; pass a file to --encoder-weights"
        )
    for options in ({"dynamic_img_size": True}, {"strict_img_size": False}, {}):
        try:
            return timm.create_model(known, pretrained=downloads, num_classes=0, **options)
        except TypeError:  # this network does not have the option
            if not options:
                raise
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(
                f"the weights of {name} cannot be downloaded: {error}; check the connection, or "
                "pass a file to --encoder-weights"
                if downloads
                else f"{name} cannot be built: {error}; choose another encoder"
            ) from error
    raise AssertionError


def _load_file(name: str, model: Any, backbone: nn.Module, weights: str) -> None:
    load_weights(name, model, nn.Sequential(backbone), weights, lambda key: _timm_name(model, key))


def _timm_name(model: Any, key: str) -> str:
    """Return timm's name of a tensor that has a name of efficientnet_pytorch; else the same name.

    https://github.com/lukemelas/EfficientNet-PyTorch and its ports of the lite models, whose blocks
    are numbered across stages.
    """
    if match := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key):
        blocks = [(s, b) for s, stage in enumerate(model.blocks) for b in range(len(stage))]
        number, part, end = int(match[1]), match[2], match[3]
        if number < len(blocks):
            stage, block = blocks[number]
            own = model.blocks[stage][block]
            names = EXPANDING if hasattr(own, "conv_pwl") else SEPARABLE
            return f"blocks.{stage}.{block}.{names.get(part, part)}.{end}"
    outer = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
    part, _, end = key.partition(".")
    return f"{outer[part]}.{end}" if part in outer else key


def _measure(name: str, backbone: TimmBackbone) -> ReceptiveField:
    """Measure channels, stride and offset on a probe image; leave the network in eval mode."""
    backbone.eval()
    config = backbone.model.pretrained_cfg
    patch = getattr(getattr(backbone.model, "patch_embed", None), "patch_size", None)
    if getattr(backbone.model, "dynamic_img_size", False) and isinstance(patch, tuple):
        side = patch[0] * -(-SIDE // patch[0])
    else:
        side = config["input_size"][-1] if config.get("fixed_input_size") or patch else SIDE
    not_a_map = InputError(
        f"encoder {name!r} does not return a square feature map (B, D, h, w); choose another"
    )
    with torch.no_grad(), record_shifts(backbone, side) as shifts:
        try:
            features = backbone(torch.zeros(1, 3, side, side))
        except (RuntimeError, AssertionError, ValueError) as error:
            raise not_a_map from error
    if features.ndim != 4 or features.shape[-1] != features.shape[-2] or features.shape[-1] < 2:
        raise not_a_map
    cells = features.shape[-1]
    stride = round(side / cells)
    offset = (sum(shift.pixels for shift in shifts.values()) - (stride - 1) / 2) / stride
    # A layer without a convolution, such as Swin's patch merging, joins cells without a shift.
    is_complete = math.prod(shift.stride for shift in shifts.values()) == stride
    is_known = is_complete and cells * stride == side
    return ReceptiveField([0], features.shape[1], stride, offset if is_known else 0.0)


def move_state(module: nn.Module) -> None:
    """Move parameters and saved buffers to the device "meta"; keep the others."""
    for child in module.modules():
        for key, parameter in child._parameters.items():
            if parameter is not None:
                child._parameters[key] = nn.Parameter(parameter.to("meta"), requires_grad=False)
        for key, buffer in child._buffers.items():
            if buffer is not None and key not in child._non_persistent_buffers_set:
                child._buffers[key] = buffer.to("meta")


def _known(name: str) -> str:
    """Return timm's name of an encoder; raise InputError if timm does not have it."""
    timm, wanted = _import_timm(), name.removeprefix(TIMM)
    if not timm.is_model(wanted.partition(".")[0]):
        raise InputError(
            f"unknown encoder {name!r}: timm {timm.__version__} has no such model"
            f"{did_you_mean(wanted, timm.list_models()) or '; see timm.list_models()'}"
        )
    return wanted


def _is_file(weights: str) -> bool:
    return Path(weights).suffix in WEIGHTS_FILES or Path(weights).is_file()


def _import_timm() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise InputError(
            f"encoders named {TIMM}NAME need {error.name}; run pip install 'captioner[timm]'"
        ) from error
    module: ModuleType = timm
    return module
