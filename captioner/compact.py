"""Weights in 8 bits, for checkpoints to share: a quarter of the size.

The weights may be those of a model or word vectors. Each row of a weight, for example the inputs of
one output, has a float32 scale, by which its 8-bit numbers are multiplied. Vectors and small
weights stay as they are. Checkpoints of this kind, in the same directory, may share an encoder.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

SHARED = "encoder_of"  # key of a config that names the checkpoint with the encoder
SCALES = ".scales"  # ends the name of the tensor with the scales of a weight
SMALLEST = 1024  # values of a weight that is compressed


def compress(weights: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """Return weights of which the large ones, float32 of at least two dimensions, have 8 bits.

    A weight (R, ...) becomes integers from -127 to 127 with the same name and shape, and scales
    (R,) under its name followed by SCALES.
    """
    import torch

    stored: dict[str, Tensor] = {}
    for name, value in weights.items():
        if value.dtype != torch.float32 or value.ndim < 2 or value.numel() < SMALLEST:
            stored[name] = value
            continue
        rows = value.detach().flatten(1)
        scales = rows.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / 127
        integers = (rows / scales[:, None]).round().to(torch.int8)
        stored[name] = integers.view(value.shape)
        stored[name + SCALES] = scales
    return stored


def expand(stored: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """Return the weights that `compress` stored, in float32.

    Raises InputError if scales do not fit their weight.
    """
    import torch

    weights: dict[str, Tensor] = {}
    for name, value in stored.items():
        if name.endswith(SCALES):
            continue
        scales = stored.get(name + SCALES)
        if scales is None:
            weights[name] = value
            continue
        if value.dtype != torch.int8 or value.ndim < 2 or scales.shape != value.shape[:1]:
            raise InputError(
                f"weight {name} of shape {tuple(value.shape)} does not fit its scales of shape "
                f"{tuple(scales.shape)}; copy or download the checkpoint again"
            )
        weights[name] = (value.flatten(1).float() * scales[:, None]).view(value.shape)
    return weights


def find_lender(path: Path, config: Mapping[str, Any]) -> Path | None:
    """Return the checkpoint beside `path` that contains its encoder; None if `path` has its own.

    config: that of `path`. Raises InputError if the config does not name such a checkpoint, or if
    the checkpoint is missing or has other weights than when `path` was saved.
    """
    if SHARED not in config:
        return None
    shared = config[SHARED] if isinstance(config[SHARED], dict) else {}
    name, expected = shared.get("name"), shared.get("weights")
    if not isinstance(name, str) or name != Path(name).name:
        raise InputError(
            f"checkpoint {path} cannot be used: {SHARED} in config.json does not name a checkpoint "
            "beside it; copy or download the checkpoint again"
        )
    lender = path.parent / name
    weights = lender / "model.safetensors"
    if not weights.is_file():
        raise InputError(
            f"checkpoint {path} is incomplete: its encoder is in {lender}, which is missing; copy "
            "both"
        )
    if hashlib.sha256(weights.read_bytes()).hexdigest() != expected:
        raise InputError(
            f"checkpoint {path} cannot be used: {lender}, which contains its encoder, has other "
            "weights than when it was saved; copy both again"
        )
    return lender
