"""The typed training configuration: defaults by encoder and contradictory options."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

import train
from captioner.cli.train import parse
from captioner.errors import InputError
from captioner.models.captioning.options import ModelOptions
from captioner.tasks.captioning.options import CaptioningOptions
from captioner.tasks.captioning.task import SMALL_CNN_DEFAULTS
from captioner.tasks.options import TrainingOptions
from captioner.training.config import DataOptions, RunOptions, TrainConfig
from captioner.vision.options import EncoderOptions
from tests.support import tiny


def test_small_cnn_has_its_own_defaults():
    config = TrainConfig.from_options()
    assert config.encoder.image_size == 128
    assert config.model.hidden_size == SMALL_CNN_DEFAULTS["hidden_size"]
    assert config.training.epochs == SMALL_CNN_DEFAULTS["epochs"]
    config = TrainConfig.from_options(encoder="resnet18")
    assert config.encoder.image_size == 224
    assert (config.model, config.training) == (ModelOptions(), TrainingOptions(watch="bleu-4"))


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


def test_groups_get_the_same_defaults_as_flags():
    """Also if the groups are built one by one; values passed to them are kept, even defaults."""
    grouped = TrainConfig(
        data=DataOptions(data="photos"),
        model=ModelOptions(attention=True, dropout=0.3),
        training=TrainingOptions(epochs=6),
    )
    line = "--data photos --attention --dropout 0.3 --epochs 6"
    assert grouped == parse(line.split())
    assert grouped.model.hidden_size == SMALL_CNN_DEFAULTS["hidden_size"]
    assert (grouped.model.dropout, grouped.training.epochs) == (0.3, 6)
    pretrained = TrainConfig(encoder=EncoderOptions(encoder="resnet18"))
    assert pretrained == parse(["--encoder", "resnet18"])
    assert replace(grouped, run=RunOptions(run="x")).model == grouped.model


def test_options_are_converted():
    config = TrainConfig.from_options(
        data="photos", teachers=["a"], clip=2, watch="CIDEr", encoder_weights="DEFAULT"
    )
    assert (config.data.data, config.task.teachers) == (Path("photos"), (Path("a"),))
    assert config.training.watch == "cider"
    assert config.system.watched_score(config.training.watch) == "CIDEr"
    assert config.system.watched_score("CIDEr") == "CIDEr"
    assert TrainConfig().training.watch == "bleu-4"
    assert isinstance(config.training.clip, float)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": "3"}, "epochs must be int, got '3'"),
        ({"epochs": True}, "epochs must be int, got True"),
        ({"epochs": None}, "epochs must be int, got None"),
        ({"attention": 1}, "attention must be bool, got 1"),
        ({"data": 3}, "data must be str, got 3"),
        ({"teachers": "a"}, "teachers must be a list of str, got 'a'"),
        ({"watch": "spice"}, "watch must be one of bleu-4, bleu-1, .*, got 'spice'"),
    ],
)
def test_values_of_a_wrong_type_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        TrainConfig.from_options(**options)


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
        (["--data", "x", "--max-skipped", "0.1"], "--max-skipped needs --data and --on-error skip"),
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
            task=CaptioningOptions(self_critical=True, scheduled_sampling=0.5),
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


# ---- from a file ---------------------------------------------------------------------------------

NOT_STORED = {"device": "cpu", "workers": 0}
START = "--epochs 1 --workers 0 --device cpu --samples 0 --no-curves --batch-size 8".split()
OPTIONS_FILE = """
data = "photos"
attention = true
epochs = 3
captioning.teachers = ["a", "b"]
[model]
hidden-size = 99
[training]
learning_rate = 1
watch = "CIDEr"
"""


@pytest.fixture
def options_file(tmp_path):
    path = tmp_path / "options.toml"
    path.write_text(OPTIONS_FILE)
    return path


def test_a_file_gives_the_same_config_as_flags(options_file):
    flags = "--data photos --attention --epochs 3 --teachers a b --hidden-size 99"
    expected = parse([*flags.split(), "--learning-rate", "1", "--watch", "cider"])
    assert parse(["--config", str(options_file)]) == expected
    assert TrainConfig.from_file(options_file) == expected


def test_flags_replace_what_a_file_gives(options_file):
    config = parse(["--config", str(options_file), "--epochs", "5", "--teachers", "c"])
    assert (config.training.epochs, config.model.hidden_size) == (5, 99)
    assert config.task.teachers == (Path("c"),)
    assert TrainConfig.from_file(options_file, epochs=5, teachers=["c"]) == config


def test_a_flag_turns_off_what_a_file_turns_on(tmp_path):
    path = tmp_path / "options.toml"
    path.write_text("tensorboard = true\ncurves = false\n")
    config = parse(["--config", str(path)])
    assert (config.run.tensorboard, config.run.curves) == (True, False)
    config = parse(["--config", str(path), "--no-tensorboard", "--curves"])
    assert (config.run.tensorboard, config.run.curves) == (False, True)


def test_the_encoder_of_a_file_decides_on_the_defaults(tmp_path):
    path = tmp_path / "options.toml"
    path.write_text('encoder = "resnet18"\n[training]\nepochs = 2\n')
    assert parse(["--config", str(path)]) == parse(["--encoder", "resnet18", "--epochs", "2"])
    config = parse(["--config", str(path), "--encoder", "small_cnn"])
    assert config.model.hidden_size == SMALL_CNN_DEFAULTS["hidden_size"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("atention = true", r"unknown option 'atention'; did you mean 'attention'\?"),
        ("no-curves = true", "unknown option 'no-curves'; write curves = false"),
        ("[model]\nzzz = 1", "unknown option 'zzz'; correct its name or remove it$"),
        ("[modell]\nattention = true", r"unknown table \[modell\]; the tables are \[data\], "),
        ("[data]\nattention = true", r"attention belongs in table \[model\], not in \[data\]"),
        ("epochs = 1\n[training]\nepochs = 2", "epochs is given twice"),
        ("min-count = 1\nmin_count = 1", "min_count is given twice"),
        ("epochs = 'three'", "epochs must be int, got 'three'"),
        ("data = 3", "data must be str, got 3"),
        (
            "[captioning]\nteachers = 'a'",
            r"teachers must be a list of str, got 'a'; write \['a'\]$",
        ),
        ("epochs = 0", "epochs must be at least 1, got 0"),
        ("[model]\ndropout = 1.5", r"dropout must be at least 0 and below 1, got 1\.5"),
        ("[[training]]\nepochs = 2", r"training must be one table; write \[training\] above"),
        ("[[data]]\nworkers = 2", r"data must be one table; write \[data\] above"),
        ("training = 3", r"training must be one table; write \[training\] above"),
        (
            "epochs = {max = 2}",
            r"epochs is an option, not a table; write epochs = VALUE \(tables: ",
        ),
        ("[min-count]\nx = 2", "min-count is an option, not a table; write min-count = VALUE"),
        ("[captioning]\nteachers = [1]", "teachers must be str, got 1"),
        ("epochs = ", "is not a valid TOML file: Invalid value"),
        ("a = '\xff'", "is not a valid TOML file: "),
        ("\xef\xbb\xbfepochs = 0", "epochs must be at least 1, got 0"),  # Notepad's BOM
    ],
)
def test_a_wrong_file_is_refused_by_name_and_key(tmp_path, text, message):
    path = tmp_path / "options.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=f"^{re.escape(str(path))}:? {message}"):
        parse(["--config", str(path)])


def test_a_file_is_named_only_for_its_own_values(tmp_path):
    path = tmp_path / "options.TOML"
    path.write_text("epochs = 0\ntraining = {batch-size = 3}")
    with pytest.raises(InputError, match=r"options.TOML: epochs must be at least 1, got 0$"):
        parse(["--config", str(path)])
    with pytest.raises(InputError, match=r"^epochs must be at least 1, got -1$"):
        parse(["--config", str(path), "--epochs", "-1"])
    config = parse(["--config", str(path), "--epochs", "2"])
    assert (config.training.epochs, config.training.batch_size) == (2, 3)


def test_a_file_may_not_contradict_itself(tmp_path):
    path = tmp_path / "options.toml"
    path.write_text("attention-size = 9")
    with pytest.raises(InputError, match="--attention-size needs --attention"):
        parse(["--config", str(path)])
    assert parse(["--config", str(path), "--attention"]).model.attention_size == 9


def test_only_files_of_options_are_read(tmp_path):
    with pytest.raises(InputError, match=r"gone.toml cannot be read: No such file"):
        TrainConfig.from_file(tmp_path / "gone.toml")
    with pytest.raises(InputError, match="gone does not exist"):
        TrainConfig.from_file(tmp_path / "gone")
    (tmp_path / "options.yaml").touch()
    with pytest.raises(InputError, match=r"must be a \.toml file, a run, .* got .*options.yaml"):
        TrainConfig.from_file(tmp_path / "options.yaml")


@pytest.mark.parametrize("part", ["", "best", "last/config.json"])
def test_a_run_gives_the_options_it_was_trained_with(train_run, part):
    argv = ["--attention", "--dropout", "0.4", "--epochs", "1", "--min-count", "2"]
    run = train_run("run", *argv)
    config = TrainConfig.from_file(run / part, **NOT_STORED)
    data = json.loads((run / "best" / "config.json").read_text())["data"]
    expected = parse(["--data", data["path"], "--format", "coco", *tiny.OPTIONS, *argv])
    assert config == replace(expected, run=RunOptions(device="cpu"))


def test_a_run_is_repeated_with_its_own_config(train_run):
    run = train_run("run", "--epochs", "1")
    plain = ["--workers", "0", "--device", "cpu", "--samples", "0", "--no-curves"]
    train.main(["--config", str(run), "--run", "again", *plain])
    rows = [
        tiny.untimed(json.loads(line))
        for name in ("run", "again")
        for line in Path(f"checkpoints/{name}/log.jsonl").read_text().splitlines()
    ]
    assert rows[0] == rows[1]
    train.main(["--config", str(run), "--run", "more", "--epochs", "2", *plain])
    assert len(Path("checkpoints/more/log.jsonl").read_text().splitlines()) == 2


def test_other_data_have_their_own_format(train_run):
    config = TrainConfig.from_file(train_run("run", "--epochs", "1"), data="other")
    assert (config.data.data, config.data.format) == (Path("other"), None)


def test_stored_options_that_do_not_matter_are_not_refused(train_run):
    """A run that starts from another uses its vocabulary, so min_count has no effect."""
    run = train_run("run", "--epochs", "1")
    sizes = ["--hidden-size", "16", "--embedding-size", "16", "--image-size", "32"]
    data = str(TrainConfig.from_file(run).data.data)
    train.main(["--data", data, "--start-from", str(run), "--run", "next", *sizes, *START])
    config = TrainConfig.from_file("checkpoints/next")
    assert config.run.start_from == run
    assert config.task.min_count == CaptioningOptions().min_count


def test_encoder_weights_of_a_run_come_with_its_image_size(tmp_path_factory, tmp_path):
    weights = str(tiny.run(tmp_path_factory, attention=False))
    options = {"system": "joint", "encoder_weights": weights}
    assert TrainConfig.from_options(**options).encoder.image_size == 32
    assert TrainConfig.from_options(**options, image_size=64).encoder.image_size == 64
    options["encoder_weights"] = str(tmp_path / "absent")
    default = TrainConfig.from_options("joint").encoder.image_size
    assert TrainConfig.from_options(**options).encoder.image_size == default


RUN = {  # a stored run, whose options are all unlike the defaults
    "task": "captioning",
    "data": {"path": "photos", "format": "coco", "min_count": 2},
    "encoder": {"encoder": "resnet18", "encoder_weights": "my.pth", "fine_tune_encoder": 4},
    "model": {"attention": True, "attention_size": 7, "coverage_weight": 0.5},
    "training": {"encoder_learning_rate": 0.5, "scheduled_sampling": 0.5, "epochs": 2},
    "teachers": [{"path": "a"}],
}


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """The path of a run with the config RUN, for `TrainConfig.from_file`."""
    inspected = tmp_path, RUN
    monkeypatch.setattr("captioner.training.stored_options.checkpoint.inspect", lambda _: inspected)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "dropped"),
    [
        ({}, ""),
        ({"encoder": "resnet50"}, "encoder_weights"),
        ({"encoder": "resnet18"}, ""),
        ({"attention": False}, "attention_size coverage_weight"),
        ({"start_from": "x"}, "encoder_weights min_count"),
        (
            {"start_from": "x", "self_critical": True},
            "encoder_weights min_count scheduled_sampling teachers",
        ),
    ],
)
def test_stored_options_without_effect_are_dropped(stored, given, dropped):
    options = {
        **{"data": "photos", "format": "coco", "on_error": "stop", "min_count": 2},
        **RUN["encoder"] | RUN["model"] | RUN["training"],
        "teachers": ["a"],
    }
    options = {name: value for name, value in options.items() if name not in dropped.split()}
    assert TrainConfig.from_file(stored, **given) == TrainConfig.from_options(**options | given)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--no-attention --attention-size 7", "--attention-size needs --attention"),
        ("--start-from x --min-count 2", "--min-count cannot be combined with --start-from"),
        ("--start-from x --encoder-weights y", "--encoder-weights cannot be combined with --start"),
    ],
)
def test_flags_without_effect_are_refused_beside_stored_options(stored, flags, message):
    with pytest.raises(InputError, match=message):
        parse(["--config", str(stored), *flags.split()])


@pytest.mark.parametrize(
    ("weights", "encoder", "kept"),
    [("DEFAULT", "resnet50", True), ("DEFAULT", "small_cnn", False), ("a.safetensors", "x", False)],
)
def test_stored_weights_of_another_encoder(stored, monkeypatch, weights, encoder, kept):
    """Another torchvision CNN may have published weights of the same name."""
    monkeypatch.setitem(RUN["encoder"], "encoder_weights", weights)
    config = TrainConfig.from_file(stored, encoder=encoder)
    assert config.encoder.encoder_weights == (weights if kept else None)
