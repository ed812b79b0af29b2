"""The order of checks: user mistakes are reported before any image is opened."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import evaluate
import train
from captioner.data.dataset import CaptionData, Example, fingerprint
from captioner.errors import InputError
from captioner.training.config import TrainConfig
from captioner.training.run import run_training
from captioner.training.setup import demo_note, photograph_warning
from captioner.vision.encoders import SmallCNN, check_encoder
from captioner.vision.options import EncoderOptions
from tests.support import tiny


@pytest.fixture
def unreadable(tmp_path, tmp_path_factory, monkeypatch):
    """A data set in which no image can be decoded, next to the working directory."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny.data(tmp_path_factory), "data")
    for image in Path("data").rglob("*.png"):
        image.write_bytes(b"no image")
    torch.save(SmallCNN().state_dict(), "small.pth")
    Path("damaged.pth").write_bytes(b"no weights")
    return Path("data")


MISTAKES = [
    ({"encoder": "resnet5"}, "unknown encoder 'resnet5'"),
    ({"encoder": "vit_b_16"}, "encoder 'vit_b_16' does not return a square feature map"),
    ({"fine_tune_encoder": 9}, "--fine-tune-encoder must be a stage of small_cnn"),
    ({"encoder_weights": "gone.pth"}, "encoder weights gone.pth do not exist"),
    ({"encoder_weights": "damaged.pth"}, "encoder weights damaged.pth cannot be read"),
    ({"encoder_weights": "DEFAULT"}, "encoder weights 'DEFAULT' are neither a file nor a run, and"),
    ({"encoder": "squeezenet1_1", "encoder_weights": "small.pth"}, "do not fit squeezenet1_1"),
    ({"device": "abacus"}, "device must be cpu, cuda"),
    ({"device": "cuda:99"}, "device 'cuda:99' cannot be used"),
    ({"start_from": "gone"}, "checkpoint gone does not exist"),
    ({"teachers": ["gone"]}, "checkpoint gone does not exist"),
    (
        {"run": "new", "resume": True},
        "checkpoints/new cannot be resumed: it has no checkpoint; pass --run NAME to resume "
        "another run, or --resume auto to start this one",
    ),
    ({"attention_size": 9}, "--attention-size needs --attention"),
]


@pytest.mark.parametrize(("options", "message"), MISTAKES)
def test_mistakes_show_before_images_are_opened(unreadable, options, message):
    with pytest.raises(InputError, match=message):
        run_training(TrainConfig.from_options(data=unreadable, workers=0, **options))
    assert not Path("checkpoints").exists()


@pytest.mark.parametrize(
    ("suffix", "options", "warns"),
    [
        (".jpg", {}, True),
        (".JPEG", {}, True),
        (".png", {}, False),
        (".jpg", {"encoder": "mobilenet_v2"}, False),
        (".jpg", {"encoder_weights": "small.pth"}, False),
    ],
)
def test_photographs_need_another_encoder_than_the_small_one(suffix, options, warns):
    config = TrainConfig.from_options(data="photos", **options)
    paths = [Path(f"{i}{suffix}") for i in range(8)] + [Path("a.png")]
    examples = [Example(i, path, ("a dog",), "train") for i, path in enumerate(paths)]
    warning = photograph_warning(config, CaptionData("photos", Path(), "csv", examples))
    assert (warning is not None) == warns
    if warns:
        words = warning.partition("add ")[2].split()[:4]
        words[-1] = words[-1].rstrip(",")
        assert TrainConfig.from_options(data="photos", **parse_train(words)) is not None


def parse_train(words):
    """The options of a command line of train.py, by name."""
    flags, values = words[::2], words[1::2]
    return {k[2:].replace("-", "_"): v for k, v in zip(flags, values, strict=True)}


def test_the_demo_is_not_a_set_of_photographs():
    examples = [Example(0, Path("a.jpg"), ("a dog",), "train")]
    assert photograph_warning(TrainConfig(), CaptionData("demo", Path(), "demo", examples)) is None


@pytest.mark.parametrize(
    ("trained_on", "caption", "options", "noted"),
    [
        ("/photos", "a dog", {}, "not that of old (/photos)"),
        ("old", "a dog", {}, "not that of old"),
        ("/photos", "a dog", {"data": "photos"}, None),
        ("/copy/of/the/demo", "a red circle", {}, None),
        (None, "a dog", {}, None),
    ],
)
def test_starting_from_a_run_on_other_data_than_the_demo_is_noted(
    trained_on, caption, options, noted
):
    config = TrainConfig.from_options(start_from="old", **options)
    before, now = (
        CaptionData("demo", Path(), "coco", [Example(0, Path("a.png"), (text,), "train")])
        for text in (caption, "a red circle")
    )
    described = {"path": trained_on, "fingerprint": fingerprint(before)}
    note = demo_note(config, now, SimpleNamespace(config={"data": described}))
    begin = "note: without --data, training uses the demo data, "
    assert note == (None if noted is None else begin + noted)


def test_an_unsuitable_teacher_shows_before_images_are_opened(unreadable, tmp_path_factory):
    run = tiny.run(tmp_path_factory, attention=False)
    options = {"data": unreadable, "workers": 0, "teachers": [run]}
    with pytest.raises(InputError, match=r"teacher .* transforms images with Transform\(size=32"):
        run_training(TrainConfig.from_options(**options, image_size=64))
    with pytest.raises(InputError, match="not an image in any of"):
        run_training(TrainConfig.from_options(**options, image_size=32))


def test_an_unwritable_cache_shows_before_images_are_opened(unreadable, monkeypatch):
    Path("cache").touch()
    monkeypatch.setattr("captioner.data.images.load_image", None)
    with pytest.raises(InputError, match="the cache in cache cannot be written: "):
        run_training(TrainConfig.from_options(data=unreadable, workers=0, cache="cache"))


def test_the_images_are_opened_without_a_mistake(unreadable):
    with pytest.raises(InputError, match="not an image in any of"):
        run_training(TrainConfig.from_options(data=unreadable, workers=0))


@pytest.mark.parametrize("options", [["--encoder", "resnet5"], ["--encoder-weights", "gone.pth"]])
def test_mistakes_show_before_the_demo_is_drawn(tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="encoder"):
        train.main(options)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_device_shows_before_images_are_evaluated(unreadable, tmp_path_factory):
    run = str(tiny.run(tmp_path_factory, attention=False))
    argv = ["--checkpoint", run, "--data", str(unreadable), "--workers", "0", "--output", "out"]
    with pytest.raises(InputError, match="device must be cpu, cuda"):
        evaluate.main([*argv, "--device", "abacus"])
    with pytest.raises(InputError, match="not an image in any of"):
        evaluate.main(argv)
    assert not Path("out").exists()


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_checking_an_encoder_draws_no_random_numbers(tmp_path, suffix):
    from safetensors.torch import save_file

    weights = SmallCNN().state_dict()
    file = tmp_path / f"small.{suffix}"
    torch.save(weights, file) if suffix == "pth" else save_file(weights, file)
    before = torch.get_rng_state()
    check_encoder(EncoderOptions())
    check_encoder(EncoderOptions(encoder="resnet18"))
    check_encoder(EncoderOptions(encoder_weights=str(file)))
    assert torch.equal(torch.get_rng_state(), before)
    del weights["0.0.weight"]
    torch.save(weights, file) if suffix == "pth" else save_file(weights, file)
    with pytest.raises(InputError, match=r"0\.0\.weight is missing"):
        check_encoder(EncoderOptions(encoder_weights=str(file)))
