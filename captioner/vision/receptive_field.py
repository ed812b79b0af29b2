"""How a network lays pixels on cells: its stages, stride and offset, measured; no encoder is known.

Shapes: B images, D channels, h, w grid.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError


def measure(name: str, layers: nn.Sequential) -> tuple[list[int], int, int, float]:
    """Stage of each layer, channels, stride and offset, as `Encoder` has them.

    Leaves the layers in eval mode. Raises InputError where no square map comes out.
    """
    side = 192
    probe = torch.zeros(1, 3, side, side)
    not_a_cnn = InputError(
        f"encoder {name!r} gives no feature map (B, D, h, w); choose a CNN, "
        "for example resnet50 or mobilenet_v2"
    )
    stages: list[int] = []
    layers.eval()
    with torch.no_grad(), _middles(layers, side) as middles:
        for layer in layers:
            try:
                probe = layer(probe)
            except (RuntimeError, AssertionError) as error:
                raise not_a_cnn from error
            if probe.ndim != 4 or probe.shape[-1] != probe.shape[-2]:
                raise not_a_cnn
            halvings = (side // probe.shape[-1]).bit_length() - 1
            stages.append(max(0, halvings - 1))
    stride = 2**halvings
    offset = (sum(middles.values()) - (stride - 1) / 2) / stride
    # A grid that ends before the image does, as alexnet's, is stretched over it: 0 is as good.
    fills = probe.shape[-1] * stride == side
    return stages, probe.shape[1], stride, offset if fills else 0.0


@contextmanager
def _middles(layers: nn.Module, side: int) -> Iterator[dict[int, float]]:
    """While an image of this side goes through: by how many pixels each resolution's halving
    moves the middle of what output 0 sees; layers that do not halve are taken to pad evenly.

    Output i of a layer with stride 2 sees the inputs about 2i + (kernel - 1) / 2 - padding.
    """
    middles: dict[int, float] = {}

    def note(layer: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        size, pad, step = (
            value if isinstance(value, int) else value[0]
            for value in (layer.kernel_size, layer.padding, layer.stride)
        )
        pixels = side / inputs[0].shape[-1]  # of one input
        if step > 1:
            middles[round(pixels)] = pixels * ((size - 1) / 2 - pad)

    kinds = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
    hooks = [m.register_forward_hook(note) for m in layers.modules() if isinstance(m, kinds)]
    try:
        yield middles
    finally:
        for hook in hooks:
            hook.remove()
