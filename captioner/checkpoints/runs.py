"""Directories of training runs: their names, locks and logs, and what a run starts from.

Training itself is implemented in `training`; `checkpoint` reads and writes checkpoint files.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..atomic_io import atomic_write, lock_file, sibling_path
from ..data.formats.reading import Problem
from ..errors import InputError
from . import checkpoint

CHECKPOINTS = Path("checkpoints")
SKIPPED = "skipped.jsonl"
RESUME = ("no", "last", "auto")  # values of --resume
# Options that may differ when a run is resumed. The data may have moved: its fingerprint is
# compared instead of its path.
RESUME_MAY_CHANGE = (
    "data.path",
    "data.name",
    "data.on_error",
    "data.max_skipped",
    "training.patience",
)

# Messages if these values differ; the values themselves would mean nothing to a reader.
CHANGED = {
    "data.fingerprint": "image ids, splits or captions have changed",
    "data.image_sizes": "image files have changed",
}


def run_directory(name: str) -> Path:
    """Return the directory of a run in CHECKPOINTS; raise InputError for an invalid name."""
    if not name or Path(name).name != name or name.startswith("."):
        raise InputError(
            "the name of a run must not be empty, contain a path separator or start with a dot, "
            f"got {name!r}; pass --run with another name"
        )
    return CHECKPOINTS / name


def evaluation_directory(checkpoint: Path, split: str) -> Path:
    """Return the directory evaluation-SPLIT in a checkpoint's run."""
    return run_of(checkpoint) / f"evaluation-{split}"


def run_of(checkpoint: Path) -> Path:
    """Return the directory of a checkpoint's run, or its own directory if it is not in a run."""
    directory = checkpoint.resolve()
    in_run = directory.name in ("best", "last", ".best.old", ".last.old")
    return directory.parent if in_run else directory


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read the complete rows of a run's log.jsonl; return an empty list if it cannot be read."""
    rows = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:  # a run in progress may be writing this row
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


@contextmanager
def lock_run(run: Path) -> Iterator[None]:
    """Create the directory of a run and lock it against training by other processes.

    On exit, the directory is removed if nothing was saved in it except the list of skipped rows and
    images. Under torchrun, only the first process does this. Raises InputError if the run is
    already locked.
    """
    from .. import distributed

    if not distributed.is_first():
        yield
        return
    run.mkdir(parents=True, exist_ok=True)
    with (run / ".lock").open("w") as lock:
        if not lock_file(lock):
            raise InputError(
                f"{run} is being trained by another process; pass --run NAME to start another run"
            )
        try:
            yield
        finally:
            # An error here, for example in a directory that became read-only, would mask the one
            # that ended the training. A leftover lock file is harmless.
            with suppress(OSError):
                _clean_up(run)


def _clean_up(run: Path) -> None:
    (run / ".lock").unlink()
    if {path.name for path in run.iterdir()} <= {SKIPPED}:
        shutil.rmtree(run)


def write_skipped(run: Path, problems: Sequence[Problem]) -> Path:
    """Write the problems in the data, with their locations and advice, to a file in the run.

    Returns the path of the file.
    """
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


def open_run(run: Path, resume: str, config: dict[str, Any]) -> checkpoint.Checkpoint | None:
    """Return the checkpoint to resume from, or None for a new run.

    resume: "no" starts a run, "last" resumes one, and "auto" resumes a run that has a checkpoint
    and starts any other. Raises InputError if `run` is a file, if a new run would overwrite
    another, if there is no usable checkpoint to resume from, or if `config` differs from the
    resumed run's config in data or in options other than RESUME_MAY_CHANGE.
    """
    if run.is_file():
        raise InputError(f"{run} is a file, not a run; delete it, or pass --run NAME")
    if resume == "no":
        names = [path.name for path in run.glob("[!.]*")]
        if names:
            alternative = "pass --resume to continue it, " if "last" in names else ""
            raise InputError(
                f"{run} already contains a run; {alternative}pass --run NAME to start another, or "
                "delete it"
            )
        return None
    resumed = _newest(run)
    if resumed is None:
        if resume == "auto":
            return None
        raise InputError(
            f"{run} cannot be resumed: it has no checkpoint; pass --run NAME to resume another "
            "run, or --resume auto to start this one"
        )
    before, now = _flatten(resumed.config), _flatten(config)
    changes = [
        CHANGED[key] if key in CHANGED else f"{key} was {before.get(key)} but is now {value}"
        for key, value in now.items()
        if before.get(key) != value
        and key not in RESUME_MAY_CHANGE
        and (key in before or key not in CHANGED)  # written by older versions
    ]
    if changes:
        raise InputError(
            f"{run} cannot be resumed with different options or data: {'; '.join(changes)}; "
            "restore them, or pass --run NAME to start another run"
        )
    return resumed


def _newest(run: Path) -> checkpoint.Checkpoint | None:
    """Load the newest checkpoint that a run can be resumed from, and print which were skipped.

    Returns None if the run has no checkpoint; raises InputError if none of them is usable.
    """
    from .. import distributed

    saved = [
        path for name in ("last", "best") for path in (run / name, sibling_path(run / name, "old"))
    ]
    problems = []
    for path in saved:
        if not path.exists():
            continue
        try:
            found = checkpoint.load(path)
            found.check_resumable()
        except InputError as error:
            problems.append(str(error))
        else:
            for problem in problems:
                distributed.say(f"skipped: {problem}")
            if problems:
                distributed.say(f"resuming from {found.path}")
            return found
    if problems:
        raise InputError(f"{run} cannot be resumed: {'; '.join(problems)}")
    return None


def open_source(
    path: Path, config: dict[str, Any], architecture: Sequence[str]
) -> checkpoint.Checkpoint:
    """Load the checkpoint at `path`, as `load` does, to start a new run from its weights.

    architecture: names of the model options that determine the names and shapes of the weights.
    Raises InputError if the checkpoint differs from `config` in these options, in the task or in
    the encoder.
    """
    source = checkpoint.load(path)
    theirs, ours = _flatten(source.config), _flatten(config)
    if source.task != ours["task"]:
        raise InputError(
            f"training cannot start from {path}: it is a {source.task!r} model, and this run is "
            f"{ours['task']!r}; choose another checkpoint or another --system"
        )
    differences = [
        f"{name} is {theirs.get(name)} in the checkpoint but {ours.get(name)} in this run"
        for name in ("encoder.encoder", *(f"model.{name}" for name in architecture))
        if theirs.get(name) != ours.get(name)
    ]
    if differences:
        raise InputError(
            f"training cannot start from {path}: {'; '.join(differences)}; choose the same options "
            "or another checkpoint"
        )
    return source


def _flatten(config: dict[str, Any]) -> dict[str, Any]:
    """Flatten one level of nesting: {"a": {"b": 1}, "c": 2} becomes {"a.b": 1, "c": 2}."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        inner = value.items() if isinstance(value, dict) else [("", value)]
        flat |= {f"{key}.{name}".rstrip("."): item for name, item in inner}
    return flat
