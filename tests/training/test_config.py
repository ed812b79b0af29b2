"""The typed training configuration: defaults by encoder and contradictory options."""

from pathlib import Path

import pytest

from captioner.cli.train import parse
from captioner.errors import InputError
from captioner.models.captioning.options import ModelOptions
from captioner.training.config import SMALL_CNN_DEFAULTS, RunOptions, TrainConfig
from captioner.training.optimization import TrainingOptions


def test_small_cnn_has_its_own_defaults():
    config = TrainConfig.from_options()
    assert config.encoder.image_size == 128
    assert config.model.hidden_size == SMALL_CNN_DEFAULTS["hidden_size"]
    assert config.training.epochs == SMALL_CNN_DEFAULTS["epochs"]
    config = TrainConfig.from_options(encoder="resnet18")
    assert config.encoder.image_size == 224
    assert (config.model, config.training) == (ModelOptions(), TrainingOptions())


def test_given_options_override_defaults():
    config = TrainConfig.from_options(epochs=3, attention=True, data=Path("photos"), workers=0)
    assert (config.training.epochs, config.model.attention) == (3, True)
    assert (config.data.data, config.data.workers) == (Path("photos"), 0)
    assert config.model.hidden_size == SMALL_CNN_DEFAULTS["hidden_size"]


def test_command_line_gives_the_same_config():
    line = "--epochs 3 --attention --data photos --no-curves --teachers a b --teachers c"
    assert parse(line.split()) == TrainConfig.from_options(
        epochs=3,
        attention=True,
        data=Path("photos"),
        curves=False,
        teachers=(Path("a"), Path("b"), Path("c")),
    )
    assert parse([]) == TrainConfig.from_options()


def test_unknown_option():
    with pytest.raises(InputError, match="unknown training option 'atention', 'epoch'"):
        TrainConfig.from_options(epoch=3, atention=True)


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
            "--encoder-learning-rate needs a trained encoder; pass --fine-tune-encoder",
        ),
        (
            ["--start-from", "x", "--encoder-learning-rate", "0.1"],
            "--encoder-learning-rate needs a trained encoder; pass --fine-tune-encoder",
        ),
        (["--self-critical"], "--self-critical needs a trained model; pass --start-from"),
        (
            ["--start-from", "x", "--cross-entropy-share", "0.3"],
            "--cross-entropy-share needs --self-critical",
        ),
        (
            ["--start-from", "x", "--self-critical", "--scheduled-sampling", "0.2"],
            "--scheduled-sampling cannot be combined with --self-critical",
        ),
        (
            ["--start-from", "x", "--self-critical", "--teachers", "y"],
            "--teachers cannot be combined with --self-critical",
        ),
        (
            ["--start-from", "x", "--min-count", "2"],
            "--min-count cannot be combined with --start-from",
        ),
        (
            ["--start-from", "x", "--encoder-weights", "y"],
            "--encoder-weights cannot be combined with --start-from",
        ),
    ],
)
def test_contradictory_flags_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        parse(options)


def test_an_option_without_effect_is_refused_even_with_its_default():
    with pytest.raises(InputError, match="--on-error needs --data"):
        TrainConfig.from_options(on_error="stop")


def test_contradictions_are_refused_without_a_command_line():
    with pytest.raises(InputError, match="--hard-attention needs --attention"):
        TrainConfig(model=ModelOptions(hard_attention=True))
    with pytest.raises(InputError, match="--scheduled-sampling cannot be combined"):
        TrainConfig(
            training=TrainingOptions(self_critical=True, scheduled_sampling=0.5),
            run=RunOptions(start_from=Path("x")),
        )
    assert TrainConfig(model=ModelOptions(attention=True, hard_attention=True)).model.attention


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": -1}, "samples must be at least 0, got -1"),
        ({"heatmaps": -1}, "heatmaps must be at least 0, got -1"),
        ({"run": "a/b"}, "'a/b'"),
    ],
)
def test_invalid_run_options(options, message):
    with pytest.raises(InputError, match=message):
        RunOptions(**options)
