"""Stride, offset and stages of an encoder, measured on a probe image.

Shapes: B images, D channels, (h, w) grid.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import InputError

SIDE = 192  # pixels of the probe image: a multiple of every stride up to 64


class ReceptiveField(NamedTuple):
    """How the cells of a feature map relate to pixels; `Encoder` documents the fields."""

    stages: list[int]  # of each layer
    channels: int
    stride: int
    offset: float


def measure_receptive_field(name: str, layers: nn.Sequential) -> ReceptiveField:
    """Measure the stages, channels, stride and offset of a network, and leave it in eval mode.

    Raises InputError if the layers do not return a square feature map.
    """
    probe = torch.zeros(1, 3, SIDE, SIDE)
    not_a_cnn = InputError(
        f"encoder {name!r} does not return a square feature map (B, D, h, w); choose a CNN, "
        "such as resnet50 or mobilenet_v2"
    )
    stages: list[int] = []
    layers.eval()
    with torch.no_grad(), record_shifts(layers) as shifts:
        for layer in layers:
            try:
                probe = layer(probe)
            except (RuntimeError, AssertionError) as error:
                raise not_a_cnn from error
            if probe.ndim != 4 or probe.shape[-1] != probe.shape[-2]:
                raise not_a_cnn
            halvings = (SIDE // probe.shape[-1]).bit_length() - 1
            stages.append(max(0, halvings - 1))
    stride = 2**halvings
    offset = (sum(shift.pixels for shift in shifts.values()) - (stride - 1) / 2) / stride
    # A grid that ends before the image does (alexnet) is stretched over the image when it is drawn,
    # and no offset would be correct.
    covers_image = probe.shape[-1] * stride == SIDE
    return ReceptiveField(stages, probe.shape[1], stride, offset if covers_image else 0.0)


class Shift(NamedTuple):
    """How far a layer shifts the centre of its output 0, in pixels, and its stride in cells."""

    pixels: float
    stride: int


@contextmanager
def record_shifts(layers: nn.Module, side: int = SIDE) -> Iterator[dict[int, Shift]]:
    """Collect, in a forward pass, how far each downsampling layer shifts the centre of output 0.

    The result maps the stride of a layer's input, in pixels, to the layer's shift. Output i of
    a layer with stride 2 is centred on input 2i + (kernel - 1) / 2 - padding. Layers with stride 1
    are assumed to have symmetric padding. timm's layers whose names end in "Same" pad as TensorFlow
    does, which adds the odd pixel at the end. side: side length of the input image in pixels.
    """
    shifts: dict[int, Shift] = {}

    def record(layer: Any, inputs: tuple[Tensor], output: Tensor) -> None:  # noqa: ARG001  (a hook)
        kernel, padding, stride = (
            value if isinstance(value, int) else value[0]
            for value in (_kernel_size(layer), layer.padding, layer.stride)
        )
        cells = inputs[0].shape[-1]
        pixels = side / cells  # per input cell
        if type(layer).__name__.endswith("Same"):
            padding = max((-(-cells // stride) - 1) * stride + kernel - cells, 0) // 2
        if stride > 1:
            shifts[round(pixels)] = Shift(pixels * ((kernel - 1) / 2 - padding), stride)

    hooks = [m.register_forward_hook(record) for m in layers.modules() if _kernel_size(m)]
    try:
        yield shifts
    finally:
        for hook in hooks:
            hook.remove()


def _kernel_size(layer: Any) -> Any:
    """Return the kernel size of a layer that may downsample; None for other layers."""
    if type(layer).__name__ == "BlurPool2d":  # of timm
        return layer.filt_size
    return layer.kernel_size if isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d) else None
