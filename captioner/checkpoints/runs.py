"""A run: where it lies, what data it is of, how it describes itself, and whether it may go on.

Nothing here trains; what a checkpoint's files look like is checkpoint.py's.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..atomic_io import atomic_write, lock_file
from ..data.formats.reading import Problem
from ..errors import InputError
from . import checkpoint

if TYPE_CHECKING:
    pass

CHECKPOINTS = Path("checkpoints")
SKIPPED = "skipped.jsonl"
# May be others when a run is continued; what was read is told by the fingerprint.
RESUME_MAY_CHANGE = ("data.path", "data.name", "data.on_error", "training.patience")
ARCHITECTURE_KEYS = (  # the options that decide which weights a model has
    "encoder.encoder",
    "model.attention",
    "model.embedding_size",
    "model.hidden_size",
    "model.annotation_size",
    "model.attention_size",
)


def run_directory(name: str) -> Path:
    """The directory of the run called `name`, a plain name of a directory in CHECKPOINTS."""
    if not name or Path(name).name != name or name.startswith("."):
        raise InputError(f"a run's name must be a plain name without a path, got {name!r}")
    return CHECKPOINTS / name


def evaluation_directory(checkpoint: Path, split: str) -> Path:
    """evaluation-SPLIT in the directory of the run that the checkpoint is of."""
    return run_of(checkpoint) / f"evaluation-{split}"


def run_of(checkpoint: Path) -> Path:
    """The directory of the run that a checkpoint is of; a lone checkpoint's is its own."""
    place = checkpoint.resolve()
    return place.parent if place.name in ("best", "last", ".best.old", ".last.old") else place


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of a run's log.jsonl, none where there is none; a row that was cut is left out."""
    rows = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:  # a run that goes on may be writing it
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


@contextmanager
def lock_run(run: Path) -> Iterator[None]:
    """Make the directory of a run and keep other trainings out of it for as long as this one lasts.

    A directory in which nothing was saved, but what was skipped, is removed in the end.
    """
    from .. import distributed

    if not distributed.is_first():
        yield
        return
    run.mkdir(parents=True, exist_ok=True)
    with (run / ".lock").open("w") as lock:
        if not lock_file(lock):
            raise InputError(
                f"{run} is being trained by another process; --run NAME starts another run"
            )
        try:
            yield
        finally:
            (run / ".lock").unlink()
            if {path.name for path in run.iterdir()} <= {SKIPPED}:
                shutil.rmtree(run)


def write_skipped(run: Path, problems: Sequence[Problem]) -> Path:
    """Write what was left out of the data into the run's directory: where, what, what to do."""
    rows = [
        {
            "file": str(problem.location.file),
            problem.location.part: problem.location.number or None,
            "what": problem.message,
            "advice": problem.advice,
        }
        for problem in problems
    ]
    atomic_write(run / SKIPPED, "".join(json.dumps(row) + "\n" for row in rows))
    return run / SKIPPED


def open_run(run: Path, resume: bool, config: dict[str, Any]) -> checkpoint.Checkpoint | None:
    """The checkpoint to continue from; refuses to overwrite a run, or to continue another one."""
    if not resume:
        there = [path.name for path in run.glob("[!.]*")]
        if there or run.is_file():
            way_on = "--resume continues it, " if "last" in there else ""
            raise InputError(
                f"{run} holds a run already; {way_on}--run NAME starts another beside it, "
                "or delete it"
            )
        return None
    resumed = checkpoint.load(run / "last")
    was, now = _flatten(resumed.config), _flatten(config)
    changed = [
        "the captions have changed"
        if key == "data.fingerprint"
        else f"{key} was {was.get(key)} and is {value}"
        for key, value in now.items()
        if was.get(key) != value and key not in RESUME_MAY_CHANGE
    ]
    if changed:
        raise InputError(f"{run} cannot be continued with other options: {'; '.join(changed)}")
    return resumed


def open_source(path: Path, config: dict[str, Any]) -> checkpoint.Checkpoint:
    """The checkpoint at `path`, or the run's best, to start from; refuses one of other sizes."""
    source = checkpoint.load(path)
    there, here = _flatten(source.config), _flatten(config)
    differ = [
        f"{name} is {there.get(name)} there and {here[name]} here"
        for name in ARCHITECTURE_KEYS
        if there.get(name) != here[name]
    ]
    if differ:
        raise InputError(f"{path} cannot be started from: {'; '.join(differ)}")
    return source


def _flatten(config: dict[str, Any]) -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        inner = value.items() if isinstance(value, dict) else [("", value)]
        flat |= {f"{key}.{name}".rstrip("."): item for name, item in inner}
    return flat
