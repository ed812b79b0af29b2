"""Checkpoints: directories of plain files, written atomically and verified.

    config.json           format, task, options, transform, scores
    vocabulary.json       or the other files of the task's text model
    model.safetensors     all weights, including the encoder's
    training_state.pt     optimizer, schedule, counters, RNG states, unaveraged weights; loaded
                          with weights_only
    manifest.json         SHA-256 of each file above

A shared checkpoint contains README.md, its model card, instead of training_state.pt. A model fitted
in closed form has no training_state.pt.

This version writes formats 6 and 7 and reads formats 5 to 7. Format 5 differs only in the names of
the weights in `RENAMED_WEIGHTS`. In format 7, files of tensors are those of `compact`, and the
encoder's weights may be in another checkpoint in the same directory, which the config then names as
`encoder_of`.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..atomic_io import atomic_directory, sibling_path
from ..compact import SHARED, compress, expand, find_lender
from ..errors import InputError
from ..git_lfs import refuse_pointer_file
from ..options import did_you_mean
from ..pretrained import NAMES
from ..text.vocabulary import Vocabulary

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..data.images import Transform

    Model = TypeVar("Model", bound=nn.Module)

log = logging.getLogger(__name__)

FORMAT, COMPACT = 6, 7
# Model options that configs of older versions lack, by task, with the values of those models.
OLDER_OPTIONS: dict[str, dict[str, Any]] = {
    "mcnn": {"scale_inputs": False, "loss": "hinges", "temperature": 0.2, "pair_maps": None},
}
# Older formats that can be read: {format: {old name of a weight: its name in FORMAT}}.
RENAMED_WEIGHTS: dict[int, dict[str, str]] = {
    5: {"picture.weight": "image_embedding.weight", "picture.bias": "image_embedding.bias"},
}
READABLE = (*sorted(RENAMED_WEIGHTS), FORMAT, COMPACT)
ADVICE = "copy or download the checkpoint again"
ENCODER = "encoder."  # the names of an encoder's weights begin with it
CONFIG, VOCABULARY, WEIGHTS = "config.json", "vocabulary.json", "model.safetensors"
FILES_OF_TASKS = ("image_vectors", "word_vectors", "text_vectors", "tags")
NON_NEGATIVE = ("running_var", "deviation")  # last parts of the names of buffers
TRAINING, MANIFEST, CARD = "training_state.pt", "manifest.json", "README.md"


@dataclass(frozen=True)
class Checkpoint:
    """The config and weights of a checkpoint directory; other files are read on request."""

    path: Path
    config: dict[str, Any]
    weights: "dict[str, Tensor]"

    @property
    def task(self) -> str:
        """The name of the task that the model was trained for."""
        return str(self.config.get("task"))

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary; raises InputError if it is missing or cannot be read."""
        return Vocabulary.load(self.path / VOCABULARY)

    @property
    def transform(self) -> "Transform":
        """The transform of images; raises InputError if the config does not describe one."""
        from ..data.images import Transform

        try:
            return Transform(**self.config["transform"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"checkpoint {self.path} cannot be used: config.json does not describe an image "
                f"transform: {error}; {ADVICE}"
            ) from error

    def check_task(self, name: str) -> None:
        """Raise InputError if the model was trained for a task other than `name`."""
        if self.config.get("task") != name:
            raise InputError(
                f"checkpoint {self.path} was trained for {self.config.get('task')!r}, not "
                f"{name!r}; choose another checkpoint"
            )

    def check_resumable(self) -> None:
        """Raise InputError if the checkpoint has no training state."""
        if not (self.path / TRAINING).is_file():
            raise InputError(
                f"checkpoint {self.path} cannot be resumed: it has no training state; "
                "start a new run from its weights with --start-from"
            )

    def training_state(self) -> dict[str, Any]:
        """Read the training state that was passed to `save`; its weights have their current names.

        Raises InputError if the checkpoint has no training state, or if it cannot be read.
        """
        import torch

        self.check_resumable()
        path = self.path / TRAINING
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (
            Exception
        ) as error:  # torch raises various errors, and some advise weights_only=False
            raise InputError(
                f"{path} cannot be read: it is damaged or contains objects other than plain "
                "values; start a new run from the weights with --start-from"
            ) from error
        if not isinstance(state, dict):
            raise InputError(
                f"{path} cannot be read: it does not contain a dictionary; start a new run from "
                "the weights with --start-from"
            )
        if average := state.get("average"):
            average["values"] = _upgrade_names(average["values"], self.config["format"])
        return state


def save(
    directory: Path,
    config: Mapping[str, Any],
    save_text_model: Callable[[Path], None],
    weights: "Mapping[str, Tensor]",
    training_state: Mapping[str, Any] | None,
    card: str | None = None,
    *,
    compact: bool = False,
    encoder_of: Path | None = None,
) -> None:
    """Write a checkpoint to `directory`, atomically replacing any existing one.

    save_text_model(directory): writes the vocabulary or the other files of the text model. A
    shared checkpoint has a `card` (Markdown) and no training state. compact: whether large weights
    and word vectors are stored in 8 bits. encoder_of: a compact checkpoint in the same parent
    directory, whose encoder the new checkpoint shares, so that the encoder's weights are not stored
    again. Raises InputError if the encoder of `encoder_of` cannot be shared, or if the files cannot
    be written, for example because the disk is full; an existing checkpoint is then kept.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as parse
    from safetensors.torch import save_file

    try:
        with atomic_directory(directory) as part:
            content = {**config, "format": COMPACT if compact else FORMAT}
            if encoder_of is not None:
                lender = _check_lender(encoder_of, directory, config, weights)
                content[SHARED] = {"name": lender.name, "weights": identity(lender)}
                weights = {k: v for k, v in weights.items() if not k.startswith(ENCODER)}
            (part / CONFIG).write_text(json.dumps(content, indent=2) + "\n")
            save_text_model(part)
            tensors = {k: v.detach().cpu().contiguous() for k, v in weights.items()}
            save_file(tensors, part / WEIGHTS)
            if compact:
                for file in part.glob("*.safetensors"):
                    save_file(compress(parse(file.read_bytes())), file)
                    shutil.copymode(part / CONFIG, file)
            shutil.copymode(part / CONFIG, part / WEIGHTS)  # safetensors ignores the umask
            if training_state is not None:
                _save_state(training_state, part / TRAINING)
            sums = {file.name: _sha256(file) for file in sorted(part.iterdir())}
            (part / MANIFEST).write_text(json.dumps(sums, indent=2) + "\n")
            if card is not None:  # not in the manifest, so that its owner may edit it
                (part / CARD).write_text(card, encoding="utf-8")
    except (OSError, SafetensorError) as error:
        needed = _bytes(weights) + _bytes(training_state)
        raise InputError(
            f"checkpoint {directory} cannot be written: {error}; check that its directory is "
            f"writable and that more than {needed:,} bytes are free, in addition to any checkpoint "
            "that it replaces"
        ) from error


def _check_lender(
    path: Path, directory: Path, config: Mapping[str, Any], weights: "Mapping[str, Tensor]"
) -> Path:
    """Return the resolved path of the checkpoint whose encoder `directory` will share.

    Raises InputError if it is in another parent directory, is not compact, has no encoder of its
    own, or has a different encoder or different encoder weights.
    """
    import torch

    found, other = inspect(path)
    found = found.resolve()
    stored = _read_weights(found / WEIGHTS)
    own = compress({k: v.detach().cpu() for k, v in weights.items() if k.startswith(ENCODER)})
    ours, theirs = (each["encoder"]["encoder"] for each in (config, other))
    if found.parent != directory.resolve().parent:
        reason = f"it is not in the same directory as {directory}"
    elif other.get("format") != COMPACT or SHARED in other:
        reason = f"{path} is not a compact checkpoint with an encoder of its own"
    elif ours != theirs:
        reason = f"its encoder is {theirs}, not {ours}"
    elif not all(k in stored and torch.equal(stored[k], v) for k, v in own.items()):
        reason = "the weights of its encoder are others"
    else:
        return found
    raise InputError(f"the encoder of {path} cannot be used: {reason}; choose another checkpoint")


def without_paths(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's config with each path reduced to its last component.

    The reference to a shared encoder is removed. Raises InputError if the config lacks the task,
    encoder or data.
    """

    def shorten(section: Mapping[str, Any], *keys: str) -> dict[str, Any]:
        return {k: name(v) if k in keys and v else v for k, v in section.items()}

    def name(value: Any) -> Any:
        return list(map(name, value)) if isinstance(value, list) else Path(value).name

    if not {"task", "encoder", "data"} <= config.keys():
        raise InputError("the config is not that of a checkpoint: it lacks task, encoder or data")
    config = shorten(config, "start_from")
    config.pop(SHARED, None)  # the weights in memory include the encoder's
    if config.get("teachers"):
        config["teachers"] = [shorten(teacher, "path") for teacher in config["teachers"]]
    config["encoder"] = shorten(config["encoder"], "encoder_weights")
    own = str(config.get("task"))
    if own in config:  # the options of a linking model
        config[own] = shorten(config[own], *FILES_OF_TASKS)
    return config | {"data": shorten(config["data"], "path")}


def load(path: Path | str) -> Checkpoint:
    """Load a checkpoint; for a run, its best checkpoint, or its last if there is no best one.

    Weights in older formats get their current names. Raises InputError if there is no checkpoint,
    if a file is missing or damaged, if the format is not one of READABLE, if a weight is not
    finite, or if a weight is negative where it must not be.
    """
    path, config = inspect(Path(path))
    version = config.get("format")
    if not isinstance(version, int) or version not in READABLE:
        newer = isinstance(version, int) and version > READABLE[-1]
        raise InputError(
            f"checkpoint {path} cannot be loaded: it has format {version}, but this version of "
            f"captioner reads {readable_formats()}; "
            + ("update captioner" if newer else "retrain the model" if version else ADVICE)
        )
    weights = _upgrade_names(_read_weights(path / WEIGHTS), version)
    log.debug("checkpoint %s: task %s, format %s", path, config.get("task"), version)
    if version == COMPACT:
        weights = expand(weights | _shared_encoder(path, config))
    return Checkpoint(path, config, weights)


def _shared_encoder(path: Path, config: Mapping[str, Any]) -> "dict[str, Tensor]":
    """Return the weights of the encoder that a checkpoint shares with another; {} for none."""
    lender = find_lender(path, config)
    if lender is None:
        return {}
    return {k: v for k, v in _read_weights(lender / WEIGHTS).items() if k.startswith(ENCODER)}


def readable_formats() -> str:
    """Return, as text, the formats that `load` reads, for example "formats 5, 6 and 7"."""
    *older, current = map(str, READABLE)
    return f"formats {', '.join(older)} and {current}" if older else f"format {current}"


def restore(checkpoint: Checkpoint, build: "Callable[[], Model]") -> "Model":
    """Return the model that `build` builds, on the CPU and with the weights of a checkpoint.

    The model is built on the meta device, so that a config that does not match the weights or the
    text model is rejected before memory for the model is allocated. Raises InputError for such a
    config.
    """
    from ..meta import on_meta_device

    try:
        with on_meta_device():
            model = build()
        _check_types(model, checkpoint.weights)
        model.load_state_dict(checkpoint.weights, assign=True)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())  # torch's messages span several lines
        if isinstance(error, KeyError):
            reason = f"{error} is missing"
        raise InputError(
            f"checkpoint {checkpoint.path} cannot be used: its files do not match each other: "
            f"{reason}; {ADVICE}"
        ) from error
    return model


