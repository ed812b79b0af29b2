"""Runs: their directories and locks, skipped rows, contradictory flags, starting from weights."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

import evaluate
import train
from captioner.checkpoints import checkpoint
from captioner.checkpoints.checkpoint import Checkpoint
from captioner.checkpoints.runs import CHECKPOINTS, SKIPPED, lock_run, run_directory
from captioner.errors import InputError
from captioner.text.vocabulary import Vocabulary
from captioner.training import config as recipe
from captioner.training.setup import load_checkpoint_weights
from tests.support import tiny


@pytest.mark.parametrize("name", ["", ".", "..", ".cache", "../x", "a/b", "/abs"])
def test_a_run_stays_in_the_directory_of_runs(name):
    with pytest.raises(InputError, match="a run's name must be a plain name without a path"):
        run_directory(name)
    assert run_directory("mine") == CHECKPOINTS / "mine"


def test_only_one_process_trains_in_a_run(tmp_path):
    run = tmp_path / "run"
    with lock_run(run), pytest.raises(InputError, match="is being trained by another process"):  # noqa: SIM117
        with lock_run(run):
            pass
    assert not run.exists()  # because nothing was saved
    with lock_run(run):
        (run / "log.jsonl").touch()
    assert [path.name for path in run.iterdir()] == ["log.jsonl"]


def test_a_run_with_nothing_but_skipped_rows_is_removed(tmp_path):
    with lock_run(tmp_path / "run"):
        (tmp_path / "run" / SKIPPED).touch()
    assert not (tmp_path / "run").exists()


def _fail_after(function, *arguments):
    function(*arguments)
    raise InputError("the true error")


def test_clean_up_does_not_hide_the_error_of_a_training(tmp_path):
    run = tmp_path / "run"
    with pytest.raises(InputError, match="the true error"), lock_run(run):
        _fail_after(shutil.rmtree, run)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to read-only directories")
def test_a_directory_that_became_read_only_does_not_hide_the_error(tmp_path):
    run = tmp_path / "run"
    try:
        with pytest.raises(InputError, match="the true error"), lock_run(run):
            _fail_after(run.chmod, 0o555)
    finally:
        run.chmod(0o755)


def test_a_failing_removal_does_not_hide_the_error(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", fail)
    with pytest.raises(InputError, match="the true error"), lock_run(tmp_path / "run"):
        raise InputError("the true error")
    with lock_run(tmp_path / "run"):  # nor does it end a training that succeeded
        pass


@pytest.mark.slow
def test_skipped_rows_are_listed_in_the_run(tmp_path, monkeypatch, capsys):
    """Evaluating the run skips them as well."""
    root = tiny.write_colours(tmp_path / "colours")
    (root / "train" / "5.png").unlink()
    (root / "val" / "103.png").unlink()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "draw_heatmaps", lambda *_: None)
    train.main(["--data", str(root), "--on-error", "skip", "--run", "mine", *tiny.OPTIONS])
    output = capsys.readouterr().out
    counts = "train 15 images, 30 captions; val 6 images, 12 captions; test 3 images, 6 capt"
    assert counts in output
    assert "; 2 problems skipped" in output
    file = CHECKPOINTS / "mine" / "skipped.jsonl"
    assert f"skipped: {file}\n" in output
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    place = str(root / "annotations" / "captions_train.json")
    what = f"the image {root / 'train' / '5.png'} is missing"
    advice = "add the file, or remove the row that names it"
    assert rows[0] == {"file": place, "image": 6, "what": what, "advice": advice}
    assert len(rows) == 2
    evaluate.main(["--checkpoint", str(CHECKPOINTS / "mine"), "--workers", "0"])
    assert "val split, 6 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--attention-size", "256"], "--attention-size needs --attention"),
        (["--coverage-weight", "0.01"], "--coverage-weight needs --attention"),
        (["--hard-attention"], "--hard-attention needs --attention"),
        (["--format", "coco"], "--format needs --data"),
        (["--on-error", "skip"], "--on-error needs --data"),
        (
            ["--encoder", "resnet18", "--encoder-learning-rate", "0.1"],
            "--encoder-learning-rate needs a trained encoder: --fine-tune-encoder",
        ),
        (
            ["--start-from", "x", "--encoder-learning-rate", "0.1"],
            "--encoder-learning-rate needs a trained encoder: --fine-tune-encoder",
        ),
        (["--self-critical"], "--self-critical needs a model that can caption: --start-from"),
        (
            ["--start-from", "x", "--cross-entropy-share", "0.3"],
            "--cross-entropy-share needs --self-critical",
        ),
        (
            ["--start-from", "x", "--self-critical", "--scheduled-sampling", "0.2"],
            "--scheduled-sampling needs true words alone: --self-critical trains on sampled ones",
        ),
        (
            ["--start-from", "x", "--self-critical", "--teachers", "y"],
            "--teachers needs captions of people: --self-critical trains on sampled ones",
        ),
        (["--start-from", "x", "--min-count", "2"], "--min-count needs a new vocabulary"),
        (
            ["--start-from", "x", "--encoder-weights", "y"],
            "--start-from brings the encoder's weights, too; drop --encoder-weights",
        ),
    ],
)
def test_flags_without_effect_are_rejected(options, message):
    with pytest.raises(InputError, match=message):
        recipe.parse(options)


def test_the_encoder_sets_defaults_but_not_given_options():
    small, other = recipe.parse(["--epochs", "6"]), recipe.parse(["--encoder", "resnet18"])
    assert small["training"].epochs == other["training"].epochs == 6
    assert small["model"].hidden_size == 256
    assert other["model"].hidden_size == 512


# ---- starting from another run's weights --------------------------------------------------------

FREEZE = "--learning-rate 1e-12 --weight-decay 0".split()


@pytest.fixture
def start(tmp_path, tmp_path_factory, monkeypatch):
    """A function that starts runs from the run "base" in a fresh working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "draw_heatmaps", lambda *_: None)
    shutil.copytree(tiny.run(tmp_path_factory, attention=True), "checkpoints/base")
    colours = tiny.write_colours(Path("colours"))
    captions = colours / "annotations" / "captions_train.json"
    captions.write_text(captions.read_text().replace("nothing else", "nothing more"))
    sizes = "--attention --hidden-size 64 --embedding-size 64 --image-size 32 --batch-size 8"

    def start_run(name, *options, source="checkpoints/base"):
        common = [*sizes.split(), *tiny.PLAIN.split(), "--epochs", "1", "--start-from", source]
        train.main(["--data", "colours", "--run", name, *common, *options])
        return checkpoint.load(Path("checkpoints") / name / "last")

    return start_run


