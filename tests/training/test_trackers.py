"""Weights & Biases and MLflow without a network: what they store of a run, and of a resumed one."""

import json
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from captioner.errors import InputError, Interrupted
from captioner.tasks.options import RunOptions
from captioner.training import trackers
from captioner.training.trackers import TrackedRun, open_trackers
from tests.support.interrupting import interrupt_at

OPTIONS = ["--batch-size", "1", "--samples", "1"]
EPOCH = 16  # steps with a batch size of 1


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("WANDB_MODE", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")


def rows(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the libraries' own
def test_mlflow_stores_a_stopped_and_resumed_run_as_one(train_run, monkeypatch):
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    with monkeypatch.context() as patch:
        interrupt_at(EPOCH + 2, signal.SIGTERM, patch)
        with pytest.raises(Interrupted):
            train_run("run", "--logger", "mlflow", *OPTIONS)
    run = train_run("run", "--logger", "mlflow", *OPTIONS, "--resume")
    client = MlflowClient((run / "mlruns").resolve().as_uri())
    experiment = client.get_experiment_by_name("captioner")
    (stored,) = client.search_runs([experiment.experiment_id])
    assert stored.info.run_name == "run"
    assert stored.info.status == "FINISHED"
    assert stored.data.params["training.batch_size"] == "1"
    history = client.get_metric_history(stored.info.run_id, "BLEU-4")
    assert [each.step for each in history] == [EPOCH, 2 * EPOCH]
    assert [each.value for each in history] == pytest.approx([row["BLEU-4"] for row in rows(run)])
    steps = client.get_metric_history(stored.info.run_id, "step/loss")
    assert [each.step for each in steps] == [10, 20, 30]
    assert len(client.list_artifacts(stored.info.run_id, "samples")) == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_wandb_writes_offline_files_into_the_run(train_run):
    pytest.importorskip("wandb")
    run = train_run("run", "--logger", "wandb", *OPTIONS)
    (directory,) = (run / "wandb").glob("offline-run-*")
    (file,) = directory.glob("*.wandb")
    assert file.stem == f"run-{(run / 'wandb.id').read_text()}"
    content = file.read_bytes()
    for name in (b"step/loss", b"BLEU-4", b"learning_rate", b"batch_size"):
        assert name in content


class Recorder:
    def __init__(self, log):
        self.log = log

    def close(self):
        self.log.append("closed")
        raise OSError("full")


def test_an_error_in_closing_hides_no_other_error(monkeypatch):
    log = []
    monkeypatch.setattr(trackers, "_open", lambda *_: Recorder(log))
    run = TrackedRun(Path("run"), {})
    with pytest.raises(ZeroDivisionError), open_trackers(["wandb"], run):
        raise ZeroDivisionError
    with pytest.raises(OSError, match="full"), open_trackers(["wandb"], run) as opened:
        assert len(opened) == 1
    assert log == ["closed"] * 2


@pytest.mark.parametrize(
    ("mode", "advice"),
    [
        (None, "check that run can be written"),
        ("online", "check the connection and the login, or unset WANDB_MODE"),
    ],
)
def test_an_error_in_opening_says_what_to_check(monkeypatch, mode, advice):
    def fail(**_):
        raise OSError("no space")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=fail, Settings=dict))
    if mode:
        monkeypatch.setenv("WANDB_MODE", mode)
    expected = f"^Weights & Biases cannot be used: no space; {advice}$"
    with (
        pytest.raises(InputError, match=expected),
        open_trackers(["wandb"], TrackedRun(Path("run"), {})),
    ):
        pass


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_extra_shows_before_training(train_run, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=rf"--logger {name} needs {name}; run pip .*\[{name}\]"):
        train_run("run", "--logger", name)
    assert not Path("checkpoints").exists()


def test_tensorboard_has_two_flags():
    assert RunOptions(tensorboard=True, logger=("wandb", "tensorboard")).trackers == (
        "wandb",
        "tensorboard",
    )
    assert RunOptions(tensorboard=True).trackers == ("tensorboard",)
    with pytest.raises(InputError, match="logger must be one of tensorboard, wandb, mlflow"):
        RunOptions(logger=("comet",))
