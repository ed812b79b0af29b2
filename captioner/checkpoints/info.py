"""Descriptions of checkpoints of any task, as text and as data; no weights are loaded."""

import json
import math
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..compact import SCALES, SHARED
from ..errors import InputError
from ..metrics.captions import SCORES
from ..models.parameter_count import describe_parameters
from ..text.vocabulary import Vocabulary
from . import checkpoint
from .runs import read_log, run_of

CAPTIONING = "captioning"  # its models are described in words, other models by their options
CLOSED_FORM = "cca"  # the solver that needs no epochs
TEXT = "text.json"  # describes a linking model's sentence encoder, which replaces the vocabulary


def read_info(path: Path) -> dict[str, Any]:
    """Collect all information about the checkpoint that `checkpoint.find` finds.

    The result contains the keys of the config and the following ones.

    path: the checkpoint's directory. words: number of known words; None if the text model has no
    list of them. numbers: number of values in weights and buffers. files: size in bytes by file
    name. formats: checkpoint formats that this version reads. epoch: epoch after which the
    checkpoint was saved; None if no row of the log has its scores. epochs: number of finished
    epochs. seconds: duration of training and evaluation, in seconds. The last three come from the
    run's log and are None if it is missing. Raises InputError if the checkpoint does not exist or
    is damaged.
    """
    path, config = checkpoint.inspect(path)
    rows = read_log(run_of(path) / "log.jsonl")
    seconds = [row.get(f"{part}_seconds", 0) for row in rows for part in ("training", "evaluation")]
    return {
        "path": str(path),
        **config,
        "formats": list(checkpoint.READABLE),
        "words": _count_words(path),
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
        task = info["task"]
        own = info.get(task) or {}  # the options of the task
        words = "" if info["words"] is None else f", {info['words']:,} words"
        lines = {
            "model": _model(info["model"]) if task == CAPTIONING else _listed(task, info["model"]),
            "": f"{_parameters(info)}{words}",
            **({"options": _listed("", own)} if own else {}),
            "encoder": _encoder(info, own),
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
    wrapper = textwrap.TextWrapper(
        100, subsequent_indent=" " * 12, break_long_words=False, break_on_hyphens=False
    )
    wrapped = (wrapper.fill(f"  {name:10}{text}") for name, text in lines.items())
    return "\n".join([info["path"], *wrapped])


def _listed(title: str, options: Mapping[str, Any]) -> str:
    """Format options as "title: name value, ...".

    An empty title is omitted, and so are options that are None or [].
    """
    parts = [
        f"{name} {' '.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in options.items()
        if value is not None and value != []
    ]
    return f"{title}: {', '.join(parts)}" if title else ", ".join(parts)


def _parameters(info: Mapping[str, Any]) -> str:
    """Return the number of parameters as text; for older checkpoints, that of all values."""
    counts = info.get("parameters")
    return describe_parameters(counts) if counts else f"{info['numbers']:,} values"


def _model(options: Mapping[str, Any]) -> str:
    kind = "Show, Attend and Tell" if options["attention"] else "Show and Tell"
    kind += ", hard attention" * bool(options.get("hard_attention"))
    sizes = f"embeddings {options['embedding_size']}, LSTM {options['hidden_size']}"
    if options["attention"]:
        annotations = options.get("annotation_size")
        sizes += f", annotations {annotations}" if annotations else ""
        sizes += f", attention {options['attention_size']}"
    return f"{kind}: {sizes}"


def _encoder(info: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    options, size = info["encoder"], info["transform"]["size"]
    if own.get("image_vectors"):
        return "none; the image vectors were computed by the user"
    text = f"{options['encoder']} on {size} x {size} pixels"
    if options["encoder_weights"]:
        text += f", weights {Path(options['encoder_weights']).name}"
    stage = options["fine_tune_encoder"]
    text += f", trained from stage {stage} onwards" if stage is not None else ""
    shared = info.get(SHARED)
    return text + (f", stored in {shared['name']} beside it" if shared else "")


def _data(data: Mapping[str, Any]) -> str:
    if data["format"] is None:
        return str(data["name"])
    return f"{data['name']} ({data['format']}), {data['path'] or 'generated'}"


def _training(info: Mapping[str, Any]) -> str:
    options, source = info["training"], info.get("start_from")
    if not options:
        return "not by captioner"
    teachers = info.get("teachers")
    if info["model"].get("solver") == CLOSED_FORM:
        seconds = info["seconds"]
        return "fitted in closed form" + ("" if seconds is None else f", {seconds:.1f} s")
    saved = "" if info["epoch"] is None else f"saved after epoch {info['epoch']} of "
    text = f"{saved}{info['epochs'] or options['epochs']} epochs"
    text += f", batch {options['batch_size']}, seed {options['seed']}"
    text += ", self-critical" * bool(options.get("self_critical"))
    text += f", started from {source}" if source else ""
    text += f", distilled from {', '.join(each['path'] for each in teachers)}" if teachers else ""
    return text + (f", {info['seconds'] / 60:.1f} minutes" if info["seconds"] else "")


def _scores(scores: Mapping[str, float]) -> str:
    values = {name: scores[name] for name in _names(scores)}
    parts = [f"{name} {value:{'.1f' if value >= 1 else '.3f'}}" for name, value in values.items()]
    return "  ".join(parts) or "none stored"


def _names(scores: Mapping[str, float]) -> list[str]:
    """Return the names of the scores to show: caption scores in their usual order, or all."""
    return [name for name in SCORES if name in scores] or list(scores)


def _files(sizes: Mapping[str, int]) -> str:
    names = (checkpoint.WEIGHTS, checkpoint.TRAINING)  # a shared checkpoint has no training state
    parts = [f"{name} {_bytes(sizes[name])}" for name in names if name in sizes]
    return ", ".join(parts) + "; all match their checksums"


def _bytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def _epoch(scores: Mapping[str, float], rows: list[dict[str, Any]]) -> int | None:
    """Return the epoch whose log row has these scores, or None if there is no such row."""
    named = _names(scores)
    for row in reversed(rows):
        if named and all(
            math.isclose(row.get(name, math.nan), scores[name], abs_tol=1e-5) for name in named
        ):
            epoch = row.get("epoch")
            return epoch if isinstance(epoch, int) else None
    return None


def _count_words(path: Path) -> int | None:
    """Return the number of known words of a text model; None if it has no list of words."""
    if not any((path / name).is_file() for name in (TEXT, checkpoint.VOCABULARY)):
        return None  # the tokenizer of a CLIP model knows all words
    if not (path / TEXT).is_file():
        return len(Vocabulary.load(path / checkpoint.VOCABULARY).words)
    try:
        parts = json.loads((path / TEXT).read_bytes())["parts"]
        lists = [part["words"] for part in parts if "words" in part]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path / TEXT} cannot be read: {error}; {checkpoint.ADVICE}") from error
    return len(set().union(*lists)) if lists else None


def _count(weights: Path) -> int:
    """Return the number of values in a safetensors file; only its header is read.

    The scales of weights that are stored in 8 bits are not counted.
    """
    from safetensors import safe_open

    with safe_open(weights, "numpy") as file:
        names = [name for name in file.keys() if not name.endswith(SCALES)]  # noqa: SIM118
        return sum(math.prod(file.get_slice(name).get_shape()) for name in names)
