"""Saved linking models: what is compressed, the card, and an encoder stored only once."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from captioner import Linker, compact
from captioner.checkpoints import checkpoint
from captioner.checkpoints.info import read_info
from captioner.errors import InputError
from captioner.vision.encoders import build_encoder
from tests.support import linking, spatial, tiny
from tests.support.signing import sign

pytestmark = pytest.mark.slow


@pytest.fixture
def linker(tmp_path_factory):
    return Linker.from_pretrained(spatial.run(tmp_path_factory), "cpu")


@pytest.fixture
def images(tmp_path_factory):
    return sorted((spatial.data(tmp_path_factory)).rglob("*.png"))[:4]


@pytest.fixture
def lender(linker, tmp_path):
    """A compact checkpoint that has an encoder of its own."""
    return linker.save_pretrained(tmp_path / "lender", compact=True)


def test_a_whole_model_is_the_same(linker, images, tmp_path):
    saved = linker.save_pretrained(tmp_path / "saved", license="apache-2.0")
    again = Linker.from_pretrained(saved, "cpu")
    assert np.array_equal(again.encode_images(images), linker.encode_images(images))
    assert again.known_labels == linker.known_labels
    card = (saved / "README.md").read_text()
    assert 'Linker.from_pretrained("saved")' in card
    assert "license: apache-2.0" in card
    assert "captioner localize photo.jpg dog --checkpoint saved" in card
    assert str(tmp_path.parent) not in (saved / "config.json").read_text()


def test_a_compact_model_is_nearly_the_same(linker, images, tmp_path, monkeypatch):
    monkeypatch.setattr(compact, "SMALLEST", 8)  # the word vectors are few
    lender = linker.save_pretrained(tmp_path / "compact", compact=True)
    stored = load_file(lender / "text.safetensors")
    assert torch.int8 in {tensor.dtype for tensor in stored.values()}
    again = Linker.from_pretrained(lender, "cpu")
    cosines = (again.encode_images(images) * linker.encode_images(images)).sum(1)
    assert (cosines > 0.999).all()
    words = linker.known_labels.names
    assert (again.encode_texts(words) * linker.encode_texts(words)).sum(1).min() > 0.999
    assert read_info(lender)["numbers"] > 0


def test_an_encoder_is_stored_once(linker, lender, images, tmp_path):
    borrower = linker.save_pretrained(tmp_path / "borrower", compact=True, encoder_of=lender)
    names = load_file(borrower / "model.safetensors").keys()
    assert not [name for name in names if name.startswith("encoder.")]
    loaded = Linker.from_pretrained(borrower, "cpu")
    expected = Linker.from_pretrained(lender, "cpu").encode_images(images)
    assert np.array_equal(loaded.encode_images(images), expected)
    whole = checkpoint.load(lender).weights
    for directory in (lender, borrower):
        layers = build_encoder("small_cnn", str(directory)).state_dict()
        assert all(torch.equal(value, whole[f"encoder.{key}"]) for key, value in layers.items())


def test_a_copy_of_a_borrower_has_its_own_encoder(linker, lender, images, tmp_path):
    borrower = linker.save_pretrained(tmp_path / "borrower", compact=True, encoder_of=lender)
    loaded = Linker.from_pretrained(borrower, "cpu")
    for number, is_compact in enumerate((True, False)):
        copy = loaded.save_pretrained(tmp_path / "elsewhere" / str(number), compact=is_compact)
        again = Linker.from_pretrained(copy, "cpu")
        assert np.allclose(again.encode_images(images), loaded.encode_images(images), atol=1e-5)
        layers = build_encoder("small_cnn", str(copy)).state_dict()
        expected = loaded.model.encoder.state_dict()
        assert all(torch.allclose(value, expected[key]) for key, value in layers.items())
    second = loaded.save_pretrained(tmp_path / "second", compact=True, encoder_of=lender)
    assert "The encoder is in `lender`" in (second / "README.md").read_text()


def test_compact_files_can_be_read_by_others(lender):
    modes = {file.stat().st_mode & 0o777 for file in lender.iterdir()}
    assert len(modes) == 1


def test_a_lender_that_is_missing_or_has_changed(linker, lender, tmp_path):
    borrower = linker.save_pretrained(tmp_path / "borrower", compact=True, encoder_of=lender)
    moved = shutil.move(lender, tmp_path / "moved")
    with pytest.raises(InputError, match=r"is incomplete: its encoder is in .*lender, which is mi"):
        checkpoint.load(borrower)
    linker.save_pretrained(lender, compact=True)
    checkpoint.load(borrower)  # the same weights
    shutil.rmtree(lender)
    other = checkpoint.load(moved)
    weights = {key: value + (value.dtype == torch.float32) for key, value in other.weights.items()}
    checkpoint.save(lender, other.config, lambda _: None, weights, None, compact=True)
    with pytest.raises(InputError, match=r"lender, which contains its encoder, has other weights"):
        checkpoint.load(borrower)
    config = json.loads((borrower / "config.json").read_text())
    for wrong in ("lender", {"name": 3, "weights": "0"}, {}):
        (borrower / "config.json").write_text(json.dumps(config | {"encoder_of": wrong}))
        sign(borrower)
        for load in (checkpoint.load, lambda path: build_encoder("small_cnn", str(path))):
            with pytest.raises(InputError, match=r"encoder_of in config.json does not name a che"):
                load(borrower)


def test_what_cannot_lend_its_encoder(linker, lender, tmp_path):
    def save(encoder_of, compact=True):
        linker.save_pretrained(tmp_path / "new", compact=compact, encoder_of=encoder_of)

    with pytest.raises(InputError, match="encoder_of needs compact=True"):
        save(lender, compact=False)
    with pytest.raises(InputError, match="it is not in the same directory as"):
        save(shutil.copytree(lender, tmp_path / "elsewhere" / "lender"))
    with pytest.raises(InputError, match="is not a compact checkpoint with an encoder of its"):
        save(linker.save_pretrained(tmp_path / "whole"))
    borrower = linker.save_pretrained(tmp_path / "borrower", compact=True, encoder_of=lender)
    with pytest.raises(InputError, match="is not a compact checkpoint with an encoder of its"):
        save(borrower)
    with torch.no_grad():
        next(iter(linker.model.encoder.parameters())).mul_(1.1)
    with pytest.raises(InputError, match="the weights of its encoder are others"):
        save(lender)
    config = json.loads((lender / "config.json").read_text())
    config["encoder"]["encoder"] = "alexnet"
    (lender / "config.json").write_text(json.dumps(config))
    sign(lender)
    with pytest.raises(InputError, match="its encoder is alexnet, not small_cnn"):
        save(lender)
    assert not (tmp_path / "new").exists()
    bare = Linker(linker.model, linker.texts, linker.transform)
    with pytest.raises(InputError, match="a model without a config cannot be saved"):
        bare.save_pretrained(tmp_path / "new")
    bare = Linker(linker.model, linker.texts, linker.transform, config={"task": "spatial"})
    with pytest.raises(InputError, match="it lacks task, encoder or data"):
        bare.save_pretrained(tmp_path / "new")


def test_a_linear_map_is_saved(tmp_path, tmp_path_factory):
    linker = Linker.from_pretrained(linking.run(tmp_path_factory), "cpu")
    saved = linker.save_pretrained(tmp_path / "saved", compact=True)
    again = Linker.from_pretrained(saved, "cpu")
    images = sorted((tiny.data(tmp_path_factory) / "val").iterdir())
    assert (again.encode_images(images) * linker.encode_images(images)).sum(1).min() > 0.99
    assert (
        "captioner index photos --output photos.index --checkpoint saved"
        in (saved / "README.md").read_text()
    )
