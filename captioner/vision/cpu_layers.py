"""CNNs on CPUs: convolutions fused with what follows, few large maps at a time.

In inference, a convolution, its activation and a residual addition become one call of oneDNN, whose
weight is brought into oneDNN's layout once. torch documents no interface to these calls, so the
first image is encoded by the ordinary layers as well, which remain in use unless both agree.

Shapes: B images, H, W height and width.
"""

import copy
import logging
import platform
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from .light_torchvision import torchvision

# Stages up to LARGE_STAGE have large maps, which are computed for a few images at a time. Maps of
# 32 MiB and more would be new memory at every call (in glibc), which takes as long as convolutions.
LARGE_STAGE = 2
BLOCK_PIXELS = 4 * 224 * 224

# By the dtype of the convolutions: largest difference, relative to the norm of the features.
TOLERANCES = {torch.float32: 1e-3, torch.bfloat16: 0.1}

# oneDNN's names and arguments.
_ACTIVATIONS: dict[type[nn.Module], tuple[str, list[float]]] = {
    nn.Identity: ("none", []),
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
    nn.SiLU: ("swish", []),
    nn.Hardswish: ("hardswish", []),
}

log = logging.getLogger(__name__)
models: Any = torchvision.models
# `models.googlenet` is the function.
_BASIC_CONVS = (
    import_module("torchvision.models.googlenet").BasicConv2d,
    models.inception.BasicConv2d,
)


