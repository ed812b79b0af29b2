"""The training log: its epoch line, log.jsonl, curves and printed samples."""

import json
import signal

import pytest
from PIL import Image

from captioner.checkpoints import checkpoint
from captioner.errors import Interrupted
from captioner.plots.curves import draw_curves
from captioner.training.logging import TrainingLog, format_epoch
from tests.support.interrupting import interrupt_at

ROW = {
    "epoch": 2,
    "step": 9,
    "loss": 1.5,
    "BLEU-4": 20.0,
    "words_per_second": 1234.5,
    "waiting_share": 0.25,
    "memory_mb": 1250.0,
}


def read_rows(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_epoch_line():
    assert format_epoch(ROW, 8, "BLEU-4", 1) == (
        "epoch 2/8: loss 1.500, validation BLEU-4 20.00, 1,234 words/s, "
        "25 % of the time waiting for data, memory 1.25 GB"
    )
    best = format_epoch({**ROW, "gpu_memory_mb": 3210.0}, 8, "BLEU-4", 2)
    assert "BLEU-4 20.00 (best so far), 1,234" in best
    assert best.endswith("memory 1.25 GB, GPU memory 3.21 GB")
    for watch, words in (("BLEU-4", "no 4 words in a row are"), ("BLEU-1", "no word of a caption")):
        line = format_epoch({**ROW, watch: 0.0012}, 8, watch, 2, negligible=0.02)
        assert f"{watch} 0.00 ({words}" in line
        assert "in the references yet; this is usual for the first epochs)" in line
        assert "best" not in line
    assert "CIDEr 0.00 (best so far)" in format_epoch({**ROW, "CIDEr": 0.0}, 8, "CIDEr", 2, 0.02)


def test_trackers_get_every_tenth_step(tmp_path):
    class Recorder:
        def __init__(self):
            self.steps = []

        def add_step(self, step, **values):
            self.steps.append((step, values))

    log = TrainingLog(tmp_path, [Recorder()])
    for step in range(1, 31):
        log.log_step(step, 1 / step, 0.1)
    assert [step for step, _ in log.trackers[0].steps] == [10, 20, 30]
    assert log.trackers[0].steps[0][1] == {"loss": 0.1, "learning_rate": 0.1}


def test_steps_need_no_tracker(tmp_path):
    TrainingLog(tmp_path).log_step(10, 1.0, 0.1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("curves", [False, True])
def test_curves_can_be_turned_off(tmp_path, capsys, curves):
    TrainingLog(tmp_path, curves=curves).log_epoch([ROW], 8, "BLEU-4", 2)
    assert (tmp_path / "curves.png").exists() == curves
    assert read_rows(tmp_path) == [ROW]
    assert "epoch 2/8" in capsys.readouterr().out


@pytest.mark.slow
def test_curves_of_a_resumed_run_show_all_epochs(train_run, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        interrupt_at(3, signal.SIGTERM, patch)  # the first of two steps in the second epoch
        with pytest.raises(Interrupted):
            train_run("run", "--curves")
    run = tmp_path / "checkpoints" / "run"
    of_one_epoch = (run / "curves.png").read_bytes()
    train_run("run", "--curves", "--resume")
    rows = read_rows(run)
    best_epoch = checkpoint.load(run).training_state()["progress"]["best_epoch"]
    expected = tmp_path / "expected" / "run" / "curves.png"  # the title has the directory's name
    expected.parent.mkdir(parents=True)
    draw_curves(expected, rows, "BLEU-4", best_epoch)
    assert len(rows) == 2
    assert (run / "curves.png").read_bytes() == expected.read_bytes()
    assert (run / "curves.png").read_bytes() != of_one_epoch
    with Image.open(run / "curves.png") as curves:
        assert curves.size[0] == 1200


@pytest.mark.parametrize("samples", [0, 2])
def test_samples_after_each_epoch(train_run, capsys, samples):
    run = train_run("run", "--samples", str(samples))
    out = capsys.readouterr().out
    sheets = sorted(path.name for path in run.glob("samples/*"))
    assert sheets == [f"epoch-0{epoch}.png" for epoch in (1, 2) if samples]
    assert out.count("\n  100.png: ") == out.count("\n  103.png: ") == (2 if samples else 0)
    assert ("captions after epoch 2:\n  100.png: " in out) == bool(samples)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "count"), [(["--attention"], 2), (["--attention", "--heatmaps", "0"], 0), ([], 0)]
)
def test_heatmaps_after_training(train_run, capsys, options, count):
    run = train_run("run", "--epochs", "1", "--heatmaps", "2", *options)
    assert len(list(run.glob("heatmaps/*.png"))) == count
    assert ("heatmaps: checkpoints/run/heatmaps" in capsys.readouterr().out) == bool(count)
