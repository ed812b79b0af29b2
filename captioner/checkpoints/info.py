"""What a checkpoint is, for people and for programs, without its weights being loaded.

What its files look like is checkpoint.py's.
"""

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
    """Its config, with what is in the other files: the checkpoint's, or the best of the run's.

    words: size of the vocabulary. numbers: weights and buffers, counted. files: bytes by name.
    epoch, epochs and seconds are the log's: when it was saved, how many there were, and how long
    all took; None without a log beside it. Raises InputError where there is none, or it is damaged.
    """
    place, config = checkpoint.inspect(path)
    rows = read_log(run_of(place) / "log.jsonl")
    spent = [row.get(f"{part}_seconds", 0) for row in rows for part in ("training", "evaluation")]
    return {
        "path": str(place),
        **config,
        "words": len(Vocabulary.load(place / checkpoint.VOCABULARY).words),
        "numbers": _count(place / checkpoint.WEIGHTS),
        "epoch": _epoch(config.get("scores") or {}, rows),
        "epochs": len(rows) or None,
        "seconds": round(sum(spent), 1) if rows else None,
        "files": {file.name: file.stat().st_size for file in sorted(place.iterdir())},
    }


def describe_info(info: Mapping[str, Any]) -> str:
    """What `read_info` found, a line for each thing, to be read by people."""
    try:
        lines = {
            "model": _model(info["model"]),
            "": f"{info['numbers']:,} numbers, {info['words']:,} words",
            "encoder": _encoder(info["encoder"], info["transform"]["size"]),
            "data": f"{info['data']['name']} ({info['data']['format']}), "
            + f"{info['data']['path'] or 'generated'}",
            "training": _training(info),
            "scores": _scores(info.get("scores") or {}),
            "files": ", ".join(
                f"{name} {_bytes(info['files'][name])}"
                for name in (checkpoint.WEIGHTS, checkpoint.TRAINING)
                if name in info["files"]  # one that is shared has no state of training
            )
            + "; all are as they were written",
            "format": f"{info['format']}; this version of captioner reads {checkpoint.FORMAT}",
        }
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(
            f"{info['path']}: its config.json cannot be described; --json shows what it holds"
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
    return text + (f", trained from stage {stage} on" if stage is not None else "")


def _training(info: Mapping[str, Any]) -> str:
    options, source = info["training"], info.get("start_from")
    teachers = info.get("teachers")
    saved = "" if info["epoch"] is None else f"saved after epoch {info['epoch']} of "
    text = f"{saved}{info['epochs'] or options['epochs']} epochs"
    text += f", batch {options['batch_size']}, seed {options['seed']}"
    text += ", self-critical" * bool(options.get("self_critical"))
    text += f", from {source}" if source else ""
    text += f", taught by {', '.join(each['path'] for each in teachers)}" if teachers else ""
    return text + (f", {info['seconds'] / 60:.1f} minutes" if info["seconds"] else "")


def _scores(scores: Mapping[str, float]) -> str:
    found = [f"{name} {scores[name]:.1f}" for name in SCORES if name in scores]
    return "  ".join(found) or "none yet"


def _bytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def _epoch(scores: Mapping[str, float], rows: list[dict[str, Any]]) -> int | None:
    """The epoch whose row in the log has these scores."""
    named = [name for name in SCORES if name in scores]
    for row in reversed(rows):
        if named and all(
            math.isclose(row.get(name, math.nan), scores[name], abs_tol=1e-5) for name in named
        ):
            return row.get("epoch")
    return None


def _count(weights: Path) -> int:
    """How many numbers a safetensors file holds, by its header."""
    from safetensors import safe_open

    with safe_open(weights, "numpy") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