class CPULayers:
    """The features of layers in eval mode, without gradients; they differ by rounding only.

    layers: layers with folded batch norms, which must not change. stages: stage of each layer, as
    in `Encoder`. dtype: dtype of the convolutions, which autocast may determine.
    """

    def __init__(self, layers: nn.Sequential, stages: Sequence[int], dtype: torch.dtype) -> None:
        large = sum(stage <= LARGE_STAGE for stage in stages)
        parts = list(layers)
        self._plain = nn.Sequential(*parts[:large]), nn.Sequential(*parts[large:])
        self._dtype = dtype
        self._chosen: tuple[nn.Sequential, nn.Sequential] | None = None

    def __call__(self, images: Tensor) -> Tensor:
        """Encode images (B, 3, H, W), at least one, in channels-last memory format."""
        if self._chosen is None:
            self._chosen = self._choose(images[:1])
            self._plain = self._chosen  # frees the weights in the ordinary layout
        large, small = self._chosen
        count = max(1, BLOCK_PIXELS // images[0, 0].numel())
        maps = [large(block) for block in torch.split(images, count)]
        features: Tensor = small(torch.cat(maps) if len(maps) > 1 else maps[0])
        return features

    def _choose(self, image: Tensor) -> tuple[nn.Sequential, nn.Sequential]:
        """Return the fused layers if they work and agree with the ordinary ones on an image."""
        large, small = plain = self._plain
        if not (can_fuse() and self._dtype in TOLERANCES):
            return plain
        expected = small(large(image))
        try:
            fused = fuse(large, self._dtype), fuse(small, self._dtype)
            found = fused[1](fused[0](image))
            error = (found.float() - expected.float()).norm()
            if error <= TOLERANCES[self._dtype] * expected.float().norm():  # NaN is not
                return fused
            reason = f"their features differ by {error:.3g}"
        except Exception as exception:  # the calls are private to torch and may change in any way
            reason = str(exception)
        log.debug("convolutions are not fused: %s", reason)
        return plain


def can_fuse() -> bool:
    """Return whether this build of torch and this processor may run fused convolutions.

    Only x86 processors may: on others, nothing was measured.
    """
    onednn: Any = torch.backends.mkldnn
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    return is_x86 and bool(onednn.is_available() and onednn.enabled)


def fuse(layers: nn.Sequential, dtype: torch.dtype) -> nn.Sequential:
    """Return layers with fused convolutions; they share other weights with the given ones."""
    return nn.Sequential(*_steps([layers], dtype))


class FusedConv(nn.Module):
    """A convolution in `dtype` and its activation; its weight is packed for the latest map size."""

    def __init__(
        self, conv: nn.Conv2d, dtype: torch.dtype, activation: type[nn.Module] = nn.Identity
    ) -> None:
        super().__init__()
        self.dtype, self.activation = dtype, activation
        shape = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
        self._shape: tuple[Any, ...] = shape
        self._bias = None if conv.bias is None else conv.bias.detach().to(dtype)
        self._packed: tuple[object, Tensor] = None, conv.weight.detach().to(dtype)

    def forward(self, maps: Tensor) -> Tensor:
        maps, weight = self._prepare(maps)
        name, arguments = _ACTIVATIONS[self.activation]
        features: Tensor = torch.ops.mkldnn._convolution_pointwise(
            maps, weight, self._bias, *self._shape, name, arguments, ""
        )
        return features

    def add_to(self, target: Tensor, maps: Tensor, is_rectified: bool) -> Tensor:
        """Return the convolution plus `target`, which is overwritten, after a ReLU if asked."""
        maps, weight = self._prepare(maps)
        name = "relu" if is_rectified else None
        features: Tensor = torch.ops.mkldnn._convolution_pointwise_(
            *(target.to(self.dtype), maps, weight, self._bias, *self._shape),
            *("add", None, name, [], None),
        )
        return features

    def _prepare(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Return the maps in the convolution's dtype and layout, and the weight for their size."""
        maps = maps.to(self.dtype).contiguous(memory_format=torch.channels_last)
        size, weight = self._packed
        if size != maps.shape[-2:]:
            weight = weight.to_dense() if weight.is_mkldnn else weight
            weight = torch.ops.mkldnn._reorder_convolution_weight(weight, *self._shape, maps.shape)
            self._packed = maps.shape[-2:], weight
        return maps, weight


class FusedResidual(nn.Module):
    """Residual block: a branch, whose last step is `last`, plus the shortcut; perhaps a ReLU.

    The shortcut may be the block's input, which is then overwritten.
    """

    def __init__(
        self, branch: nn.Sequential, last: FusedConv, shortcut: nn.Module, is_rectified: bool
    ) -> None:
        super().__init__()
        self.branch, self.last, self.shortcut = branch, last, shortcut
        self.is_rectified = is_rectified

    def forward(self, maps: Tensor) -> Tensor:
        inner = self.branch(maps)
        return self.last.add_to(self.shortcut(maps), inner, self.is_rectified)


def _steps(modules: Iterable[nn.Module], dtype: torch.dtype) -> list[nn.Module]:
    """Return the fused form of modules that are called one after the other."""
    steps: list[nn.Module] = []
    for module in _flat(modules):
        last = steps[-1] if steps else None
        if type(module) in _ACTIVATIONS and _is_linear(last):
            last.activation = type(module)
        else:
            steps.append(_fused(module, dtype))
    return steps


def _is_linear(module: nn.Module | None) -> TypeGuard[FusedConv]:
    return isinstance(module, FusedConv) and module.activation is nn.Identity


def _flat(modules: Iterable[nn.Module]) -> Iterator[nn.Module]:
    """Yield modules, and those within containers, in the order of their calls."""
    for module in modules:
        if type(module).forward is nn.Sequential.forward:
            yield from _flat(module.children())
        elif not isinstance(module, nn.Identity):
            yield module


def _fused(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return the fused form of a module; one of unknown type is copied with fused children."""
    if type(module).forward is nn.Sequential.forward:
        return nn.Sequential(*_steps([module], dtype))
    if type(module) is nn.Conv2d and module.padding_mode == "zeros":
        return FusedConv(module, dtype)
    if isinstance(module, _BASIC_CONVS):
        return nn.Sequential(*_steps([module.conv, module.bn, nn.ReLU()], dtype))
    if (parts := _residual_parts(module)) and (block := _fused_residual(*parts, dtype)):
        return block
    same = copy.copy(module)
    same._modules = {
        name: child and _fused(child, dtype) for name, child in module._modules.items()
    }
    return same


def _residual_parts(
    block: Any,
) -> tuple[list[nn.Module], nn.Module | None, nn.Module | None] | None:
    """Return the branch, the shortcut and the last activation of a residual block.

    A shortcut of None is the block's input. Returns None if the module is of another type.
    """
    match block:
        case models.resnet.BasicBlock():
            branch = [block.conv1, block.bn1, block.relu, block.conv2, block.bn2]
            return branch, block.downsample, block.relu
        case models.resnet.Bottleneck():
            branch = [block.conv1, block.bn1, block.relu, block.conv2, block.bn2, block.relu]
            return [*branch, block.conv3, block.bn3], block.downsample, block.relu
        case models.regnet.ResBottleneckBlock():
            return [block.f], block.proj, block.activation
        case models.mobilenetv2.InvertedResidual(use_res_connect=True):
            return [block.conv], None, None
        case models.mnasnet._InvertedResidual(apply_residual=True):
            return [block.layers], None, None
        case (
            models.mobilenetv3.InvertedResidual(use_res_connect=True)
            | models.efficientnet.MBConv(use_res_connect=True)
            | models.efficientnet.FusedMBConv(use_res_connect=True)
        ):
            return [block.block], None, None
    return None


def _fused_residual(
    modules: list[nn.Module],
    shortcut: nn.Module | None,
    activation: nn.Module | None,
    dtype: torch.dtype,
) -> FusedResidual | None:
    """Return the fused form of a residual block, or None if the addition cannot be fused.

    It can follow a convolution without activation whose input is not the block's own.
    """
    *branch, last = _steps(modules, dtype)
    if not branch or not _is_linear(last) or type(activation) not in (nn.ReLU, type(None)):
        return None
    side = nn.Identity() if shortcut is None else _fused(shortcut, dtype)
    return FusedResidual(nn.Sequential(*branch), last, side, activation is not None)