def load_checkpoint_weights(model: "nn.Module", source: Checkpoint) -> None:
    """Load a checkpoint's weights into the model, which keeps its buffers that are missing there.

    Raises InputError if a parameter is missing, if the model lacks a parameter or buffer of the
    checkpoint, or if one has another shape or dtype.
    """
    try:
        _check_types(model, source.weights)
        missing, unexpected = model.load_state_dict(source.weights, strict=False)
    except (TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())  # torch's message spans many lines
        raise InputError(
            f"the weights of {source.path} do not fit the model: {reason}; choose another "
            "checkpoint"
        ) from error
    parameters = dict(model.named_parameters())
    problems = [f"{name} is missing" for name in missing if name in parameters]
    problems += [f"{name} is unexpected" for name in unexpected]
    if problems:
        raise InputError(
            f"the weights of {source.path} do not fit the model: {'; '.join(problems[:5])}; choose "
            "another checkpoint"
        )


def _check_types(model: "nn.Module", weights: "Mapping[str, Tensor]") -> None:
    """Raise TypeError for the first weight whose dtype differs from the model's."""
    for name, value in model.state_dict().items():
        if name in weights and weights[name].dtype != value.dtype:
            found, expected = (
                str(each.dtype).removeprefix("torch.") for each in (weights[name], value)
            )
            raise TypeError(f"{name} is {found}, but must be {expected}")


