"""Trackers of experiments: TensorBoard, Weights & Biases and MLflow, behind one interface.

Each is an extra, imported only if `--logger` selects it. Weights & Biases and MLflow are configured
by their own environment variables. Nothing leaves the machine unless WANDB_MODE or
MLFLOW_TRACKING_URI is set: without them, both write to the run's directory.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from ..errors import InputError
from .tensorboard import TensorBoardWriter, check_tensorboard

TENSORBOARD, WANDB, MLFLOW = TRACKERS = ("tensorboard", "wandb", "mlflow")
PROJECT = "captioner"  # the default project or experiment
WANDB_ID, MLFLOW_ID = "wandb.id", "mlflow.id"  # files with the id that a resumed run continues


class Tracker(Protocol):
    """A destination of values of steps and epochs, and of images."""

    def add_step(self, step: int, **values: float) -> None: ...

    def add_epoch(self, row: Mapping[str, Any]) -> None: ...

    def add_image(self, name: str, image: Image.Image, step: int) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class TrackedRun:
    """The run to track.

    directory: the run's directory, whose name is that of the run. config: the config of its
    checkpoints, nested. step: the number of steps already taken. history: the rows of all finished
    epochs, which are logged if the tracker is new to the run.
    """

    directory: Path
    config: Mapping[str, Any]
    step: int = 0
    history: Sequence[Mapping[str, Any]] = ()


class WandbTracker:
    """Logs to Weights & Biases; without WANDB_MODE, to files in the run's directory."""

    def __init__(self, run: TrackedRun) -> None:
        wandb = _import("wandb", WANDB)
        stored = run.directory / WANDB_ID
        try:
            self._wandb = wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                name=run.directory.name,
                id=_read_id(stored),
                resume="allow",
                dir=str(run.directory),
                mode=os.environ.get("WANDB_MODE", "offline"),
                config=dict(run.config),
                settings=wandb.Settings(silent=True),
            )
        except Exception as error:  # its errors have no common base besides Exception
            online = "check the connection and the login, or unset WANDB_MODE"
            advice = online if os.environ.get("WANDB_MODE", "offline") != "offline" else None
            raise _failed("Weights & Biases", error, run, advice) from error
        self._image = wandb.Image
        is_new = not stored.exists()
        stored.write_text(self._wandb.id)
        for row in run.history if is_new else ():
            self.add_epoch(row)

    def add_step(self, step: int, **values: float) -> None:
        """Log named values of one step."""
        self._wandb.log({f"step/{name}": value for name, value in values.items()}, step=step)

    def add_epoch(self, row: Mapping[str, Any]) -> None:
        """Log all values of an epoch at its last step."""
        self._wandb.log({k: v for k, v in row.items() if k != "step"}, step=row["step"])

    def add_image(self, name: str, image: Image.Image, step: int) -> None:
        """Log an RGB image."""
        self._wandb.log({name: self._image(image)}, step=step)

    def close(self) -> None:
        self._wandb.finish()


class MlflowTracker:
    """Logs to MLflow; without MLFLOW_TRACKING_URI, to `mlruns` in the run's directory."""

    def __init__(self, run: TrackedRun) -> None:
        _import("mlflow", MLFLOW)
        from mlflow.tracking import MlflowClient

        uri = os.environ.get("MLFLOW_TRACKING_URI")
        is_set = uri is not None
        if uri is None:
            uri = (run.directory / "mlruns").resolve().as_uri()
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow 3.17 asks for it
        name, stored = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT), run.directory / MLFLOW_ID
        try:
            self._client = MlflowClient(uri)
            found = self._client.get_experiment_by_name(name)
            experiment = found.experiment_id if found else self._client.create_experiment(name)
            self._id = _read_id(stored)
            is_new = self._id is None
            if self._id is None:
                created = self._client.create_run(experiment, run_name=run.directory.name)
                self._id = created.info.run_id
                stored.write_text(self._id)
                for key, value in _flatten(run.config).items():
                    self._client.log_param(self._id, key, str(value)[:500])
            else:
                self._client.update_run(self._id, "RUNNING")
        except Exception as error:
            advice = "check MLFLOW_TRACKING_URI and the connection" if is_set else None
            raise _failed("MLflow", error, run, advice) from error
        for row in run.history if is_new else ():
            self.add_epoch(row)

    def add_step(self, step: int, **values: float) -> None:
        """Log named values of one step."""
        for name, value in values.items():
            self._client.log_metric(self._id, f"step/{name}", value, step=step)

    def add_epoch(self, row: Mapping[str, Any]) -> None:
        """Log all values of an epoch at its last step."""
        for name, value in row.items():
            if name != "step":
                self._client.log_metric(self._id, name, value, step=row["step"])

    def add_image(self, name: str, image: Image.Image, step: int) -> None:
        """Log an RGB image as an artifact of the run."""
        self._client.log_image(self._id, image, f"{name}-{step:07}.png")

    def close(self) -> None:
        self._client.set_terminated(self._id)


def check_trackers(names: Sequence[str]) -> None:
    """Raise InputError if the extra of one of these trackers is not installed."""
    for name in names:
        if name == TENSORBOARD:
            check_tensorboard()
        else:
            _import(name, name)


@contextmanager
def open_trackers(names: Sequence[str], run: TrackedRun) -> Iterator[tuple[Tracker, ...]]:
    """Open trackers by name, and close them at the end.

    Raises InputError if one cannot be opened. If an exception ends the block, errors in closing do
    not hide it.
    """
    with ExitStack() as stack:
        yield tuple(stack.enter_context(_closing(_open(name, run))) for name in names)


def _open(name: str, run: TrackedRun) -> Tracker:
    if name == WANDB:
        return WandbTracker(run)
    if name == MLFLOW:
        return MlflowTracker(run)
    return TensorBoardWriter(run.directory / "tensorboard", run.step, run.history)


@contextmanager
def _closing(tracker: Tracker) -> Iterator[Tracker]:
    try:
        yield tracker
    except BaseException:
        with suppress(Exception):  # such as a full disk
            tracker.close()
        raise
    tracker.close()


def _import(module: str, extra: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise InputError(
            f"--logger {extra} needs {error.name or module}; run pip install 'captioner[{extra}]'"
        ) from error


def _failed(name: str, error: Exception, run: TrackedRun, advice: str | None) -> InputError:
    """Return the error of a tracker that cannot be opened; advice: None if it writes to the run."""
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    advice = advice or f"check that {run.directory} can be written"
    return InputError(f"{name} cannot be used: {reason}; {advice}")


def _read_id(path: Path) -> str | None:
    return path.read_text(encoding="utf-8").strip() if path.exists() else None


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
