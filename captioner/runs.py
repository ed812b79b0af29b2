"""A run: where it lies, what data it is of, how it describes itself, and whether it may go on.

Nothing here trains; what a checkpoint's files look like is checkpoint.py's.
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import checkpoint, demo, distributed
from .data import CaptionData, read_captions
from .errors import InputError
from .images import Transform
from .options import to_dict

CHECKPOINTS = Path("checkpoints")


def load_data(path: Path | None, format: str | None, cache: Path) -> CaptionData:
    """The data set at `path`, or the demo's, which is drawn into the cache if it is not there."""
    if path is None:
        path = cache / f"demo-v{demo.VERSION}" / "demo"
        if distributed.is_first():
            demo.write_demo(path)
        distributed.barrier()
    return read_captions(path, format)


def describe(options: dict[str, Any], data: CaptionData, transform: Transform) -> dict[str, Any]:
    """The config that goes into checkpoints, in plain values; the options by group of flags."""
    digest = hashlib.sha256()
    for example in data.examples:
        digest.update(json.dumps([example.id, example.split, *example.captions]).encode())
    return {
        "task": "captioning",
        "encoder": to_dict(options["encoder"]),
        "model": to_dict(options["model"]),
        "transform": json.loads(json.dumps(asdict(transform))),
        "training": to_dict(options["training"]),
        "data": {
            "name": data.name,
            "format": data.format,
            "path": None if options["data"].data is None else str(data.root.resolve()),
            "min_count": options["data"].min_count,
            "fingerprint": digest.hexdigest(),
        },
    }


def open_run(run: Path, resume: bool, config: dict[str, Any]) -> checkpoint.Checkpoint | None:
    """The checkpoint to continue from; refuses to overwrite a run, or to continue another one."""
    if not resume:
        if run.is_file() or (run.is_dir() and any(run.iterdir())):
            raise InputError(
                f"{run} holds a run already; --resume continues it, --run NAME starts another "
                "beside it, or delete it"
            )
        return None
    resumed = checkpoint.load(run / "last")
    was, now = _flatten(resumed.config), _flatten(config)
    changed = [
        "the captions have changed"
        if key == "data.fingerprint"
        else f"{key} was {was.get(key)} and is {value}"
        for key, value in now.items()
        if was.get(key) != value and key not in ("data.path", "data.name", "training.patience")
    ]
    if changed:
        raise InputError(f"{run} cannot be continued with other options: {'; '.join(changed)}")
    return resumed


def _flatten(config: dict[str, Any]) -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        inner = value.items() if isinstance(value, dict) else [("", value)]
        flat |= {f"{key}.{name}".rstrip("."): item for name, item in inner}
    return flat
