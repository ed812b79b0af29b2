"""The models that come with the package: their names, files, and commands without flags."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from captioner import Captioner, Linker
from captioner import __main__ as commands
from captioner.checkpoints import checkpoint
from captioner.errors import InputError
from captioner.pretrained import CAPTIONER, JOINT, NAMES, SPATIAL, find_pretrained
from captioner.serving.loading import load_models
from captioner.vision.encoders import build_encoder
from tests.support import tiny

pytestmark = pytest.mark.slow


def directory(name):
    found = find_pretrained(name)
    assert found is not None
    return found


def size(path):
    return sum(file.stat().st_size for file in path.iterdir())


@pytest.fixture
def photo(tmp_path, monkeypatch):
    """A drawn beach in a photographs' directory, which is in the working directory."""
    monkeypatch.chdir(tmp_path)
    pixels = np.full((120, 160, 3), (120, 170, 230), np.uint8)
    pixels[60:90] = (40, 90, 160)
    pixels[90:] = (220, 200, 150)
    Path("photos").mkdir()
    for number, shift in enumerate((0, 20, 40)):
        Image.fromarray(np.roll(pixels, shift, axis=0)).save(f"photos/{number}.jpg")
    return "photos/0.jpg"


@pytest.mark.parametrize("name", NAMES)
def test_files(name):
    path = directory(name)
    assert {file.name for file in path.iterdir()} >= {"README.md", "config.json", "manifest.json"}
    config = checkpoint.load(path).config
    assert config["format"] == checkpoint.COMPACT
    assert config["data"]["path"] == "flickr8k"
    assert not re.search(r'"/\w', (path / "config.json").read_text())
    card = (path / "README.md").read_text()
    for part in ("## Terms", "non-commercial research", "bootstrap samples", "Minutes of training"):
        assert part in card


def test_sizes():
    assert size(directory(CAPTIONER)) <= 12e6
    assert size(directory(JOINT)) + size(directory(SPATIAL)) <= 8e6


def test_they_share_one_encoder():
    encoders = [
        {k: v for k, v in checkpoint.load(directory(name)).weights.items() if "encoder." in k}
        for name in NAMES
    ]
    assert encoders[0]
    for other in encoders[1:]:
        assert other.keys() == encoders[0].keys()
        assert all(torch.equal(other[key], encoders[0][key]) for key in other)
    layers = build_encoder("mobilenet_v2", CAPTIONER).state_dict()
    assert all(torch.equal(v, encoders[0][f"encoder.{k}"]) for k, v in layers.items())


def test_defaults_in_python(photo):
    captioner, linker = Captioner.from_pretrained(device="cpu"), Linker.from_pretrained()
    assert "mobilenet_v2" in repr(captioner)
    assert repr(linker).startswith("Linker(JointEmbedding with mobilenet_v2; 512 dimensions")
    caption = captioner.caption(photo)
    assert 3 < len(caption.words) < 30
    assert caption.text == Captioner.from_pretrained("flickr8k", "cpu").caption(photo).text
    texts = ["waves on a beach", "two men in a room"]
    expected = Linker.from_pretrained(directory(JOINT)).similarity(photo, texts)
    assert np.array_equal(linker.similarity(photo, texts), expected)
    labels = Linker.from_pretrained(SPATIAL).labels(photo, ["sky", "kitchen"])[0]
    assert labels[0] > labels[1]


def test_commands_without_flags(photo, capsys):
    for words, line in (
        (["caption", photo, "--heatmap", "heat"], "model: flickr8k, which comes with captioner"),
        (["index", "photos"], "model: flickr8k-joint, which comes with captioner"),
        (["search", "beach - dog"], "index: images.index, the last one written"),
        (["label", photo, "--labels", "beach"], "model: flickr8k-spatial, which comes with"),
        (["localize", photo, "beach", "sky"], "model: flickr8k-spatial, which comes with"),
        (["encode", "--images", photo, "--output", "a.npy"], "model: flickr8k-joint, which"),
    ):
        commands.main(words)
        assert line in capsys.readouterr().err
    for file in ("heat/0.png", "images.index/manifest.json", "label-maps/0.png", "a.npy"):
        assert Path(file).is_file(), file
    commands.main(["caption", photo, "--checkpoint", "flickr8k"])
    printed = capsys.readouterr()
    assert "comes with" not in printed.err
    assert printed.out.startswith(f"{photo}\t")
    commands.main(["info", "flickr8k-joint"])
    assert "mobilenet_v2 on 224 x 224" in capsys.readouterr().out
    manifest = json.loads(Path("images.index/manifest.json").read_text())
    assert manifest["checkpoint"] == "flickr8k-joint"  # in every installation