def inspect(path: Path) -> tuple[Path, dict[str, Any]]:
    """Find a checkpoint as `find` does, verify its files, and return its path and config.

    Raises InputError if there is no checkpoint, if a file is missing, or if a file does not match
    its checksum or has none.
    """
    path = find(path)
    manifest = _read_json(path / MANIFEST)
    # A training state that the manifest lacks was not written with the rest of the checkpoint.
    present = {TRAINING} if (path / TRAINING).exists() else set()
    for name in sorted({CONFIG, WEIGHTS, *manifest, *present}):
        if name != Path(name).name:
            raise InputError(f"{path / MANIFEST} is damaged: {name!r} is not a file name; {ADVICE}")
        if not (path / name).is_file():
            raise InputError(f"checkpoint {path} is incomplete: {name} is missing; {ADVICE}")
        if manifest.get(name) != _sha256(path / name):
            refuse_pointer_file(path / name)
            problem = "does not match its checksum" if name in manifest else "has no checksum"
            raise InputError(
                f"checkpoint {path} is damaged: {name} {problem} in {MANIFEST}; {ADVICE}"
            )
    return path, read_config(path)


def read_config(directory: Path) -> dict[str, Any]:
    """Read the config of a checkpoint directory, with OLDER_OPTIONS for those that it lacks.

    Raises InputError if it cannot be read.
    """
    config = _read_json(directory / CONFIG)
    older = OLDER_OPTIONS.get(str(config.get("task")))
    if older and isinstance(config.get("model"), dict):
        config["model"] = older | config["model"]
    return config


