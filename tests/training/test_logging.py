"""What one sees of a training while it goes on, and the commands that it ends with."""

import io
import json
import os
import shlex
import signal
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import evaluate
import train
from captioner import __main__
from captioner.data import batches
from captioner.errors import InputError, Interrupted
from captioner.plots.curves import draw_curves
from captioner.training import hints as next_commands
from captioner.training import logging as watching
from captioner.training import loop as training
from captioner.training.logging import TrainingLog, line
from captioner.training.tensorboard import Board
from tests.support import tiny

SHOW_SAMPLES = train.show_samples  # as it is; see conftest.py
ROW = {
    "epoch": 2,
    "step": 9,
    "loss": 1.5,
    "BLEU-4": 20.0,
    "words_per_second": 1234.5,
    "waiting_share": 0.25,
    "memory_mb": 1250.0,
}


def test_the_line_of_an_epoch():
    assert line(ROW, 8, "BLEU-4", 1) == (
        "epoch 2/8: loss 1.500, validation BLEU-4 20.00, 1,234 words/s, "
        "25 % of the time waiting for data, memory 1.25 GB"
    )
    best = line({**ROW, "gpu_memory_mb": 3210.0}, 8, "BLEU-4", 2)
    assert "BLEU-4 20.00 (best so far), 1,234" in best
    assert best.endswith("memory 1.25 GB and 3.21 GB of the GPU")


def test_tensorboard_gets_every_tenth_step(tmp_path):
    class Noted:
        def __init__(self):
            self.steps = []

        def step(self, step, **numbers):
            self.steps.append((step, numbers))

    log = TrainingLog(tmp_path, Noted())
    for step in range(1, 31):
        log.step(step, 1 / step, 0.1)
    assert [step for step, _ in log.board.steps] == [10, 20, 30]
    assert log.board.steps[0][1] == {"loss": 0.1, "learning_rate": 0.1}
    TrainingLog(tmp_path).step(10, 1.0, 0.1)


def events(directory):
    """What TensorBoard reads: by tag, (step, value) or (step, image)."""
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    ).EventAccumulator(str(directory))
    accumulator.Reload()
    tags = accumulator.Tags()
    found = {t: [(e.step, e.value) for e in accumulator.Scalars(t)] for t in tags["scalars"]}
    for tag in tags["images"]:
        found[tag] = [
            (e.step, np.asarray(Image.open(io.BytesIO(e.encoded_image_string))))
            for e in accumulator.Images(tag)
        ]
    return found


@pytest.fixture
def work(tmp_path, tmp_path_factory, monkeypatch):
    """An empty working directory, all drawn; returns how to train there."""
    colours = str(tiny.data(tmp_path_factory))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "show_samples", SHOW_SAMPLES)
    monkeypatch.setattr(watching, "draw_curves", draw_curves)
    monkeypatch.setattr(watching, "STEPS", 1)

    def call(*options):
        argv = ["--data", colours, "--run", "run", *tiny.OPTIONS, "--batch-size", "5", *options]
        monkeypatch.setattr(sys, "argv", ["train.py", *argv])
        train.main()
        return Path("checkpoints/run")

    return call


def stop_at(step, patch):
    load, count = batches.Source.batch, [0]

    def loaded(self, *args):
        count[0] += 1
        if count[0] == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return load(self, *args)

    patch.setattr(batches.Source, "batch", loaded)


def test_a_run_to_watch_stopped_and_resumed(work, monkeypatch, capsys):
    pytest.importorskip("tensorboard")
    with monkeypatch.context() as patch:
        stop_at(6, patch)  # the second step of four of the second epoch
        with pytest.raises(Interrupted):
            work("--attention", "--tensorboard")
    run = work("--attention", "--tensorboard", "--resume")
    rows = [json.loads(row) for row in (run / "log.jsonl").read_text().splitlines()]
    found = events(run / "tensorboard")
    assert [step for step, _ in found["step/loss"]] == list(range(1, 9))
    assert found["step/learning_rate"][0][1] == pytest.approx(3e-3)  # risen in the first step
    for name in ("BLEU-4", "loss", "memory_mb", "learning_rate", "CIDEr", "distinct"):
        group = {"BLEU-4": "score", "CIDEr": "score", "distinct": "text", "memory_mb": "use"}
        steps, values = zip(*found[f"{group.get(name, 'epoch')}/{name}"], strict=True)
        assert steps == (4, 8)
        assert values == pytest.approx([row[name] for row in rows], rel=1e-5)
    assert {tag.partition("/")[0] for tag in found} == {
        *("epoch", "score", "step", "text", "use", "samples")
    }
    assert "epoch/epoch" not in found
    names = [f"{100 + number}.png" for number in range(4)]
    for number, name in enumerate(names, start=1):
        assert [step for step, _ in found[f"samples/{number}-{name}"]] == [4, 8]
    assert [(run / "samples" / f"epoch-0{n}.png").exists() for n in (1, 2)] == [True, True]
    with Image.open(run / "curves.png") as curves:
        assert curves.size[0] == 1200
    said = capsys.readouterr().out
    assert said.count("\n  100.png: ") == 2 and "epoch 2 writes\n  100.png: " in said


