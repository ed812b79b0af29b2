"""The training options of an earlier run, read from the config of its checkpoints."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..checkpoints import checkpoint, hub
from ..errors import InputError
from ..options import convert_values


def read_stored_options(path: Path, groups: Mapping[str, type]) -> dict[str, Any]:
    """Return the stored options by name: those that affect what a run learns.

    path: a run, a checkpoint or its config.json. groups: the groups of `TrainConfig`. Raises
    InputError if the config cannot be read or contains values of the wrong type.
    """
    if path.name == checkpoint.CONFIG:
        path = path.parent
    path, config = checkpoint.inspect(hub.local(path))
    place = path / checkpoint.CONFIG
    sections = [config.get(name) for name in ("data", "encoder", "model", "training")]
    data, *others = [section for section in sections if isinstance(section, dict)] or [{}]
    if len(others) < 3:
        raise InputError(f"{place} does not describe a training run")
    stored = {name: value for section in others for name, value in section.items()}
    stored["start_from"] = config.get("start_from")
    values: dict[str, Any] = {}
    try:
        stored["teachers"] = [teacher["path"] for teacher in config.get("teachers") or ()]
        stored |= _data_options(data, starts=stored["start_from"] is not None)
        for group in groups.values():
            known = {field.name for field in fields(group)} & stored.keys()
            values |= convert_values(group, {name: stored[name] for name in known})
    except (InputError, KeyError, TypeError) as error:
        raise InputError(f"{place}: {error}") from error
    return values


def _data_options(data: dict[str, Any], *, starts: bool) -> dict[str, Any]:
    """Return the data options, except those that have no effect."""
    options = {} if starts else {"min_count": data["min_count"]}
    if data["path"] is not None:  # else the demo data
        options |= {"data": data["path"], "format": data["format"]}
        options["on_error"] = data.get("on_error", "stop")
    return options
