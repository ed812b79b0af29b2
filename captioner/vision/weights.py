"""Loading encoder weights from a file or a run, or by torchvision name."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeGuard

import torch
from torch import Tensor, nn

from ..compact import expand, find_lender
from ..errors import InputError
from ..git_lfs import refuse_pointer_file
from ..pretrained import NAMES
from .light_torchvision import torchvision
from .options import WEIGHTS_FILES

SHOWN = 5  # maximum number of problems listed in an error
# The files of a checkpoint, and what the names of its encoder's weights begin with.
RUN_CONFIG, RUN_WEIGHTS, RUN_PREFIX = "config.json", "model.safetensors", "encoder.layers."
WRAPPERS = ("state_dict", "model", "model_state_dict")  # usual names of a state dict in checkpoints


def load_weights(
    name: str,
    whole: nn.Module,
    layers: nn.Sequential,
    weights: str,
    rename: Callable[[str], str] = lambda key: key,
) -> None:
    """Load weights into the encoder `name`, whose `layers` are part of the `whole` classifier.

    weights: a file written by torch.save (.pth, .pt, .bin, .ckpt, .tar) or by safetensors; or a
    torchvision weights name, which is downloaded. Tensors must be named as in torchvision's whole
    classifier, possibly with a common prefix such as "module."; tensors of the classifier head
    are not needed. Files may lack batch norm counters, which are not used, and may use DenseNet's
    old names. They may also be checkpoints that contain the tensors under a name such as
    "state_dict". Raises InputError if the weights cannot be read or downloaded, and if a tensor is
    missing, has a different shape or is not finite. rename: maps other names to those of `whole`.
    """
    values = {rename(key): value for key, value in _read_weights(name, weights).items()}
    old_name = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(\d)")
    values = {old_name.sub(r"\1\2", key): value for key, value in values.items()}
    kept = {id(tensor) for tensor in (*layers.parameters(), *layers.buffers())}
    wanted = {k: v for k, v in whole.state_dict(keep_vars=True).items() if id(v) in kept}
    values = _without_prefix(values, wanted, weights)
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

    layers: the encoder's layers. directory: a checkpoint, or a run, whose best checkpoint is read,
    or the last if there is no best one. Raises InputError if there is no checkpoint or it has
    another encoder, and in the same cases as `load_weights`.
    """
    candidates = (directory, directory / "best", directory / "last")
    found = next((path for path in candidates if (path / RUN_WEIGHTS).is_file()), None)
    if found is None:
        raise InputError(
            f"encoder weights {directory} contain no {RUN_WEIGHTS}; pass a run, a checkpoint or a "
            "file"
        )
    try:
        config = json.loads((found / RUN_CONFIG).read_text(encoding="utf-8"))
        trained = config["encoder"]["encoder"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise InputError(
            f"{found / RUN_CONFIG} does not describe an encoder: {reason}; choose another run"
        ) from error
    if trained != name:
        raise InputError(f"{found} has the encoder {trained}, not {name}; pass --encoder {trained}")
    found = find_lender(found, config) or found
    values = expand(_read_weights(name, str(found / RUN_WEIGHTS)))
    own = {key.removeprefix(RUN_PREFIX): v for key, v in values.items() if RUN_PREFIX in key}
    wanted = layers.state_dict(keep_vars=True)
    if problems := _problems(wanted, own):
        raise InputError(
            f"encoder weights {found} do not fit {name}: {'; '.join(problems[:SHOWN])}; choose "
            f"weights for {name}"
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


def _without_prefix(
    values: dict[str, Tensor], wanted: Mapping[str, Tensor], weights: str
) -> dict[str, Tensor]:
    """Remove the prefix that wrappers and larger models add to torchvision's names.

    If there are several prefixes ("encoder_q.", "encoder_k."), only the one that precedes the most
    wanted names is removed. Raises InputError if several precede equally many.
    """
    values = {key.replace("_orig_mod.", ""): value for key, value in values.items()}  # compiled
    first = next(iter(wanted))
    prefixes = {key.removesuffix(first) for key in values if f".{key}".endswith(f".{first}")}
    if not prefixes or "" in prefixes:
        return values
    counts = {prefix: sum(prefix + key in values for key in wanted) for prefix in prefixes}
    best = [prefix for prefix in sorted(prefixes) if counts[prefix] == max(counts.values())]
    if len(best) > 1:
        raise InputError(
            f"encoder weights {weights} contain several encoders, whose tensor names begin "
            f"with {', '.join(best)}; save the tensors of only one encoder"
        )
    return {key.removeprefix(best[0]): value for key, value in values.items()}


def _read_weights(name: str, weights: str) -> dict[str, Tensor]:
    if weights.startswith(("http://", "https://")):
        raise InputError(
            f"encoder weights cannot be read from the URL {weights}; download the file and pass "
            "its path"
        )
    path = Path(weights)
    if path.suffix not in WEIGHTS_FILES and not path.is_file():
        return _download_weights(name, weights)
    if not path.is_file():
        raise InputError(f"encoder weights {path} do not exist; check the path")
    refuse_pointer_file(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            values = load_file(path)
        else:
            values = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each reader raises its own exceptions for a damaged file
        raise InputError(
            f"encoder weights {path} cannot be read: {_reason(error, path)}"
        ) from error
    return _state_dict(values, path)


def _reason(error: Exception, path: Path) -> str:
    """Return why a file cannot be read, and what to do.

    The message of torch.load is not repeated, because it suggests unsafe unpickling.
    """
    message = str(error)
    if foreign := re.search(r"Unsupported global: GLOBAL (\S+)", message):
        return f"it contains {foreign[1]}, not only tensors; save the model's state_dict() alone"
    if "TorchScript" in message:
        return "it is a TorchScript program; save the model's state_dict()"
    advice = "copy or download it again"
    if path.stat().st_size == 0:
        return f"the file is empty; {advice}"
    if path.suffix == ".safetensors":
        return f"{message}; {advice}"
    return f"it is damaged, or was not written by torch.save; {advice}"


def _state_dict(content: object, path: Path) -> dict[str, Tensor]:
    """Return the state dict in the content of a file: the one named in WRAPPERS, or the only one.

    A state dict is a nonempty dict of tensors by name. Raises InputError if there is none, or if
    there are several.
    """
    if _is_state_dict(content):
        return content
    entries = content if isinstance(content, dict) else {}
    for name in WRAPPERS:
        if isinstance(entries.get(name), dict):
            return _state_dict(entries[name], path)
    found = [name for name, value in entries.items() if _is_state_dict(value)]
    if len(found) == 1:
        return _state_dict(entries[found[0]], path)
    some = f"contain several state dicts ({', '.join(map(str, found))})"
    raise InputError(
        f"encoder weights {path} {some if found else 'contain no state dict'}; "
        "save one dict of tensors by name"
    )


def _is_state_dict(content: object) -> TypeGuard[dict[str, Tensor]]:
    return (
        isinstance(content, dict)
        and len(content) > 0
        and all(isinstance(key, str) and isinstance(v, Tensor) for key, v in content.items())
    )


def _download_weights(name: str, weights: str) -> dict[str, Tensor]:
    if name not in torchvision.models.list_models(module=torchvision.models):
        raise InputError(
            f"encoder weights {weights!r} are neither a file nor a run, and {name} has no "
            "published weights; pass a file or a run to --encoder-weights"
        )
    published = torchvision.models.get_model_weights(name)
    if weights != "DEFAULT" and weights not in published.__members__:
        raise InputError(
            f"{name} has no weights {weights!r}; choose {', '.join(published.__members__)}, a .pth "
            f"or .safetensors file, a run, or a model of the package ({', '.join(NAMES)})"
        )
    try:
        values: dict[str, Tensor] = published[weights].get_state_dict(
            progress=True, check_hash=True
        )
    except (OSError, RuntimeError) as error:  # RuntimeError for a wrong hash
        raise InputError(
            f"weights {weights} of {name}: download failed: {error}; check the connection, or pass "
            "a file to --encoder-weights"
        ) from error
    return values