def test_a_run_that_was_not_watched_from_the_start_is_there_as_a_whole(work, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    with monkeypatch.context() as patch:
        stop_at(6, patch)
        with pytest.raises(Interrupted):
            work()
    assert not Path("checkpoints/run/tensorboard").exists()
    found = events(work("--tensorboard", "--resume") / "tensorboard")
    assert [step for step, _ in found["epoch/loss"]] == [4, 8]
    assert [step for step, _ in found["step/loss"]] == [7, 8]


def test_what_a_killed_run_had_not_saved_is_forgotten(tmp_path):
    pytest.importorskip("tensorboard")
    for first in (1, 4):
        board = Board(tmp_path / "t", first - 1, [{"epoch": 9, "step": 0}] * (first > 1))
        for step in range(first, first + 5):
            board.step(step, loss=float(first))
        board.close()
    found = events(tmp_path / "t")
    assert found == {"step/loss": [(1, 1), (2, 1), (3, 1), *((s, 4) for s in range(4, 9))]}


def test_without_tensorboard(work, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    message = r"--tensorboard needs tensorboard; pip install 'captioner\[tensorboard\]' brings it"
    with pytest.raises(InputError, match=message):
        work("--tensorboard")
    assert not Path("checkpoints").exists()


# ---- the commands at the end --------------------------------------------------------------------


@pytest.mark.parametrize("kind", [[], ["--attention"]])
def test_the_commands_at_the_end_work(work, monkeypatch, capsys, kind):
    monkeypatch.setattr(watching, "draw_curves", lambda *arguments: None)
    monkeypatch.setattr(train, "show_samples", lambda *arguments: None)
    work(*kind, "--epochs", "1")
    said = capsys.readouterr().out.partition("next:\n")[2].splitlines()
    scored, captioned, served, why, longer = (shlex.split(each) for each in said)
    assert scored[:2] == ["python", "evaluate.py"] and "--split test" in said[0]
    evaluate.main([*scored[2:], "--workers", "0"])
    assert "test split, 3 images" in capsys.readouterr().out
    for each in (captioned, served):
        assert each[:3] == ["python", "-m", "captioner"]
    __main__.main(captioned[3:])
    assert capsys.readouterr().out.startswith(f"{captioned[4]}\t")
    assert Path("checkpoints/run/maps").exists() == bool(kind)
    assert __main__.parser().parse_args(served[3:]).checkpoint == [Path("checkpoints/run")]
    assert " ".join(why) == "the last epoch was the best, so more of them may be better still:"
    assert longer[:2] == ["python", "train.py"]
    train.main(longer[2:])
    assert len(Path("checkpoints/run-2-epochs/log.jsonl").read_text().splitlines()) == 2


def test_a_best_epoch_before_the_last_asks_for_no_more(work, monkeypatch, capsys):
    monkeypatch.setattr(train, "show_samples", lambda *arguments: None)

    def fit(*arguments, **more):
        return replace(training.fit(*arguments, **more), best_epoch=1)

    monkeypatch.setattr(train, "fit", fit)
    work()
    said = capsys.readouterr().out
    assert "best epoch: 1;" in said and "more of them" not in said and "\nnext:\n" in said


def test_the_command_for_a_longer_training(monkeypatch):
    run = Path("checkpoints/my run")
    argv = ["--run", "my run", "--epochs=3", "--resume", "--data", "my data", "--epo", "3", "--res"]
    monkeypatch.setattr(sys, "argv", ["../here/train.py"])
    kept = "../here/train.py --data 'my data' --epo 3"
    changed = "--epochs 6 --run 'my run-6-epochs'"
    assert next_commands.longer(argv, run, 6) == f"python {kept} {changed}"
    several = next_commands.longer(argv, run, 6, processes=2)
    assert several == f"torchrun --nproc-per-node 2 -- {kept} {changed}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.distributed.run import get_args_parser
    read = get_args_parser().parse_args(shlex.split(several)[1:])
    assert read.training_script == "../here/train.py"
    assert read.training_script_args[-2:] == ["--run", "my run-6-epochs"]


def test_what_serving_lacks_is_said(monkeypatch):
    monkeypatch.setattr(next_commands, "find_spec", lambda name: None)
    *_, served = next_commands.next_commands(Path("r"), "val", Path("p"), 3, False)
    assert served == "pip install 'captioner[serve]' && python -m captioner serve r"


def test_resumed_curves_are_of_all_epochs(work, monkeypatch):
    drawn = []
    monkeypatch.setattr(watching, "draw_curves", lambda *arguments: drawn.append(arguments))
    monkeypatch.setattr(train, "show_samples", lambda *arguments: None)
    with monkeypatch.context() as patch:
        stop_at(6, patch)
        with pytest.raises(Interrupted):
            work()
    work("--resume")
    assert [len(rows) for _, rows, *_ in drawn] == [1, 2]
    assert {path.name for path, *_ in drawn} == {"curves.png"}
