"""Weights from elsewhere into an encoder's layers: files, or torchvision's by name."""

import re
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from ..errors import InputError


def load_weights(name: str, whole: nn.Module, layers: nn.Sequential, weights: str) -> None:
    """Fill the layers, a trunk of the `whole` classifier, from a file or torchvision's by name.

    Values have torchvision's names for the whole; the classifier's own are not needed.

    Older files, some of torchvision's own among them, lack batch norm's counter, which nothing
    here reads, and have a dot more in DenseNet's names; both load.
    """
    values = _read_weights(name, weights)
    dot = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(\d)")
    values = {dot.sub(r"\1\2", key): value for key, value in values.items()}
    trunk = {id(tensor) for tensor in (*layers.parameters(), *layers.buffers())}
    own = {k: v for k, v in whole.state_dict(keep_vars=True).items() if id(v) in trunk}
    own = {k: v for k, v in own.items() if k in values or not k.endswith(".num_batches_tracked")}
    problems = [f"{key} is missing" for key in own if key not in values]
    problems += [
        f"{key} is {tuple(values[key].shape)}, not {tuple(tensor.shape)}"
        for key, tensor in own.items()
        if key in values and values[key].shape != tensor.shape
    ]
    problems += [
        f"{key} is not finite"
        for key in own
        if key in values and values[key].is_floating_point() and not values[key].isfinite().all()
    ]
    if problems:
        raise InputError(
            f"the weights do not fit {name}: {'; '.join(problems[:5])}"
            + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        )
    with torch.no_grad():
        for key, tensor in own.items():
            tensor.copy_(values[key])


def _read_weights(name: str, weights: str) -> dict[str, Tensor]:
    path = Path(weights)
    if path.suffix not in (".pth", ".pt", ".safetensors"):
        return _named_weights(name, weights)
    if not path.is_file():
        raise InputError(f"encoder weights {path} do not exist")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            values = load_file(path)
        else:
            values = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each reader has its own exceptions for a damaged file
        reason = str(error).partition(". ")[0] or "the file is empty"  # the rest is bad advice
        raise InputError(f"encoder weights {path} cannot be read: {reason}") from error
    if not isinstance(values, dict) or not all(isinstance(v, Tensor) for v in values.values()):
        raise InputError(f"encoder weights {path} hold no plain state dict of tensors")
    return values


def _named_weights(name: str, weights: str) -> dict[str, Tensor]:
    if name not in torchvision.models.list_models(module=torchvision.models):
        raise InputError(f"{name} has no published weights; --encoder-weights takes a file")
    known = torchvision.models.get_model_weights(name)
    if weights != "DEFAULT" and weights not in known.__members__:
        raise InputError(
            f"{name} has no weights {weights!r}; torchvision has "
            f"{', '.join(known.__members__)}, or name a .pth or .safetensors file"
        )
    try:
        return known[weights].get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:  # the latter for a download with a wrong hash
        raise InputError(f"weights {weights} of {name} could not be downloaded: {error}") from error