def test_data_of_the_same_name_is_no_model(photo, capsys):
    Path("flickr8k").mkdir()
    Path("flickr8k-joint").touch()
    commands.main(["index", "photos"])
    commands.main(["caption", photo])
    commands.main(["search", "beach"])
    assert "flickr8k, which comes with captioner" in capsys.readouterr().err
    assert find_pretrained("flickr8k/") == directory(CAPTIONER)


def test_names_that_are_nearly_right():
    with pytest.raises(InputError, match=r"check the path; did you mean 'flickr8k-spatial'\?"):
        Linker.from_pretrained("flickr8k-spatail")
    with pytest.raises(InputError, match=r"or a model of the package \(flickr8k, flickr8k-joint"):
        build_encoder("mobilenet_v2", "flickr8")


def test_a_run_of_the_same_name_goes_before(photo, capsys, tmp_path_factory):
    run = tiny.run(tmp_path_factory, attention=False)
    Path("flickr8k").symlink_to(run)
    assert find_pretrained("flickr8k") is None
    commands.main(["caption", photo, "--checkpoint", "flickr8k", "--device", "cpu"])
    words = capsys.readouterr().out.partition("\t")[2].split()
    assert set(words) <= set(checkpoint.load(run).vocabulary.words)
    commands.main(["caption", photo, "--device", "cpu"])
    assert "model: flickr8k, a run in this directory" in capsys.readouterr().err


def test_a_service_without_runs_serves_the_captioner(photo, capsys, monkeypatch):
    loaded = []

    def load(runs, indexes, runtime):
        loaded.extend(load_models(runs, indexes, runtime))
        raise InputError("loaded")

    monkeypatch.setattr("captioner.serving.loading.load_models", load)
    with pytest.raises(InputError, match="loaded"):
        commands.main(["serve", "--device", "cpu"])
    assert "model: flickr8k, which comes with captioner" in capsys.readouterr().err
    captioner, collections, relation = loaded
    assert (collections, relation) == ([], None)
    assert captioner.caption(photo).words


def test_evaluation_needs_an_output(tmp_path_factory, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["evaluate", "--checkpoint", "flickr8k", "--data", str(tiny.data(tmp_path_factory))]
    with pytest.raises(InputError, match="flickr8k comes with captioner, without its data"):
        commands.main(words)
    commands.main([*words, "--output", "out", "--metrics", "bleu"])
    assert Path("out/scores.json").is_file()


def test_training_starts_from_the_captioner_and_from_its_encoder(
    tmp_path_factory, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    plain = [*tiny.PLAIN.split(), "--epochs", "1", "--image-size", "64"]
    words = ["train", "--data", str(tiny.data(tmp_path_factory)), *plain]
    commands.main([*words, "--start-from", "flickr8k", "--run", "further"])
    assert "unknown to the model that training starts from: 'sees'" in capsys.readouterr().out
    commands.main(["train", "--config", "flickr8k", *words[1:], "--run", "repeated"])
    further = checkpoint.load("checkpoints/further")
    sizes = ("attention", "hidden_size", "annotation_size")
    assert [further.config["model"][name] for name in sizes] == [True, 512, 512]
    assert further.vocabulary.words == checkpoint.load(directory(CAPTIONER)).vocabulary.words
    linear = ["--system", "linear", "--encoder", "mobilenet_v2", "--encoder-weights", "flickr8k"]
    words = [*words[:3], "--image-size", "64", "--text-min-count", "1", "--workers", "0"]
    commands.main([*words, *linear, "--device", "cpu", "--run", "linked"])
    own = checkpoint.load("checkpoints/linked").weights
    whole = checkpoint.load(directory(CAPTIONER)).weights
    assert all(torch.equal(own[key], whole[key]) for key in own if key.startswith("encoder."))
