"""The training options of an earlier run, read from the config of its checkpoints."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..checkpoints import checkpoint, hub
from ..errors import InputError
from ..options import Options, convert_values, option_names
from ..pretrained import CAPTIONER, find_pretrained
from ..tasks.systems import task_named
from ..tasks.task import Task


def read_stored_options(
    path: Path, option_groups: Callable[[Task], Mapping[str, type[Options]]]
) -> tuple[Task, dict[str, Any]]:
    """Return a run's task and, by name, the options that affect the trained model.

    path: a run, a checkpoint or its config.json. option_groups(task): the groups of `TrainConfig`.
    Raises InputError if the config cannot be read or contains values of the wrong type.
    """
    if path.name == checkpoint.CONFIG:
        path = path.parent
    shipped = find_pretrained(path) is not None
    path, config = checkpoint.inspect(hub.local(path))
    place = path / checkpoint.CONFIG
    names = ("data", "encoder", "model", "training")
    if not all(isinstance(config.get(name), dict) for name in names):
        raise InputError(f"{place} does not describe a training run; choose another run")
    task, data = task_named(str(config.get("task"))), config["data"]
    others = (config["encoder"], config["model"], config["training"], config.get(task.name) or {})
    stored = {name: value for section in others for name, value in section.items()}
    stored["start_from"] = config.get("start_from")
    if shipped:
        stored["encoder_weights"] = CAPTIONER  # the file from which they were read is elsewhere
    values: dict[str, Any] = {}
    try:
        stored["teachers"] = [teacher["path"] for teacher in config.get("teachers") or ()]
        stored |= _data_options(data, starts=stored["start_from"] is not None)
        for group in option_groups(task).values():
            known = set(option_names(group)) & stored.keys()
            values |= convert_values(group, {name: stored[name] for name in known})
    except (InputError, KeyError, TypeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise InputError(
            f"the options in {place} cannot be used: {reason}; choose another run"
        ) from error
    return task, values


def inherited_options(path: Path, task: Task) -> dict[str, Any]:
    """Return, by name, the options that must be those of the run that training starts from.

    They are the encoder, the image size and the options in the task's `architecture`. Returns {} if
    the run cannot be read or has another task, which training reports when it loads the run.
    """
    try:
        config = checkpoint.read_config(checkpoint.find(hub.local(path)))
        if config["task"] != task.name:
            return {}
        inherited = {name: config["model"][name] for name in task.architecture}
        encoder = config["encoder"]["encoder"]
        return {"encoder": encoder, "image_size": config["transform"]["size"], **inherited}
    except (InputError, OSError, ValueError, KeyError, TypeError):
        return {}


def inherited_image_size(weights: Path) -> dict[str, Any]:
    """Return the image size of the run whose encoder weights are used, as an option by name.

    weights: value of --encoder-weights. Returns {} if it is not a run that can be read.
    """
    try:
        config = checkpoint.read_config(checkpoint.find(weights))
        return {"image_size": config["transform"]["size"]}
    except (InputError, OSError, ValueError, KeyError, TypeError):
        return {}


def read_stored_task(path: Path) -> str | None:
    """Return the name of a run's task; None if the run cannot be read.

    path: as in `read_stored_options`.
    """
    path = path.parent if path.name == checkpoint.CONFIG else path
    try:
        config = checkpoint.read_config(checkpoint.find(hub.local(path)))
        return str(config["task"])
    except (InputError, OSError, ValueError, KeyError, TypeError):
        return None


def _data_options(data: dict[str, Any], *, starts: bool) -> dict[str, Any]:
    """Return a run's data options, except those that have no effect.

    data: the data section of its config. starts: whether it started from another checkpoint.
    """
    options = {} if starts or "min_count" not in data else {"min_count": data["min_count"]}
    options |= {"tokenizer": data["tokenizer"]} if "tokenizer" in data and not starts else {}
    if data["path"] is not None:  # else the demo data
        options |= {"data": data["path"], "format": data["format"]}
        options["on_error"] = data.get("on_error", "stop")
        if options["on_error"] == "skip" and "max_skipped" in data:
            options["max_skipped"] = data["max_skipped"]
    return options
