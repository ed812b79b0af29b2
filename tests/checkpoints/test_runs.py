"""The directory of a run: its name, who may train in it, what it starts from; and idle flags."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

import evaluate
import train
from captioner.checkpoints import checkpoint
from captioner.checkpoints.checkpoint import Checkpoint, load_checkpoint_weights
from captioner.checkpoints.runs import (
    CHECKPOINTS,
    RESUME,
    SKIPPED,
    lock_run,
    open_run,
    run_directory,
)
from captioner.errors import InputError
from tests.support import tiny


@pytest.mark.parametrize("name", ["", ".", "..", ".cache", "../x", "a/b", "/abs"])
def test_a_run_stays_in_its_place(name):
    with pytest.raises(InputError, match="the name of a run must not be empty, contain a path sep"):
        run_directory(name)
    assert run_directory("mine") == CHECKPOINTS / "mine"


@pytest.mark.parametrize("resume", RESUME)
def test_a_file_is_not_a_run(tmp_path, resume):
    (tmp_path / "run").touch()
    with pytest.raises(InputError, match=r"run is a file, not a run; delete it, or pass --run"):
        open_run(tmp_path / "run", resume, {})


def test_one_training_at_a_time(tmp_path):
    run = tmp_path / "run"
    with lock_run(run), pytest.raises(InputError, match="is being trained by another process"):  # noqa: SIM117
        with lock_run(run):
            pass
    assert not run.exists()  # nothing was saved
    with lock_run(run):
        (run / "log.jsonl").touch()
    assert [path.name for path in run.iterdir()] == ["log.jsonl"]


def test_what_was_skipped_does_not_keep_a_run_in_which_nothing_was_saved(tmp_path):
    with lock_run(tmp_path / "run"):
        (tmp_path / "run" / SKIPPED).touch()
    assert not (tmp_path / "run").exists()


SKIP = ["--on-error", "skip", "--max-skipped", "0.1"]


def test_rows_that_were_skipped_are_listed_in_the_run(tmp_path, monkeypatch, capsys):
    """And evaluating the run skips them, too."""
    root = tiny.write_colours(tmp_path / "colours")
    (root / "train" / "5.png").unlink()
    (root / "val" / "103.png").unlink()
    monkeypatch.chdir(tmp_path)
    message = (
        f"2 rows and images of {root} would be skipped and 24 images used, but the fraction 0.0769 "
        "is more than --max-skipped 0.05; correct them or pass a larger --max-skipped; the first "
        "problem: "
    )
    with pytest.raises(InputError, match=re.escape(message)):
        train.main(["--data", str(root), *SKIP[:2], "--run", "mine", *tiny.OPTIONS])
    assert not (CHECKPOINTS / "mine").exists()
    train.main(["--data", str(root), *SKIP, "--run", "mine", *tiny.OPTIONS])
    said = capsys.readouterr().out
    counts = "train 15 images, 30 captions; val 6 images, 12 captions; test 3 images, 6 capt"
    assert counts in said
    assert "; 2 problems skipped" in said
    listed = CHECKPOINTS / "mine" / "skipped.jsonl"
    assert f"skipped: {listed}\n" in said
    rows = [json.loads(line) for line in listed.read_text().splitlines()]
    place = str(root / "annotations" / "captions_train.json")
    what = f"the image {root / 'train' / '5.png'} is missing"
    advice = "add the file, or remove the row that names it"
    assert rows[0] == {"file": place, "image": 6, "what": what, "advice": advice}
    assert len(rows) == 2
    evaluate.main(["--checkpoint", str(CHECKPOINTS / "mine"), "--workers", "0"])
    assert "val split, 6 images" in capsys.readouterr().out


# ---- starting from another run's weights --------------------------------------------------------

STILL = "--learning-rate 1e-12 --weight-decay 0".split()


@pytest.fixture
def start(tmp_path, tmp_path_factory, monkeypatch):
    """A run called "base" in an empty working directory; returns how to start others from it."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny.run(tmp_path_factory, attention=True), "checkpoints/base")
    colours = tiny.write_colours(Path("colours"))
    captions = colours / "annotations" / "captions_train.json"
    captions.write_text(captions.read_text().replace("nothing else", "nothing more"))
    sizes = "--attention --hidden-size 64 --embedding-size 64 --image-size 32 --batch-size 8"

    def call(name, *options, source="checkpoints/base"):
        common = [*sizes.split(), *tiny.PLAIN.split(), "--epochs", "1", "--start-from", source]
        train.main(["--data", "colours", "--run", name, *common, *options])
        return checkpoint.load(Path("checkpoints") / name / "last")

    return call