def find(path: Path) -> Path:
    """Return the first checkpoint directory among `path`, `path`/best and `path`/last.

    If a replacement was interrupted between its two renames, the old checkpoint is returned.
    Raises InputError if there is no checkpoint.
    """
    for candidate in (path, path / "best", path / "last"):
        for directory in (candidate, sibling_path(candidate, "old")):
            if (directory / MANIFEST).is_file():
                return directory
    if not path.exists():
        raise InputError(
            f"checkpoint {path} does not exist; check the path{did_you_mean(str(path), NAMES)}"
        )
    raise InputError(
        f"{path} does not contain a checkpoint: there is no {MANIFEST} in it, in best/ or in "
        "last/; pass a run or a checkpoint"
    )


def identity(path: Path) -> str:
    """Return the SHA-256 of the weights that the manifest lists; it is not verified."""
    path = find(path)
    return str(_read_json(path / MANIFEST).get(WEIGHTS))


def _bytes(values: Any) -> int:
    """Return the total size in bytes of all tensors in nested dicts and lists."""
    if isinstance(values, Mapping):
        values = list(values.values())
    if isinstance(values, list | tuple):
        return sum(map(_bytes, values))
    return getattr(values, "nbytes", 0)


def _save_state(state: Mapping[str, Any], path: Path) -> None:
    import torch

    try:
        with path.open("wb") as file:
            torch.save(dict(state), file)
    except RuntimeError as error:  # torch replaces the OSError with its own error
        raise OSError(str(error.__context__ or error).splitlines()[0]) from error


def _read_weights(path: Path) -> "dict[str, Tensor]":
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read: {error}; {ADVICE}") from error
    for name, value in weights.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise InputError(
                f"{path} cannot be used: {name} contains values that are not finite; choose "
                "another checkpoint"
            )
        if name.endswith(NON_NEGATIVE) and value.is_floating_point() and (value < 0).any():
            raise InputError(
                f"{path} cannot be used: {name} contains negative values; choose another checkpoint"
            )
    return weights


def _upgrade_names(tensors: "dict[str, Tensor]", version: int) -> "dict[str, Tensor]":
    """Rename the tensors of a checkpoint of format `version` to their names in FORMAT."""
    current = RENAMED_WEIGHTS.get(version, {})
    return {current.get(name, name): value for name, value in tensors.items()}


def _read_json(path: Path) -> dict[str, Any]:
    refuse_pointer_file(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read: {error}; {ADVICE}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} cannot be read: its content is not a JSON object; {ADVICE}")
    return content


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
