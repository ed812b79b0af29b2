"""A model that is shared is the same elsewhere, holds nothing else, and says what it is."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import evaluate
import train
from captioner import Captioner, DecodingOptions, InputError
from captioner.__main__ import main
from captioner.checkpoints.checkpoint import load
from captioner.cli import caption as caption_command
from captioner.devices import RuntimeOptions
from tests.support import loopback_hub, tiny

SHARED = {"config.json", "vocabulary.json", "model.safetensors", "manifest.json"}


@pytest.fixture
def run(tmp_path_factory):
    return tiny.run(tmp_path_factory, attention=True)


@pytest.fixture
def captioner(run):
    return Captioner.from_pretrained(run, "cpu")


@pytest.fixture
def either(tmp_path_factory, attention):
    """Tests that use this run once for each of the two models."""
    return Captioner.from_pretrained(tiny.run(tmp_path_factory, attention=attention), "cpu")


@pytest.fixture
def images(tmp_path_factory):
    return sorted((tiny.data(tmp_path_factory) / "val").glob("*.png"))


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """huggingface_hub as it is, but for whom it asks and where it keeps what it got."""
    reason = "the extra hub is not installed"
    constants = pytest.importorskip("huggingface_hub.constants", reason=reason)
    with loopback_hub.running() as hub:
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        files = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.chdir(tmp_path)
        yield hub


def say(captioner, images):
    return [(each.text, each.log_probs) for each in captioner.caption(images)]


# ---- a directory -----------------------------------------------------------------------------------


def test_a_saved_model_says_the_same(either, images, tmp_path):
    directory = either.save_pretrained(tmp_path / "new" / "colours")
    assert {path.name for path in directory.iterdir()} == SHARED | {"README.md"}
    assert say(Captioner.from_pretrained(directory, "cpu"), images) == say(either, images)
    again = Captioner.from_pretrained(directory, "cpu").save_pretrained(tmp_path / "again")
    assert {path.name: path.read_bytes() for path in again.iterdir()} == {
        path.name: path.read_bytes()
        .replace(b"colours\n\nWrites", b"again\n\nWrites")
        .replace(b'("colours")', b'("again")')
        .replace(b"--checkpoint colours", b"--checkpoint again")
        for path in directory.iterdir()
    }


def test_it_tells_nothing_of_the_machine(captioner, run, tmp_path):
    assert Path(load(run).config["data"]["path"]).is_absolute()
    directory = captioner.save_pretrained(tmp_path / "new")
    for name in ("config.json", "README.md"):
        assert str(tmp_path.parents[2]) not in (directory / name).read_text()
    assert load(directory).config["data"]["path"] == "colours"


def test_training_does_not_go_on_from_it(captioner, tmp_path):
    checkpoint = load(captioner.save_pretrained(tmp_path / "new"))
    with pytest.raises(InputError, match="without what training needs to go on; --start-from"):
        checkpoint.training_state()


def test_what_cannot_be_saved(captioner, run, tmp_path):
    with pytest.raises(InputError, match=f"{tmp_path} is there already; choose another directory"):
        (tmp_path / "mine").write_text("dear")
        captioner.save_pretrained(tmp_path)
    both = Captioner.from_pretrained([run, run], "cpu")
    with pytest.raises(InputError, match="only a model of one checkpoint can be saved"):
        both.save_pretrained(tmp_path / "new")
    with pytest.raises(InputError, match=r"license must be .*, got 'MIT\\nx: y'"):
        captioner.save_pretrained(tmp_path / "new", license="MIT\nx: y")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_the_card(either, tmp_path, attention):
    config = either.config
    directory = either.save_pretrained(tmp_path / "new", license="apache-2.0", name="me/colours")
    card = (directory / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\nlibrary_name: captioner\n")
    assert 'Captioner.from_pretrained("me/colours")' in card
    assert ("where it looked" in card) == attention
    assert f"| {config['scores']['BLEU-1']:.1f} |" in card and f"`{config['signature']}`" in card
    assert "|references:2|" in config["signature"] and "CIDEr" in config["signature"]
    assert "`colours` (read as `coco`)" in card and config["data"]["fingerprint"] in card
    assert f"| vocabulary | {len(either.vocabulary.words)} words |" in card
    assert f"3 hypotheses and a length penalty of {DecodingOptions().penalty}" in card
    assert "arxiv.org/abs/1411.4555" in card and "arxiv.org/abs/1502.03044" in card
    assert "None" not in card and "{" not in card


# ---- the hub ------------------------------------------------------------------------------------


def test_pushed_and_fetched(captioner, images, hub):
    url = captioner.push_to_hub("me/colours", token=loopback_hub.TOKEN, license="mit")
    assert url == f"{hub.url}/me/colours"
    (created,) = hub.created
    assert created.get("visibility", created.get("private")) in ("private", True)
    files = hub.repositories["me/colours"]["main"]
    assert files.keys() == SHARED | {"README.md"}
    assert b'from_pretrained("me/colours")' in files["README.md"]
    files["evil.py"] = files["training_state.pt"] = b"never fetched"
    there = Captioner.from_pretrained("me/colours", "cpu")
    assert say(there, images) == say(captioner, images)
    assert set(hub.fetched) == SHARED


def test_a_revision(captioner, hub):
    captioner.push_to_hub("me/colours", token=loopback_hub.TOKEN, private=False)
    revisions = hub.repositories["me/colours"]
    revisions["v1"], revisions["main"] = revisions["main"], {}
    assert Captioner.from_pretrained("me/colours", "cpu", revision="v1").vocabulary.words
    told = "neither a directory me/colours here nor a repository me/colours at v2 .*evision"
    with pytest.raises(InputError, match=told):
        Captioner.from_pretrained("me/colours", "cpu", revision="v2")


def test_what_was_changed_on_the_way_is_refused(captioner, hub):
    captioner.push_to_hub("me/colours", token=loopback_hub.TOKEN)
    hub.repositories["me/colours"]["main"]["vocabulary.json"] += b" "
    with pytest.raises(InputError, match=r"damaged: vocabulary.json is not what was written"):
        Captioner.from_pretrained("me/colours", "cpu")


def test_commands_fetch_as_well(captioner, hub, images, capsys):
    captioner.push_to_hub("me/colours", token=loopback_hub.TOKEN)
    cpu = RuntimeOptions(device="cpu")
    options = caption_command.CaptionOptions(checkpoint=(Path("me/colours"),))
    caption_command.caption_images([str(images[0])], options, DecodingOptions(), cpu)
    assert capsys.readouterr().out.endswith(f"{captioner.caption(images[0]).text}\n")
    into = replace(options, output=Path("captions.jsonl"))
    caption_command.caption_images([str(images[0])], into, DecodingOptions(), cpu)
    main(["info", "me/colours"])
    told = capsys.readouterr().out
    assert "  files     model.safetensors " in told and "training_state" not in told


@pytest.mark.parametrize("command", [evaluate.main, lambda words: main(["report", *words[1:]])])
def test_evaluating_fetches_as_well(command, captioner, hub, images, capsys):
    captioner.push_to_hub("me/colours", token=loopback_hub.TOKEN)
    words = ["--checkpoint", "me/colours", "--data", str(images[0].parents[1]), "--device", "cpu"]
    with pytest.raises(
        InputError, match=r"a model of the hub has no directory here; .* by --output"
    ):
        command(words)
    command([*words, "--metrics", "bleu", "--output", "scores"])
    assert "captions and scores: scores\n" in capsys.readouterr().out
    assert len(json.loads(Path("scores/captions.json").read_text())) == len(images)


def test_training_starts_from_it(captioner, hub, images):
    captioner.push_to_hub("me/colours", token=loopback_hub.TOKEN)
    sizes = "--image-size 32 --hidden-size 64 --embedding-size 64 --epochs 1 --batch-size 8"
    words = ["--attention", "--data", str(images[0].parents[1]), *tiny.PLAIN.split()]
    train.main([*words, *sizes.split(), "--start-from", "me/colours", "--run", "further"])
    assert load(Path("checkpoints/further")).config["start_from"] == "me/colours"


def test_neither_here_nor_there(hub):
    told = (
        "neither a directory me/nothing here nor a repository me/nothing that the Hugging Face hub"
    )
    with pytest.raises(InputError, match=told):
        Captioner.from_pretrained("me/nothing")


def test_refused(captioner, hub):
    with pytest.raises(InputError, match=r"me/colours cannot be pushed to the hub: .*401"):
        captioner.push_to_hub("me/colours", token="hf_wrong")


def test_paths_are_never_looked_for_on_the_hub(hub, tmp_path):
    (tmp_path / "runs").mkdir()
    for path in ("runs/typo", "checkpoints/typo", "typo", tmp_path / "typo"):
        with pytest.raises(InputError, match="does not exist"):
            Captioner.from_pretrained(path)
    with pytest.raises(InputError, match="a revision is of a repository on the hub, and runs is"):
        Captioner.from_pretrained("runs", revision="main")


def test_without_the_extra(captioner, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    told = r"me/colours is no directory here, and .* needs huggingface_hub; .*'captioner\[hub\]'"
    with pytest.raises(InputError, match=told):
        Captioner.from_pretrained("me/colours")
    with pytest.raises(InputError, match="push_to_hub needs huggingface_hub"):
        captioner.push_to_hub("me/colours")
