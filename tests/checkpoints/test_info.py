"""Descriptions of checkpoints agree with their files."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import train
from captioner import Captioner
from captioner import __main__ as commands
from captioner.checkpoints.checkpoint import FORMAT, load
from captioner.checkpoints.info import describe_info, read_info
from captioner.errors import InputError
from captioner.models.linking.text_model import load_sentence_encoder
from tests.support import linking, tiny
from tests.support.signing import sign


@pytest.fixture
def run(tmp_path_factory):
    return tiny.run(tmp_path_factory, attention=True)


def change(run, tmp_path, edit):
    """A checkpoint outside a run, with a changed config."""
    directory = tmp_path / "sent"
    shutil.copytree(run / "best", directory)
    config = json.loads((directory / "config.json").read_text())
    edit(config)
    (directory / "config.json").write_text(json.dumps(config))
    sign(directory)
    return directory


@pytest.mark.parametrize("which", ["", "best", "last"])
def test_the_info_agrees_with_the_files(run, which):
    read, info = load(run / which), read_info(run / which)
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert info.items() >= read.config.items()
    assert info["path"] == str(read.path)
    assert info["numbers"] == sum(value.numel() for value in read.weights.values())
    assert info["words"] == len(read.vocabulary.words)
    assert info["formats"] == [5, 6, 7]
    assert info["format"] == FORMAT
    assert info["epochs"] == len(rows)
    assert info["seconds"] > 0
    row = rows[info["epoch"] - 1]
    assert row["CIDEr"] == pytest.approx(read.config["scores"]["CIDEr"], abs=1e-5)
    sizes = {path.name: len(path.read_bytes()) for path in read.path.iterdir()}
    assert info["files"] == sizes
    assert len(sizes) == 5


def test_training_info_and_card_agree_on_the_number_of_parameters(
    tmp_path_factory, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    weights = tiny.run(tmp_path_factory, attention=True)
    options = [*tiny.OPTIONS, "--epochs", "1", "--encoder-weights", str(weights), "--run", "a"]
    train.main(["--data", str(tiny.data(tmp_path_factory)), "--attention", *options])
    printed = capsys.readouterr().out
    commands.main(["info", "checkpoints/a"])
    described = capsys.readouterr().out
    captioner = Captioner.from_pretrained("checkpoints/a")
    card = (captioner.save_pretrained("shared") / "README.md").read_text()
    total = sum(p.numel() for p in captioner.model.parameters())
    trained = total - sum(p.numel() for p in captioner.model.encoder.parameters())
    assert f"{total:,} parameters ({trained:,} trained)" in printed
    assert f"{total:,} parameters ({trained:,} trained), " in described
    assert f"| Parameters | {total:,}, of which {trained:,} were trained |" in card
    old = {**read_info(Path("shared")), "parameters": None}  # of an older version
    assert f"{old['numbers']:,} values, 17 words" in describe_info(old)


def test_the_description(run, tmp_path_factory):
    lines = describe_info(read_info(run)).splitlines()
    assert lines[0] == str(run / "best")
    assert max(map(len, lines[1:])) <= 100
    text = "\n".join(lines)
    assert "Show, Attend and Tell: embeddings 64, LSTM 64, annotations" not in lines[2]
    assert "Show, Attend and Tell: embeddings 64, LSTM 64, attention 64" in text
    assert "small_cnn on 32 x 32 pixels\n" in text
    assert "colours (coco), /" in text
    assert " of 20 epochs, batch 8, seed 0, 0." in text
    assert "  BLEU-4 " in text
    assert f"format    {FORMAT}; this version of captioner reads formats 5, 6 and 7" in text
    assert "model.safetensors" in text
    assert "; all match their checksums" in text
    plain = describe_info(read_info(tiny.run(tmp_path_factory, attention=False)))
    assert "Show and Tell: embeddings 64, LSTM 64\n" in plain


def test_a_checkpoint_of_another_format_without_a_run(run, tmp_path):
    def edit(config):
        config.update(format=2, scores={}, start_from="checkpoints/first")
        config["model"].update(hard_attention=True, annotation_size=9)
        config["encoder"].update(encoder_weights="a/b.pth", fine_tune_encoder=3)
        config["data"]["path"] = None
        config["training"]["self_critical"] = True

    info = read_info(change(run, tmp_path, edit))
    assert info["epoch"] is info["epochs"] is info["seconds"] is None
    text = describe_info(info)
    for part in (
        "format    2; this version of captioner reads",
        "Show, Attend and Tell, hard attention: ",
        "annotations 9, ",
        "pixels, weights b.pth, trained from stage 3 onwards",
        "colours (coco), generated",
        "training  20 epochs, batch 8, seed 0, self-critical, started from checkpoints/first\n",
        "scores    none stored",
    ):
        assert part in text, part


def test_linking_runs(tmp_path_factory, capsys):
    fitted = linking.run(tmp_path_factory)
    capsys.readouterr()
    commands.main(["info", str(fitted)])
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines()[1:])) <= 100
    info = read_info(fitted)
    assert info["words"] == len(load_sentence_encoder(fitted / "best").words) == 17
    for part in (
        "model     linear: solver cca, dimensions 300, ridge 1.0, correlation_power 1.0, margin",
        " trained), 17 words\n",
        "options   text_vectors tf-idf, text_min_count 1, text_dimensions 300\n",
        "encoder   small_cnn on 32 x 32 pixels, weights small-cnn.pth\n",
        "training  fitted in closed form, ",
        "scores    i2t_R@1 100.0  ",
        "rsum 600.0  ",
    ):
        assert part in text, part
    trained = describe_info(read_info(linking.run(tmp_path_factory, "ranking")))
    assert "model     linear: solver ranking, dimensions 12," in trained
    assert " of 3 epochs, batch 5, seed 0" in trained


def test_given_image_vectors_and_sentence_encoders_without_words(tmp_path, tmp_path_factory):
    directory = tmp_path / "sent"
    shutil.copytree(linking.run(tmp_path_factory) / "best", directory)
    config = json.loads((directory / "config.json").read_text())
    config["linear"]["image_vectors"] = "v.npy"
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "text.json").write_text('{"parts": [{"kind": "rows"}]}')
    sign(directory)
    info = read_info(directory)
    assert info["words"] is None
    text = describe_info(info)
    assert "encoder   none; the image vectors were computed by the user\n" in text
    assert " trained)\n" in text
    (directory / "text.json").write_text("[]")
    sign(directory)
    with pytest.raises(InputError, match=r"text\.json cannot be read: "):
        read_info(directory)


def test_the_command(run, capsys):
    commands.main(["info", str(run)])
    assert capsys.readouterr().out == describe_info(read_info(run)) + "\n"
    commands.main(["info", str(run), "--json"])
    assert json.loads(capsys.readouterr().out) == read_info(run)


def test_checkpoints_that_cannot_be_described(run, tmp_path):
    with pytest.raises(InputError, match=r"checkpoint .*gone does not exist"):
        read_info(tmp_path / "gone")
    directory = change(run, tmp_path, lambda config: config.update(model=[]))
    message = r"sent: config.json cannot be described: a value is missing or invalid; pass --json"
    with pytest.raises(InputError, match=message):
        describe_info(read_info(directory))
    weights = directory / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(
        InputError, match=r"is damaged: model.safetensors does not match its checksum"
    ):
        read_info(directory)


def test_torch_is_not_imported(run):
    code = f"""
import sys
from captioner.__main__ import main
main(["info", {str(run)!r}])
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "False"


def test_empty_lists_are_not_shown(tmp_path_factory):
    info = read_info(linking.run(tmp_path_factory))
    info["linear"]["text_vectors"] = []
    assert "text_vectors" not in describe_info(info)
