"""Training from Python: `captioner.train` and its result."""

import json
from pathlib import Path

import pytest

import captioner
from captioner import Captioner, TrainConfig, TrainingResult
from captioner.errors import InputError
from captioner.tasks.captioning.options import CaptioningOptions
from captioner.training.config import DataOptions, ModelOptions, RunOptions, TrainingOptions
from tests.support import tiny
from tests.support.interrupting import assert_same_run

OPTIONS = {
    **{"hidden_size": 16, "embedding_size": 16, "image_size": 32, "min_count": 1, "workers": 0},
    **{"precision": "float32", "device": "cpu", "samples": 0, "heatmaps": 0, "curves": False},
    **{"epochs": 2, "batch_size": 8},
}


@pytest.fixture
def colours(tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tiny.data(tmp_path_factory)


def test_python_trains_what_the_command_trains(colours, train_run):
    trained = train_run("command", "--attention")
    config = TrainConfig.from_options(data=colours, run="python", attention=True, **OPTIONS)
    result = captioner.train(config)
    assert isinstance(result, TrainingResult)
    assert result.run == Path("checkpoints/python")
    assert_same_run(result.run, trained)


def test_result(colours, capsys):
    result = captioner.train(
        TrainConfig(
            data=DataOptions(data=colours, workers=0),
            model=ModelOptions(hidden_size=16, embedding_size=16),
            task=CaptioningOptions(min_count=1),
            training=TrainingOptions(epochs=2, batch_size=8, precision="float32"),
            run=RunOptions(device="cpu", samples=0, curves=False),
        )
    )
    rows = [json.loads(line) for line in (result.run / "log.jsonl").read_text().splitlines()]
    assert result.history == rows
    assert result.best_epoch in (1, 2)
    assert result.scores["BLEU-4"] == pytest.approx(rows[result.best_epoch - 1]["BLEU-4"], abs=1e-4)
    assert isinstance(result.captioner, Captioner)
    assert result.captioner is result.captioner
    image = colours / "val" / "100.png"
    expected = Captioner.from_pretrained(result.run / "best", "cpu").caption(image)
    assert result.captioner.caption(image).text == expected.text
    assert "best epoch: " in capsys.readouterr().out


def test_mistakes_are_input_errors(colours):
    with pytest.raises(captioner.InputError, match="unknown encoder 'resnet5'"):
        captioner.train(TrainConfig.from_options(data=colours, encoder="resnet5"))


def test_only_a_config_is_trained(colours):
    with pytest.raises(InputError, match=r"^config must be a TrainConfig, got {'data': "):
        captioner.train({"data": colours})
