"""Checkpoints of older formats: loading, captioning, resuming."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import train
from captioner import Captioner
from captioner.checkpoints import checkpoint
from captioner.checkpoints.runs import open_run, open_source
from captioner.options import to_dict
from captioner.training.config import TrainConfig
from tests.support import tiny
from tests.support.signing import sign

OLD_NAMES = {5: {"image_embedding": "picture"}}  # format: {present name of a layer: its old name}


def downgrade(directory, version):
    """Rewrite a checkpoint in an older format; returns the names of its weights."""
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "format": version}))

    def with_old_names(tensors):
        names = {}
        for name in tensors:
            layer, dot, rest = name.partition(".")
            names[name] = OLD_NAMES[version].get(layer, layer) + dot + rest
        return {names[name]: value for name, value in tensors.items()}

    weights = with_old_names(load_file(directory / "model.safetensors"))
    save_file(weights, directory / "model.safetensors")
    state = torch.load(directory / "training_state.pt", weights_only=True)
    state["average"]["values"] = with_old_names(state["average"]["values"])
    torch.save(state, directory / "training_state.pt")
    sign(directory)
    return set(weights)


@pytest.fixture
def run(tmp_path, tmp_path_factory, monkeypatch):
    """A copy of a Show and Tell run in the working directory."""
    monkeypatch.chdir(tmp_path)
    target = tmp_path / "checkpoints" / "plain"
    return shutil.copytree(tiny.run(tmp_path_factory, attention=False), target)


def test_every_readable_format_is_tested():
    readable = {*OLD_NAMES, checkpoint.FORMAT, checkpoint.COMPACT}
    assert set(checkpoint.READABLE) == readable


@pytest.mark.parametrize("version", OLD_NAMES)
def test_an_older_format_gives_the_same_captions(version, run, tmp_path_factory):
    images = sorted((tiny.data(tmp_path_factory) / "val").iterdir())
    expected = Captioner.from_pretrained(run, "cpu").caption(images)
    assert "picture.weight" in downgrade(run / "best", version)
    upgraded = Captioner.from_pretrained(run, "cpu")
    assert [c.text for c in upgraded.caption(images)] == [c.text for c in expected]
    assert [c.score for c in upgraded.caption(images)] == [c.score for c in expected]
    saved = upgraded.save_pretrained("again")
    assert json.loads((saved / "config.json").read_text())["format"] == checkpoint.FORMAT


@pytest.mark.slow
@pytest.mark.parametrize("version", OLD_NAMES)
def test_a_run_of_an_older_format_resumes_with_the_same_weights(
    version, tmp_path, tmp_path_factory, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    options = ["--data", str(tiny.data(tmp_path_factory)), *tiny.OPTIONS, "--patience", "9"]
    weights = []
    for old in (False, True):
        name = f"run-{old}"
        train.main([*options, "--run", name])
        last = tmp_path / "checkpoints" / name / "last"
        state = torch.load(last / "training_state.pt", weights_only=True)
        assert state["progress"]["epoch"] == 2
        if old:
            downgrade(last, version)
        before = checkpoint.load(last)
        weights.append((before.weights, before.training_state()["average"]["values"]))
    for one, other in zip(*weights, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("system", "added"),
    [
        (
            "mcnn",
            {"scale_inputs": False, "loss": "hinges", "temperature": 0.2, "pair_maps": None},
        ),
    ],
)
def test_runs_without_options_of_later_versions_are_continued_and_repeated(system, added, tmp_path):
    same = {"temperature", "pair_maps"}  # as their defaults now
    options = {name: value for name, value in added.items() if name not in same}
    now = TrainConfig.from_options(system, **options)
    groups = {"encoder": now.encoder, "model": now.model, "training": now.training}
    config = {"task": system, "format": checkpoint.FORMAT, "transform": {"size": 96}}
    config |= {name: to_dict(group) for name, group in groups.items()}
    config |= {"data": {"path": None}, system: to_dict(now.task)}
    older = {name: value for name, value in config["model"].items() if name not in added}
    assert len(older) == len(config["model"]) - len(added)
    last = tmp_path / "run" / "last"
    last.mkdir(parents=True)
    (last / "config.json").write_text(json.dumps({**config, "model": older}))
    save_file({"weight": torch.zeros(1)}, last / "model.safetensors")
    torch.save({}, last / "training_state.pt")
    sign(last)

    assert open_run(tmp_path / "run", "last", config) is not None
    assert TrainConfig.from_file(last).model == now.model
    next_one = TrainConfig.from_options(system, start_from=str(last))
    assert next_one.encoder.image_size == 96
    ours = {**config, "model": to_dict(next_one.model)}
    assert open_source(last, ours, next_one.system.architecture).config["model"] == config["model"]
