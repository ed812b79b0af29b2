"""Descriptions of checkpoints, as text and as data; no weights are loaded."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..metrics.captions import SCORES
from ..text.vocabulary import Vocabulary
from . import checkpoint
from .runs import read_log, run_of


def read_info(path: Path) -> dict[str, Any]:
    """Collect all information about a checkpoint; for a run, about its best checkpoint.

    The result contains the keys of the config and the following ones.

    words: size of the vocabulary. numbers: number of values in weights and buffers. files: size in
    bytes by file name. formats: checkpoint formats that this version reads. epoch: epoch after
    which the checkpoint was saved. epochs: number of finished epochs. seconds: duration of training
    and evaluation. The last three come from the run's log and are None without it. Raises
    InputError if the checkpoint does not exist or is damaged.
    """
    path, config = checkpoint.inspect(path)
    rows = read_log(run_of(path) / "log.jsonl")
    seconds = [row.get(f"{part}_seconds", 0) for row in rows for part in ("training", "evaluation")]
    return {
        "path": str(path),
        **config,
        "formats": list(checkpoint.READABLE),
        "words": len(Vocabulary.load(path / checkpoint.VOCABULARY).words),
        "numbers": _count(path / checkpoint.WEIGHTS),
        "epoch": _epoch(config.get("scores") or {}, rows),
        "epochs": len(rows) or None,
        "seconds": round(sum(seconds), 1) if rows else None,
        "files": {file.name: file.stat().st_size for file in sorted(path.iterdir())},
    }


def describe_info(info: Mapping[str, Any]) -> str:
    """Format the result of `read_info` as lines of text.

    Raises InputError if a value that the text should contain is missing or invalid.
    """
    try:
        lines = {
            "model": _model(info["model"]),
            "": f"{info['numbers']:,} values, {info['words']:,} words",
            "encoder": _encoder(info["encoder"], info["transform"]["size"]),
            "data": _data(info["data"]),
            "training": _training(info),
            "scores": _scores(info.get("scores") or {}),
            "files": _files(info["files"]),
            "format": f"{info['format']}; this version of captioner reads "
            f"{checkpoint.readable_formats()}",
        }
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(
            f"{info['path']}: config.json cannot be described: a value is missing or invalid; "
            "pass --json to print its contents"
        ) from error
    return "\n".join([info["path"], *(f"  {name:10}{text}" for name, text in lines.items())])


def _model(options: Mapping[str, Any]) -> str:
    kind = "Show, Attend and Tell" if options["attention"] else "Show and Tell"
    kind += ", hard attention" * bool(options.get("hard_attention"))
    sizes = f"embeddings {options['embedding_size']}, LSTM {options['hidden_size']}"
    if options["attention"]:
        annotations = options.get("annotation_size")
        sizes += f", annotations {annotations}" if annotations else ""
        sizes += f", attention {options['attention_size']}"
    return f"{kind}: {sizes}"


def _encoder(options: Mapping[str, Any], size: int) -> str:
    text = f"{options['encoder']} on {size} x {size} pixels"
    if options["encoder_weights"]:
        text += f", weights {Path(options['encoder_weights']).name}"
    stage = options["fine_tune_encoder"]
    return text + (f", trained from stage {stage} onwards" if stage is not None else "")


def _data(data: Mapping[str, Any]) -> str:
    return f"{data['name']} ({data['format']}), {data['path'] or 'generated'}"


def _training(info: Mapping[str, Any]) -> str:
    options, source = info["training"], info.get("start_from")
    teachers = info.get("teachers")
    saved = "" if info["epoch"] is None else f"saved after epoch {info['epoch']} of "
    text = f"{saved}{info['epochs'] or options['epochs']} epochs"
    text += f", batch {options['batch_size']}, seed {options['seed']}"
    text += ", self-critical" * bool(options.get("self_critical"))
    text += f", started from {source}" if source else ""
    text += f", distilled from {', '.join(each['path'] for each in teachers)}" if teachers else ""
    return text + (f", {info['seconds'] / 60:.1f} minutes" if info["seconds"] else "")


def _scores(scores: Mapping[str, float]) -> str:
    parts = [f"{name} {scores[name]:.1f}" for name in SCORES if name in scores]
    return "  ".join(parts) or "none yet"


def _files(sizes: Mapping[str, int]) -> str:
    names = (checkpoint.WEIGHTS, checkpoint.TRAINING)  # a shared checkpoint has no training state
    parts = [f"{name} {_bytes(sizes[name])}" for name in names if name in sizes]
    return ", ".join(parts) + "; all match their checksums"


def _bytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def _epoch(scores: Mapping[str, float], rows: list[dict[str, Any]]) -> int | None:
    """Return the epoch whose log row has these scores, or None if there is no such row."""
    named = [name for name in SCORES if name in scores]
    for row in reversed(rows):
        if named and all(
            math.isclose(row.get(name, math.nan), scores[name], abs_tol=1e-5) for name in named
        ):
            epoch = row.get("epoch")
            return epoch if isinstance(epoch, int) else None
    return None


def _count(weights: Path) -> int:
    """Return the number of values in a safetensors file, reading only its header."""
    from safetensors import safe_open

    with safe_open(weights, "numpy") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