def test_a_run_starts_with_the_weights_and_vocabulary_of_another(start, capsys):
    base = checkpoint.load("checkpoints/base")
    run = start("run", *FREEZE, "--dropout", "0.3")
    assert "with frozen small_cnn" in (output := capsys.readouterr().out)
    assert "random" not in output
    assert run.vocabulary.words == base.vocabulary.words
    assert "more" not in run.vocabulary
    assert run.config["start_from"] == "checkpoints/base"
    assert run.training_state()["progress"]["step"] == 2
    assert run.weights.keys() == base.weights.keys()
    for name, value in base.weights.items():
        torch.testing.assert_close(run.weights[name], value, rtol=0, atol=1e-9)
    last = start("last", *FREEZE, source="checkpoints/base/last")
    assert last.config["start_from"] == "checkpoints/base/last"


def test_hard_attention_starts_from_soft_attention(start):
    base = checkpoint.load("checkpoints/base")
    run = start("run", *FREEZE, "--hard-attention")
    assert run.weights.keys() == base.weights.keys() | {"baseline"}
    for name, value in base.weights.items():
        torch.testing.assert_close(run.weights[name], value, rtol=0, atol=1e-9)


def test_resuming_does_not_need_the_source(start):
    run = start("run")
    shutil.rmtree("checkpoints/base")
    resumed = start("run", "--resume")
    assert all(torch.equal(resumed.weights[name], value) for name, value in run.weights.items())
    with pytest.raises(InputError, match="start_from was checkpoints/base and is elsewhere"):
        start("run", "--resume", source="elsewhere")


def test_a_frozen_encoder_is_fine_tuned_from_its_weights(start):
    frozen = start("frozen")
    run = start("run", "--fine-tune-encoder", "3", source="checkpoints/frozen")
    encoder = {name: value for name, value in frozen.weights.items() if name.startswith("encoder.")}
    changed = {name for name, value in encoder.items() if not torch.equal(run.weights[name], value)}
    assert changed
    assert changed == {
        name
        for name in encoder
        if ("layers.3." in name or "layers.4." in name) and name.endswith(("weight", "bias"))
    }
    assert all((run.weights[name] - encoder[name]).abs().max() < 0.05 for name in changed)


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        (["--hidden-size", "32"], "model.hidden_size is 64 there and 32 here$"),
        (["--encoder", "resnet18"], "encoder.encoder is small_cnn there and resnet18 here; "),
        (
            ["--embedding-size", "8", "--attention-size", "8"],
            "model.embedding_size is 64 there and 8 here; model.attention_size is 64 there and",
        ),
    ],
)
def test_a_start_from_another_architecture_names_the_differences(start, options, difference):
    with pytest.raises(InputError, match="checkpoints/base cannot be started from: " + difference):
        start("run", *options)
    assert not Path("checkpoints/run").exists()


def test_weights_may_lack_buffers_but_not_parameters():
    model = nn.Linear(2, 3)
    model.register_buffer("mean", torch.tensor(5.0))

    def load_weights(**weights):
        load_checkpoint_weights(model, Checkpoint(Path("run"), {}, Vocabulary([]), weights))

    load_weights(weight=torch.ones(3, 2), bias=torch.zeros(3))
    assert model.weight.sum() == 6
    assert model.mean == 5
    with pytest.raises(InputError, match=r"the weights of run do not fit: bias is missing$"):
        load_weights(weight=torch.ones(3, 2), mean=torch.tensor(1.0))
    with pytest.raises(InputError, match=r"the weights of run do not fit: more has no place$"):
        load_weights(weight=torch.ones(3, 2), bias=torch.zeros(3), more=torch.ones(1))
    with pytest.raises(InputError, match=r"the weights of run do not fit: .* size mismatch"):
        load_weights(weight=torch.ones(3, 1), bias=torch.zeros(3))
