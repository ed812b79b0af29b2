"""Checkpoints with weights in 8 bits: sizes, errors of rounding, and what still loads them."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import train
from captioner import Captioner
from captioner.checkpoints import checkpoint
from captioner.checkpoints.info import read_info
from captioner.compact import SCALES, compress, expand
from captioner.errors import InputError
from tests.support import tiny
from tests.support.signing import sign


def test_weights_are_rounded_to_127_steps_of_the_largest_in_their_row():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(40, 8, 2, 2, generator=generator)
    weight[3] = 0
    weights = {"a.weight": weight, "bias": torch.randn(2000), "small": torch.randn(4, 4)}
    weights["count"] = torch.arange(5000).view(50, 100)
    stored = compress(weights)
    assert stored.keys() == weights.keys() | {"a.weight" + SCALES}
    assert stored["a.weight"].dtype == torch.int8
    assert stored["a.weight"].shape == weight.shape
    back = expand(stored)
    for name in ("bias", "small", "count"):
        assert torch.equal(back[name], weights[name])
    steps = weight.flatten(1).abs().amax(1) / 127
    errors = (back["a.weight"] - weight).flatten(1).abs().amax(1)
    assert (errors <= steps / 2 + 1e-7).all()
    assert (errors[:3] > steps[:3] / 4).all()
    assert (back["a.weight"][3] == 0).all()


@pytest.fixture(params=[True, False])
def captioner(request, tmp_path_factory):
    return Captioner.from_pretrained(tiny.run(tmp_path_factory, attention=request.param), "cpu")


def test_a_compact_checkpoint_captions_alike(captioner, tmp_path, tmp_path_factory):
    images = sorted((tiny.data(tmp_path_factory) / "val").iterdir())
    whole, compact = tmp_path / "whole", tmp_path / "compact"
    captioner.save_pretrained(whole)
    captioner.save_pretrained(compact, compact=True)
    sizes = [(path / "model.safetensors").stat().st_size for path in (whole, compact)]
    assert sizes[1] < 0.5 * sizes[0]  # tiny models have few large weights
    assert read_info(compact)["numbers"] == read_info(whole)["numbers"]
    assert json.loads((compact / "config.json").read_text())["format"] == checkpoint.COMPACT
    loaded = Captioner.from_pretrained(compact, "cpu")
    exact, rounded = captioner.caption(images), loaded.caption(images)
    assert sum(a.text == b.text for a, b in zip(exact, rounded, strict=True)) >= 0.8 * len(images)
    scores = loaded.score(images, [caption.text for caption in exact])
    assert scores != [caption.score for caption in exact]
    assert scores == pytest.approx([caption.score for caption in exact], abs=0.3)


def test_training_starts_from_a_compact_checkpoint(
    captioner, tmp_path, tmp_path_factory, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    captioner.save_pretrained("compact", compact=True)
    attention = ["--attention"] if captioner.model.has_attention else []
    sizes = "--hidden-size 64 --embedding-size 64 --image-size 32 --epochs 1 --batch-size 8"
    words = ["--data", str(tiny.data(tmp_path_factory)), *attention, *sizes.split()]
    train.main([*words, *tiny.PLAIN.split(), "--start-from", "compact", "--run", "next"])
    assert checkpoint.load("checkpoints/next").config["format"] == checkpoint.FORMAT


def test_scales_that_do_not_fit_are_refused(captioner, tmp_path):
    directory = captioner.save_pretrained(tmp_path / "compact", compact=True)
    stored = load_file(directory / "model.safetensors")
    name = next(name for name in stored if name.endswith(SCALES))
    save_file(stored | {name: stored[name][1:].clone()}, directory / "model.safetensors")
    sign(directory)
    with pytest.raises(InputError, match="does not fit its scales of shape"):
        checkpoint.load(directory)
    save_file(stored | {name: stored[name] * torch.nan}, directory / "model.safetensors")
    sign(directory)
    with pytest.raises(InputError, match="not finite"):
        checkpoint.load(directory)