def test_a_run_starts_with_the_weights_and_words_of_another(start, capsys):
    base = checkpoint.load("checkpoints/base")
    run = start("run", *STILL, "--dropout", "0.3")
    assert "with frozen small_cnn" in (said := capsys.readouterr().out)
    assert "random" not in said
    assert run.vocabulary.words == base.vocabulary.words
    assert "more" not in run.vocabulary
    assert run.config["start_from"] == "checkpoints/base"
    assert run.training_state()["progress"]["step"] == 2
    assert run.weights.keys() == base.weights.keys()
    for name, value in base.weights.items():
        torch.testing.assert_close(run.weights[name], value, rtol=0, atol=1e-9)
    last = start("last", *STILL, source="checkpoints/base/last")
    assert last.config["start_from"] == "checkpoints/base/last"


def test_hard_attention_starts_from_soft_attention(start):
    base = checkpoint.load("checkpoints/base")
    run = start("run", *STILL, "--hard-attention")
    assert run.weights.keys() == base.weights.keys() | {"baseline"}
    for name, value in base.weights.items():
        torch.testing.assert_close(run.weights[name], value, rtol=0, atol=1e-9)


def test_it_resumes_without_what_it_started_from(start):
    run = start("run")
    shutil.rmtree("checkpoints/base")
    resumed = start("run", "--resume")
    assert all(torch.equal(resumed.weights[name], value) for name, value in run.weights.items())
    with pytest.raises(InputError, match="start_from was checkpoints/base but is now elsewhere"):
        start("run", "--resume", source="elsewhere")


def test_a_frozen_encoder_is_fine_tuned_from_the_weights_it_had(start):
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
        (
            ["--hidden-size", "32"],
            "model.hidden_size is 64 in the checkpoint but 32 in this run; choose",
        ),
        (
            ["--encoder", "resnet18"],
            "encoder.encoder is small_cnn in the checkpoint but resnet18 in this",
        ),
        (
            ["--embedding-size", "8", "--attention-size", "8"],
            "model.embedding_size is 64 in .* but 8 in this run; model.attention_size is 64 ",
        ),
    ],
)
def test_a_start_from_other_sizes_says_what_differs(start, options, difference):
    with pytest.raises(
        InputError, match="training cannot start from checkpoints/base: " + difference
    ):
        start("run", *options)
    assert not Path("checkpoints/run").exists()


def test_weights_may_lack_buffers_but_no_parameters():
    model = nn.Linear(2, 3)
    model.register_buffer("mean", torch.tensor(5.0))

    def take(**weights):
        load_checkpoint_weights(model, Checkpoint(Path("run"), {}, weights))

    take(weight=torch.ones(3, 2), bias=torch.zeros(3))
    assert model.weight.sum() == 6
    assert model.mean == 5
    with pytest.raises(
        InputError, match=r"the weights of run do not fit the model: bias is missing; choose"
    ):
        take(weight=torch.ones(3, 2), mean=torch.tensor(1.0))
    with pytest.raises(
        InputError, match=r"the weights of run do not fit the model: more is unexpected; choose"
    ):
        take(weight=torch.ones(3, 2), bias=torch.zeros(3), more=torch.ones(1))
    with pytest.raises(InputError, match=r"run do not fit the model: .* size mismatch"):
        take(weight=torch.ones(3, 1), bias=torch.zeros(3))
