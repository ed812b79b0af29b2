"""Arrays and tensors of pixels as Pillow images: layouts, channels and value ranges.

Shapes: N images, H, W height and width, C channels: 1 (grey), 3 (RGB) or 4 (RGB and opacity).
"""

from typing import TypeAlias

import numpy as np
import torch
from PIL import Image

from ..errors import InputError

Pixels: TypeAlias = np.ndarray | torch.Tensor
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's mode by number of channels


def image_of(pixels: Pixels) -> Image.Image:
    """Return the image of an array or tensor, in mode L, RGB or RGBA; it shares no memory with it.

    pixels: (H, W), (H, W, C) or (C, H, W); if both the first and the last axis could be the
    channels, an array has them last and a tensor first. Values are uint8, or floating-point in
    [0, 1]. Raises InputError for any other shape, type or range.
    """
    kind = _kind(pixels)
    axis = _channel_axis(pixels)
    if axis is None:
        raise InputError(
            f"an image {kind} must have a nonempty shape (H, W), (H, W, C) or (C, H, W) with 1, 3 "
            f"or 4 channels, got {tuple(pixels.shape)}"
        )
    values = pixels.detach().cpu() if isinstance(pixels, torch.Tensor) else pixels
    if values.ndim == 2:
        values = values[None]
    array = _to_bytes(values, kind)
    channels = np.moveaxis(array, 0 if values.ndim != pixels.ndim else axis, -1)  # (H, W, C)
    mode = MODES[channels.shape[-1]]
    contiguous = np.ascontiguousarray(channels[..., 0] if mode == "L" else channels)
    return Image.fromarray(contiguous).copy()


def reverse_channels(pixels: Pixels) -> Pixels:
    """Return one image or a batch, as in `image_of`, with red and blue swapped: BGR becomes RGB.

    Opacity stays the last channel. Grey images and invalid shapes are returned unchanged.
    """
    one = pixels[0] if pixels.ndim == 4 and len(pixels) else pixels
    axis = _channel_axis(one)
    if axis is None or one.ndim == 2 or one.shape[axis] == 1:
        return pixels
    order = [2, 1, 0, 3][: one.shape[axis]]
    if isinstance(pixels, torch.Tensor):
        return pixels.index_select(axis - 3, torch.tensor(order, device=pixels.device))
    return np.take(pixels, order, axis - 3)


def _channel_axis(pixels: Pixels) -> int | None:
    """Return the axis of one image's channels, 0 for (H, W); None for an invalid shape."""
    shape = tuple(pixels.shape)
    if 0 in shape or len(shape) not in (2, 3):
        return None
    if len(shape) == 2:
        return 0
    candidates = (0, 2) if isinstance(pixels, torch.Tensor) else (2, 0)
    return next((axis for axis in candidates if shape[axis] in MODES), None)


def _to_bytes(values: Pixels, kind: str) -> np.ndarray:
    """Return the values as uint8; raise InputError unless they are uint8 or float in [0, 1]."""
    if isinstance(values, torch.Tensor):
        array = (values.float() if values.is_floating_point() else values).numpy()
    else:
        array = values
    if array.dtype.kind == "f":
        low, high = array.min(), array.max()
        if not (low >= 0 and high <= 1):  # also true for NaN
            advice = "; divide them by 255" if low >= 0 and 1 < high <= 255 else ""
            raise InputError(
                f"a float image {kind} must have unnormalised values in [0, 1], got {low} to "
                f"{high}{advice}"
            )
        return np.rint(array.astype(np.float32) * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise InputError(
            f"an image {kind} must be uint8 or float in [0, 1], got {values.dtype}; convert it"
        )
    return array


def _kind(pixels: Pixels) -> str:
    return "tensor" if isinstance(pixels, torch.Tensor) else "array"
