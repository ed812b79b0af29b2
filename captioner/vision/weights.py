"""Loading encoder weights from a file or by torchvision name."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from ..errors import InputError
from .options import WEIGHTS_FILES

SHOWN = 5  # maximum number of problems listed in an error
# The files of a checkpoint, and what the names of its encoder's weights begin with.
RUN_CONFIG, RUN_WEIGHTS, RUN_PREFIX = "config.json", "model.safetensors", "encoder.layers."


def load_weights(name: str, whole: nn.Module, layers: nn.Sequential, weights: str) -> None:
    """Load weights into the encoder `name`, whose `layers` are part of the `whole` classifier.

    weights: a .pth, .pt or .safetensors file, or a torchvision weights name, which is downloaded.
    Tensors must be named as in torchvision's whole classifier; the classifier head is not
    needed. Files may lack batch norm counters, which are never read here, and may use DenseNet's
    old names. Raises InputError if a tensor is missing, has a different shape or is not finite.
    """
    values = _read_weights(name, weights)
    old_name = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(\d)")
    values = {old_name.sub(r"\1\2", key): value for key, value in values.items()}
    kept = {id(tensor) for tensor in (*layers.parameters(), *layers.buffers())}
    wanted = {k: v for k, v in whole.state_dict(keep_vars=True).items() if id(v) in kept}
    counter = ".num_batches_tracked"
    wanted = {k: v for k, v in wanted.items() if k in values or not k.endswith(counter)}
    if problems := _problems(wanted, values):
        more = len(problems) - SHOWN
        raise InputError(
            f"encoder weights {weights} do not fit {name}: {'; '.join(problems[:SHOWN])}"
            + (f"; and {more} more" if more > 0 else "")
            + f"; choose weights for {name}"
        )
    with torch.no_grad():
        for key, tensor in wanted.items():
            tensor.copy_(values[key])


def load_run_weights(name: str, layers: nn.Sequential, directory: Path) -> None:
    """Load the weights of the encoder `name` from a run or checkpoint of any task.

    layers: the encoder's layers. directory: a run, whose best checkpoint is read, or a checkpoint.
    Raises InputError if there is no checkpoint or it has another encoder, and in the same cases as
    `load_weights`.
    """
    candidates = (directory, directory / "best", directory / "last")
    found = next((path for path in candidates if (path / RUN_WEIGHTS).is_file()), None)
    if found is None:
        raise InputError(f"encoder weights {directory} are not a run, a checkpoint or a file")
    try:
        config = json.loads((found / RUN_CONFIG).read_text(encoding="utf-8"))
        trained = config["encoder"]["encoder"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{found / RUN_CONFIG} does not describe an encoder: {error}") from error
    if trained != name:
        raise InputError(f"{found} has the encoder {trained}, not {name}; pass --encoder {trained}")
    values = _read_weights(name, str(found / RUN_WEIGHTS))
    own = {key.removeprefix(RUN_PREFIX): v for key, v in values.items() if RUN_PREFIX in key}
    wanted = layers.state_dict(keep_vars=True)
    if problems := _problems(wanted, own):
        raise InputError(
            f"encoder weights {found} do not fit {name}: {'; '.join(problems[:SHOWN])}"
        )
    with torch.no_grad():
        for key, tensor in wanted.items():
            tensor.copy_(own[key])


def _problems(wanted: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> list[str]:
    """Return the reasons why the values cannot be loaded into the wanted tensors."""
    shared = [key for key in wanted if key in values]
    problems = [f"{key} is missing" for key in wanted if key not in values]
    problems += [
        f"{key} has shape {tuple(values[key].shape)}, expected {tuple(wanted[key].shape)}"
        for key in shared
        if values[key].shape != wanted[key].shape
    ]
    problems += [
        f"{key} is not finite"
        for key in shared
        if values[key].is_floating_point() and not values[key].isfinite().all()
    ]
    return problems


def _read_weights(name: str, weights: str) -> dict[str, Tensor]:
    path = Path(weights)
    if path.suffix not in WEIGHTS_FILES:
        return _download_weights(name, weights)
    if not path.is_file():
        raise InputError(f"encoder weights {path} do not exist; check the path")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            values = load_file(path)
        else:
            values = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each reader raises its own exceptions for a damaged file
        # After its first sentence, torch.load advises unsafe unpickling.
        reason = str(error).partition(". ")[0] or "the file is empty"
        raise InputError(f"encoder weights {path} cannot be read: {reason}") from error
    if not isinstance(values, dict) or not all(isinstance(v, Tensor) for v in values.values()):
        raise InputError(
            f"encoder weights {path} are not a plain state dict; save a dict of tensors by name"
        )
    return values


def _download_weights(name: str, weights: str) -> dict[str, Tensor]:
    if name not in torchvision.models.list_models(module=torchvision.models):
        raise InputError(
            f"encoder weights {weights!r} cannot be downloaded: {name} has no published weights; "
            "pass a file or a run to --encoder-weights"
        )
    published = torchvision.models.get_model_weights(name)
    if weights != "DEFAULT" and weights not in published.__members__:
        raise InputError(
            f"{name} has no weights {weights!r}; choose {', '.join(published.__members__)}, or a "
            ".pth or .safetensors file"
        )
    try:
        values: dict[str, Tensor] = published[weights].get_state_dict(
            progress=True, check_hash=True
        )
    except (OSError, RuntimeError) as error:  # RuntimeError for a wrong hash
        raise InputError(f"weights {weights} of {name}: download failed: {error}") from error
    return values
