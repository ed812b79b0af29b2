"""A checkpoint: a directory of plain files, written whole or not at all, checked when read.

    config.json           format, task, options, transform, scores
    vocabulary.json
    model.safetensors     all weights, the encoder's too
    training_state.pt     optimizer, schedule, counters, generator states (weights_only)
    manifest.json         SHA-256 of each of these, written last

One that is shared has README.md, the model's card, in place of training_state.pt.

Nothing here builds models.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..atomic_io import atomic_directory, sibling_path
from ..errors import InputError
from ..text.vocabulary import Vocabulary

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 6
# What `load` turns into the present format: the weights renamed since, by format.
RENAMED: dict[int, dict[str, str]] = {
    5: {"picture.weight": "image_embedding.weight", "picture.bias": "image_embedding.bias"},
}
CONFIG, VOCABULARY, WEIGHTS = "config.json", "vocabulary.json", "model.safetensors"
TRAINING, MANIFEST, CARD = "training_state.pt", "manifest.json", "README.md"


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint directory holds; `training_state` stays on disk until it is asked for."""

    path: Path
    config: dict[str, Any]
    vocabulary: Vocabulary
    weights: "dict[str, Tensor]"

    def training_state(self) -> dict[str, Any]:
        """Optimizer, schedule, counters and generator states, as `save` was given them."""
        import torch

        path = self.path / TRAINING
        if not path.is_file():
            raise InputError(
                f"checkpoint {self.path} was saved without what training needs to go on; "
                "--start-from begins with its weights"
            )
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises half a dozen kinds, with advice that is no good
            raise InputError(
                f"{path} cannot be read: it is damaged, or holds more than plain values"
            ) from error
        if average := state.get("average"):
            average["values"] = _renamed(average["values"], self.config["format"])
        return state


def save(
    directory: Path,
    config: Mapping[str, Any],
    vocabulary: Vocabulary,
    weights: "Mapping[str, Tensor]",
    training_state: Mapping[str, Any] | None,
    card: str | None = None,
) -> None:
    """Write a checkpoint beside `directory`, then put it in its place.

    training_state None and card: of one that is shared. A reader sees the old one or the new one.
    Raises InputError where the new one cannot be written (a full disk, say), and leaves the old
    one.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        with atomic_directory(directory) as part:
            content = {**config, "format": FORMAT}
            (part / CONFIG).write_text(json.dumps(content, indent=2) + "\n")
            vocabulary.save(part / VOCABULARY)
            tensors = {k: v.detach().cpu().contiguous() for k, v in weights.items()}
            save_file(tensors, part / WEIGHTS)
            if training_state is not None:
                _save_state(training_state, part / TRAINING)
            sums = {file.name: _sha256(file) for file in sorted(part.iterdir())}
            (part / MANIFEST).write_text(json.dumps(sums, indent=2) + "\n")
            if card is not None:  # people may change it
                (part / CARD).write_text(card, encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise InputError(f"checkpoint {directory} cannot be written: {error}") from error


def without_paths(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with names in place of paths, which mean nothing on other machines."""

    def named(part: Mapping[str, Any], *keys: str) -> dict[str, Any]:
        return {k: Path(v).name if k in keys and v else v for k, v in part.items()}

    config = named(config, "start_from")
    if config.get("teachers"):
        config["teachers"] = [named(teacher, "path") for teacher in config["teachers"]]
    config["encoder"] = named(config["encoder"], "encoder_weights")
    return config | {"data": named(config["data"], "path")}


def load(path: Path | str) -> Checkpoint:
    """Read the checkpoint at `path`, or the best (else the last) one of the run at `path`.

    Raises InputError where there is none, a file is missing or damaged, the format is newer than
    this library's, or the task is another one.
    """
    path, config = inspect(Path(path))
    version = config.get("format")
    if version != FORMAT and version not in RENAMED:
        newer = isinstance(version, int) and version > FORMAT
        raise InputError(
            f"checkpoint {path} has format {version}, this version of captioner reads "
            f"{min(RENAMED)} to {FORMAT}; " + ("update captioner" if newer else "train it again")
        )
    if config.get("task") != "captioning":
        raise InputError(f"checkpoint {path} is for {config.get('task')!r}, not for captioning")
    weights = _renamed(_read_weights(path / WEIGHTS), version)
    return Checkpoint(path, config, Vocabulary.load(path / VOCABULARY), weights)


def _renamed(tensors: "dict[str, Tensor]", version: int) -> "dict[str, Tensor]":
    """Tensors of a checkpoint of this format by the names that they have in the present one."""
    return {RENAMED.get(version, {}).get(name, name): value for name, value in tensors.items()}


def inspect(path: Path) -> tuple[Path, dict[str, Any]]:
    """The checkpoint directory meant by `path`, whose files are all as written, and its config.

    Raises InputError where there is none, or a file is missing or damaged.
    """
    path = find(path)
    manifest = _read_json(path / MANIFEST)
    for name in (CONFIG, VOCABULARY, WEIGHTS, TRAINING):
        file = path / name
        if name == TRAINING and name not in manifest and not file.exists():
            continue  # one that is shared
        if not file.is_file():
            raise InputError(f"checkpoint {path} is incomplete: {name} is missing")
        if manifest.get(name) != _sha256(file):
            raise InputError(f"checkpoint {path} is damaged: {name} is not what was written")
    return path, _read_json(path / CONFIG)


def find(path: Path) -> Path:
    """The checkpoint directory meant by `path`: itself, or its `best`, or its `last`.

    Where a replacement was cut short between its two renames, the old one stands in.
    """
    for candidate in (path, path / "best", path / "last"):
        for directory in (candidate, sibling_path(candidate, "old")):
            if (directory / MANIFEST).is_file():
                return directory
    if not path.exists():
        raise InputError(f"checkpoint {path} does not exist")
    raise InputError(f"{path} holds no checkpoint: neither {MANIFEST} nor best/ nor last/")


def identity(path: Path) -> str:
    """The SHA-256 of the weights that `load` would read, as the manifest has it, unchecked."""
    path = find(path)
    return str(_read_json(path / MANIFEST).get(WEIGHTS))


def _save_state(state: Mapping[str, Any], path: Path) -> None:
    import torch

    try:
        with path.open("wb") as file:
            torch.save(dict(state), file)
    except RuntimeError as error:  # torch puts its own error over the file's
        raise OSError(str(error.__context__ or error).splitlines()[0]) from error


def _read_weights(path: Path) -> "dict[str, Tensor]":
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    for name, value in weights.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise InputError(f"{path}: {name} holds values that are not finite")
    return weights


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no JSON object")
    return content


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
