"""The folder of a run: its name, who may train in it; and flags that would do nothing."""

import pytest

import train
from captioner.errors import InputError
from captioner.runs import CHECKPOINTS, claim, run_folder


@pytest.mark.parametrize("name", ["", ".", "..", ".cache", "../x", "a/b", "/abs"])
def test_a_run_stays_in_its_place(name):
    with pytest.raises(InputError, match="a run's name must be a plain name without a path"):
        run_folder(name)
    assert run_folder("mine") == CHECKPOINTS / "mine"


def test_one_training_at_a_time(tmp_path):
    run = tmp_path / "run"
    with claim(run), pytest.raises(InputError, match="is being trained by another process"):  # noqa: SIM117
        with claim(run):
            pass
    assert not run.exists()  # nothing was saved
    with claim(run):
        (run / "log.jsonl").touch()
    assert [path.name for path in run.iterdir()] == ["log.jsonl"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--attention-size", "256"], "--attention-size needs --attention"),
        (["--coverage-weight", "0.01"], "--coverage-weight needs --attention"),
        (["--format", "coco"], "--format needs --data"),
        (
            ["--encoder", "resnet18", "--encoder-learning-rate", "0.1"],
            "--encoder-learning-rate needs a trained encoder: --fine-tune-encoder",
        ),
    ],
)
def test_flags_that_would_do_nothing_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        train.parse(options)


def test_the_encoder_decides_defaults_but_not_what_is_given():
    small, other = train.parse(["--epochs", "8"]), train.parse(["--encoder", "resnet18"])
    assert small["training"].epochs == other["training"].epochs == 8
    assert small["model"].hidden_size == 256 and other["model"].hidden_size == 512
