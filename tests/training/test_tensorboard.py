"""TensorBoard event files, read back by TensorBoard itself."""

import errno
import io
import json
import math
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captioner.errors import InputError, Interrupted
from captioner.training.tensorboard import TensorBoardWriter
from tests.support.interrupting import interrupt_at

EPOCH = 16  # steps with a batch size of 1


def read_events(directory):
    """Return the (step, value) or (step, image) pairs by tag, as TensorBoard reads them."""
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    ).EventAccumulator(str(directory))
    accumulator.Reload()
    tags = accumulator.Tags()
    events = {t: [(e.step, e.value) for e in accumulator.Scalars(t)] for t in tags["scalars"]}
    for tag in tags["images"]:
        events[tag] = [
            (e.step, np.asarray(Image.open(io.BytesIO(e.encoded_image_string))))
            for e in accumulator.Images(tag)
        ]
    return events


def test_a_full_disk_does_not_hide_why_training_ended(train_run, monkeypatch):
    pytest.importorskip("tensorboard")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(TensorBoardWriter, "close", full)
    interrupt_at(1, signal.SIGTERM, monkeypatch)
    with pytest.raises(Interrupted):
        train_run("run", "--tensorboard")


@pytest.mark.slow
def test_stopped_and_resumed_run(train_run, monkeypatch):
    pytest.importorskip("tensorboard")
    options = ["--attention", "--tensorboard", "--samples", "4", "--batch-size", "1"]
    with monkeypatch.context() as patch:
        interrupt_at(EPOCH + 2, signal.SIGTERM, patch)
        with pytest.raises(Interrupted):
            train_run("run", *options)
    run = train_run("run", *options, "--resume")
    rows = [json.loads(row) for row in (run / "log.jsonl").read_text().splitlines()]
    events = read_events(run / "tensorboard")
    assert [step for step, _ in events["step/loss"]] == [10, 20, 30]
    # Three steps of warm-up, then the cosine: the tenth step's rate.
    rate = 3e-3 * (1 + math.cos(math.pi * (9 - 3) / (2 * EPOCH - 3))) / 2
    assert events["step/learning_rate"][0][1] == pytest.approx(rate)
    for name in ("BLEU-4", "loss", "memory_mb", "learning_rate", "CIDEr", "distinct"):
        group = {"BLEU-4": "score", "CIDEr": "score", "distinct": "text", "memory_mb": "use"}
        steps, values = zip(*events[f"{group.get(name, 'epoch')}/{name}"], strict=True)
        assert steps == (EPOCH, 2 * EPOCH)
        assert values == pytest.approx([row[name] for row in rows], rel=1e-5)
    groups = {tag.partition("/")[0] for tag in events}
    assert groups == {"epoch", "score", "step", "text", "use", "samples"}
    assert "epoch/epoch" not in events
    for number, name in enumerate(["100.png", "101.png", "102.png", "103.png"], start=1):
        steps = [step for step, _ in events[f"samples/{number}-{name}"]]
        assert steps == [EPOCH, 2 * EPOCH]


@pytest.mark.slow
def test_run_first_logged_on_resuming_has_all_epochs(train_run, monkeypatch):
    pytest.importorskip("tensorboard")
    with monkeypatch.context() as patch:
        interrupt_at(EPOCH + 2, signal.SIGTERM, patch)
        with pytest.raises(Interrupted):
            train_run("run", "--batch-size", "1")
    assert not Path("checkpoints/run/tensorboard").exists()
    run = train_run("run", "--batch-size", "1", "--tensorboard", "--resume")
    events = read_events(run / "tensorboard")
    assert [step for step, _ in events["epoch/loss"]] == [EPOCH, 2 * EPOCH]
    assert [step for step, _ in events["step/loss"]] == [20, 30]


def test_events_that_a_killed_run_did_not_save_are_purged(tmp_path):
    pytest.importorskip("tensorboard")
    for first in (1, 4):
        history = [{"epoch": 9, "step": 0}] if first > 1 else []
        writer = TensorBoardWriter(tmp_path / "t", first - 1, history)
        for step in range(first, first + 5):
            writer.add_step(step, loss=float(first))
        writer.close()
    events = read_events(tmp_path / "t")
    assert events == {"step/loss": [(1, 1), (2, 1), (3, 1), *((s, 4) for s in range(4, 9))]}


def test_missing_extra(train_run, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    message = r"--logger tensorboard needs tensorboard; run pip .* 'captioner\[tensorboard\]'"
    with pytest.raises(InputError, match=message):
        train_run("run", "--tensorboard")
    assert not Path("checkpoints").exists()
