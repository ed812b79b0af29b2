"""Shared models: saving, model cards, upload to and download from the hub."""

import json
import shutil
import socket
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import evaluate
import train
from captioner import Captioner, DecodingOptions, InputError, Linker
from captioner.__main__ import main
from captioner.checkpoints import checkpoint
from captioner.checkpoints.checkpoint import load
from captioner.checkpoints.hub import push
from captioner.checkpoints.linking_card import linking_card
from captioner.checkpoints.model_card import guess_language, model_card
from captioner.devices import RuntimeOptions
from captioner.inference.batch_caption import CaptionOptions, caption_images
from captioner.metrics.captions import SCORES
from tests.support import loopback_hub, spatial, tiny

SHARED = {"config.json", "vocabulary.json", "model.safetensors", "manifest.json"}


@pytest.fixture
def run(tmp_path_factory):
    return tiny.run(tmp_path_factory, attention=True)


@pytest.fixture
def captioner(run):
    return Captioner.from_pretrained(run, "cpu")


@pytest.fixture
def either(tmp_path_factory, attention):
    """A captioner of each of the two models in turn."""
    return Captioner.from_pretrained(tiny.run(tmp_path_factory, attention=attention), "cpu")


@pytest.fixture
def images(tmp_path_factory):
    return sorted((tiny.data(tmp_path_factory) / "val").glob("*.png"))


def test_the_hub_reads_the_metadata_of_the_card(captioner, tmp_path):
    hub = pytest.importorskip("huggingface_hub", reason="the extra hub is not installed")
    saved = captioner.save_pretrained(
        tmp_path / "new", license="mit", language="no", name="me/x: {y}"
    )
    card = hub.ModelCard.load(saved / "README.md", ignore_metadata_errors=False)
    assert card.data.license == "mit"
    assert card.data.language == "no"
    assert card.data.datasets == ["colours"]
    assert card.data.metrics == ["bleu", "rouge", "cider"]
    assert card.data.model_name == "me/x: {y}"
    found = {each.metric_name: each for each in card.data.eval_results}
    assert found.keys() == captioner.config["scores"].keys() & set(SCORES)
    for name, result in found.items():
        assert result.metric_value == pytest.approx(captioner.config["scores"][name], abs=0.005)
        assert result.dataset_split == "validation"
        assert result.task_type == "image-to-text"


HOSTILE = 'x`\n---\n# <b>[a](b)</b> | \u2028``` "'


def test_names_on_the_card_cannot_add_markup(captioner):
    config = json.loads(json.dumps(captioner.config))
    config["data"] |= {"name": HOSTILE, "format": HOSTILE, "min_count": HOSTILE}
    config["encoder"] |= {"encoder": HOSTILE, "encoder_weights": HOSTILE}
    config["signature"] = HOSTILE
    counts = {"language": "en", "words": 1, "parameters": 1}
    card = model_card(config, HOSTILE, "mit", **counts)
    plain = model_card(captioner.config, "x", "mit", **counts)
    assert card.count("\n") == plain.count("\n")
    assert len(card.splitlines()) == len(plain.splitlines())  # no other line separators either
    assert [line for line in card.splitlines() if line.startswith(("#", "---", "```"))][1:] == [
        line if line != "# x" else r"# x\`?---?# \<b\>\[a\](b)\</b\> \| ?\`\`\` " + '"'
        for line in plain.splitlines()
        if line.startswith(("#", "---", "```"))
    ][1:]
    flat = HOSTILE.replace("\n", "?").replace("\u2028", "?")
    assert f"Signature of the scores: ```` {flat} ````\n" in card
    in_table = flat.replace("|", r"\|")
    assert f"| Encoder | ```` {in_table} ````, " in card


def test_the_card_says_where_the_vocabulary_comes_from(captioner):
    def described(min_count, start_from):
        config = {**captioner.config, "start_from": start_from}
        config["data"] = {**config["data"], "min_count": min_count}
        card = model_card(config, "x", "mit", language="en", words=1, parameters=1)
        return card.partition("Its vocabulary ")[2].partition(". ")[0]

    assert described(1, None).endswith("that occur at least once in the training captions")
    assert described(5, None).endswith("that occur at least 5 times in the training captions")
    assert described(5, "base") == "is that of the model from whose weights training started"


def test_the_language_is_named_if_the_vocabulary_is_english():
    assert guess_language(["a", "man", "on", "the", "of", "in", "horse"]) == "en"
    assert guess_language(["a", "o", "in", "un", "the"]) is None


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The real huggingface_hub, with a server on loopback and an empty cache."""
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


def results(captioner, images):
    return [(each.text, each.log_probs) for each in captioner.caption(images)]


# ---- a directory --------------------------------------------------------------------------------


def test_a_saved_model_gives_the_same_captions(either, images, tmp_path):
    directory = either.save_pretrained(tmp_path / "new" / "colours")
    assert {path.name for path in directory.iterdir()} == SHARED | {"README.md"}
    assert results(Captioner.from_pretrained(directory, "cpu"), images) == results(either, images)
    again = Captioner.from_pretrained(directory, "cpu").save_pretrained(tmp_path / "again")
    assert {path.name: path.read_bytes() for path in again.iterdir()} == {
        path.name: path.read_bytes()
        .replace(b"# colours\n", b"# again\n")
        .replace(b'("colours")', b'("again")')
        .replace(b'- name: "colours"', b'- name: "again"')
        .replace(b"--checkpoint colours", b"--checkpoint again")
        for path in directory.iterdir()
    }


def test_a_saved_model_contains_no_local_paths(captioner, run, tmp_path):
    assert Path(load(run).config["data"]["path"]).is_absolute()
    directory = captioner.save_pretrained(tmp_path / "new")
    for name in ("config.json", "README.md"):
        assert str(tmp_path.parents[2]) not in (directory / name).read_text()
    assert load(directory).config["data"]["path"] == "colours"


def test_a_saved_model_cannot_be_resumed(captioner, tmp_path):
    checkpoint = load(captioner.save_pretrained(tmp_path / "new"))
    with pytest.raises(InputError, match=r"it has no training state; .* with --start-from"):
        checkpoint.training_state()


def test_models_that_cannot_be_saved(captioner, run, tmp_path):
    (tmp_path / "notes").write_text("keep")
    with pytest.raises(InputError, match="; choose another directory"):
        captioner.save_pretrained(tmp_path)
    both = Captioner.from_pretrained([run, run], "cpu")
    with pytest.raises(InputError, match="an ensemble cannot be saved"):
        both.save_pretrained(tmp_path / "new")
    with pytest.raises(InputError, match="language must be an ISO 639 code"):
        captioner.save_pretrained(tmp_path / "new", language="English: y")
    with pytest.raises(InputError, match=r"license must be .*, got 'MIT\\nx: y'"):
        captioner.save_pretrained(tmp_path / "new", license="MIT\nx: y")
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


def test_the_model_card(either, tmp_path, attention):
    config = either.config
    directory = either.save_pretrained(tmp_path / "new", license="apache-2.0", name="me/colours")
    card = (directory / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\nlibrary_name: captioner\n")
    assert "language" not in card  # the captions contain too few common words
    assert 'Captioner.from_pretrained("me/colours")' in card
    assert ("where it looked" in card) == attention
    assert f"| {config['scores']['BLEU-1']:.1f} |" in card
    assert f"`{config['signature']}`" in card
    assert "the epoch with the best CIDEr" in card
    assert "|references:2|" in config["signature"]
    assert "CIDEr" in config["signature"]
    assert "`colours` (layout `coco`)" in card
    assert config["data"]["fingerprint"] in card
    assert f"| Vocabulary | {len(either.vocabulary.words)} words |" in card
    assert f"beam size 3 and length penalty {DecodingOptions().penalty}" in card
    assert "arxiv.org/abs/1411.4555" in card
    assert "arxiv.org/abs/1502.03044" in card
    assert "None" not in card
    assert "{" not in card
    assert "captioner caption photo.jpg" in card


# ---- the hub ------------------------------------------------------------------------------------


def test_pushing_and_downloading(captioner, images, hub):
    url = captioner.push_to_hub("me/colours", token=loopback_hub.TOKEN, license="mit")
    assert url == f"{hub.url}/me/colours"
    (created,) = hub.created
    assert created.get("visibility", created.get("private")) in ("private", True)
    files = hub.repositories["me/colours"]["main"]
    assert files.keys() == SHARED | {"README.md"}
    assert b'from_pretrained("me/colours")' in files["README.md"]
    files["evil.py"] = files["training_state.pt"] = b"never downloaded"
    downloaded = Captioner.from_pretrained("me/colours", "cpu")
    assert results(downloaded, images) == results(captioner, images)
    assert set(hub.fetched) == SHARED


def test_a_revision(captioner, hub):
    captioner.push_to_hub("me/colours", token=loopback_hub.TOKEN, private=False)
    revisions = hub.repositories["me/colours"]
    revisions["v1"], revisions["main"] = revisions["main"], {}
    assert Captioner.from_pretrained("me/colours", "cpu", revision="v1").vocabulary.words
    message = "me/colours is not a local directory, and repository me/colours at v2 .*evision"
    with pytest.raises(InputError, match=message):
        Captioner.from_pretrained("me/colours", "cpu", revision="v2")


def test_a_file_changed_during_transfer_is_refused(captioner, hub):
    captioner.push_to_hub("me/colours", token=loopback_hub.TOKEN)
    hub.repositories["me/colours"]["main"]["vocabulary.json"] += b" "
    with pytest.raises(InputError, match=r"damaged: vocabulary.json does not match its checksum"):
        Captioner.from_pretrained("me/colours", "cpu")


@pytest.mark.usefixtures("hub")
def test_commands_download_from_the_hub(captioner, images, capsys):
    captioner.push_to_hub("me/colours", token=loopback_hub.TOKEN)
    options, runtime = CaptionOptions(checkpoint=(Path("me/colours"),)), RuntimeOptions("cpu")
    caption_images([str(images[0])], options, DecodingOptions(), runtime)
    assert capsys.readouterr().out.endswith(f"{captioner.caption(images[0]).text}\n")
    to_file = replace(options, output=Path("captions.jsonl"))
    caption_images([str(images[0])], to_file, DecodingOptions(), runtime)
    main(["info", "me/colours"])
    text = capsys.readouterr().out
    assert "  files     model.safetensors " in text
    assert "training_state" not in text


@pytest.mark.parametrize("command", [evaluate.main, lambda words: main(["report", *words[1:]])])
@pytest.mark.slow
@pytest.mark.usefixtures("hub")
def test_evaluation_downloads_from_the_hub(command, captioner, images, capsys):
    captioner.push_to_hub("me/colours", token=loopback_hub.TOKEN)
    words = ["--checkpoint", "me/colours", "--data", str(images[0].parents[1]), "--device", "cpu"]
    with pytest.raises(
        InputError, match=r"a checkpoint from the hub has no run directory; pass --output"
    ):
        command(words)
    command([*words, "--metrics", "bleu", "--output", "scores"])
    assert "captions and scores: scores\n" in capsys.readouterr().out
    assert len(json.loads(Path("scores/captions.json").read_text())) == len(images)


@pytest.mark.slow
@pytest.mark.usefixtures("hub")
def test_training_starts_from_a_model_on_the_hub(captioner, images):
    captioner.push_to_hub("me/colours", token=loopback_hub.TOKEN)
    sizes = "--image-size 32 --hidden-size 64 --embedding-size 64 --epochs 1 --batch-size 8"
    words = ["--attention", "--data", str(images[0].parents[1]), *tiny.PLAIN.split()]
    train.main([*words, *sizes.split(), "--start-from", "me/colours", "--run", "further"])
    assert load(Path("checkpoints/further")).config["start_from"] == "me/colours"


@pytest.mark.usefixtures("hub")
def test_neither_a_directory_nor_a_repository():
    message = "me/nothing is not a local directory, and repository me/nothing cannot be downloaded"
    with pytest.raises(InputError, match=message):
        Captioner.from_pretrained("me/nothing")


@pytest.mark.usefixtures("hub")
def test_pushing_with_an_invalid_token(captioner):
    with pytest.raises(InputError, match=r"cannot be uploaded to me/colours on the .* hub: .*401"):
        captioner.push_to_hub("me/colours", token="hf_wrong")


@pytest.mark.parametrize(
    "address",
    [
        "https://huggingface.co/me/colours",
        "https://huggingface.co/me/colours/",
        "https://huggingface.co/me/colours/tree/main",
        "https://huggingface.co/me/colours/blob/main/config.json",
        "https://huggingface.co/me/colours?library=captioner",
        "http://www.huggingface.co/me/colours",
        "huggingface.co/me/colours",
        "https://hf.co/me/colours",
        Path("https://huggingface.co/me/colours"),
    ],
)
def test_the_address_of_a_repository(address, captioner, hub):
    captioner.push_to_hub("https://huggingface.co/me/colours", token=loopback_hub.TOKEN)
    assert hub.repositories.keys() == {"me/colours"}
    assert Captioner.from_pretrained(address, "cpu").vocabulary.words


def test_the_revision_in_an_address(captioner, hub):
    captioner.push_to_hub("me/colours", token=loopback_hub.TOKEN)
    revisions = hub.repositories["me/colours"]
    revisions["v1"], revisions["main"] = revisions["main"], {}
    address = "https://huggingface.co/me/colours/tree/v1"
    assert Captioner.from_pretrained(address, "cpu").vocabulary.words
    with pytest.raises(InputError, match="repository me/colours at v2 cannot be downloaded"):
        Captioner.from_pretrained(address, "cpu", revision="v2")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("https://example.org/me/colours", r"is not the address of a model .*; download the check"),
        ("https://huggingface.co/me", "is not the address of a model"),
        ("https://huggingface.co/datasets/me/colours", "is not the address of a model; pass"),
    ],
)
def test_other_addresses(address, message, captioner):
    with pytest.raises(InputError, match=message):
        Captioner.from_pretrained(address)
    with pytest.raises(InputError, match=message):
        captioner.push_to_hub(address)


@pytest.mark.usefixtures("hub")
def test_a_hub_out_of_reach(captioner, monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    with pytest.raises(InputError, match=r"cannot be uploaded to me/colours .*refused; check the"):
        captioner.push_to_hub("me/colours", token=loopback_hub.TOKEN)
    with pytest.raises(InputError, match=r"^me/colours is not a local .* cannot be downloaded"):
        Captioner.from_pretrained("me/colours")


@pytest.mark.usefixtures("hub")
def test_paths_are_never_looked_up_on_the_hub(tmp_path):
    (tmp_path / "runs").mkdir()
    for path in ("runs/typo", "checkpoints/typo", "typo", tmp_path / "typo"):
        with pytest.raises(InputError, match="does not exist"):
            Captioner.from_pretrained(path)
    with pytest.raises(
        InputError,
        match="revision applies only to repositories on the hub, but runs is a local path",
    ):
        Captioner.from_pretrained("runs", revision="main")


def test_without_the_extra(captioner, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    message = (
        r"me/colours is not a local directory, and .* needs huggingface_hub; .*'captioner\[hub\]'"
    )
    with pytest.raises(InputError, match=message):
        Captioner.from_pretrained("me/colours")
    with pytest.raises(InputError, match="push_to_hub needs huggingface_hub"):
        captioner.push_to_hub("me/colours")


@pytest.mark.slow
@pytest.mark.usefixtures("hub")
def test_a_linking_model_is_downloaded(tmp_path, tmp_path_factory):
    linker = Linker.from_pretrained(spatial.run(tmp_path_factory), "cpu")
    saved = linker.save_pretrained(tmp_path / "words", name="me/words")
    push(saved, "me/words", private=True, token=loopback_hub.TOKEN, revision=None)
    shutil.rmtree(saved)
    loaded = Linker.from_pretrained("me/words", "cpu")
    words = linker.known_labels.names
    assert loaded.known_labels == linker.known_labels
    assert np.array_equal(loaded.encode_texts(words), linker.encode_texts(words))


def test_names_on_the_card_of_a_linking_model_cannot_add_markup(tmp_path_factory):
    config = checkpoint.load(spatial.run(tmp_path_factory)).config
    config["data"] |= {"name": HOSTILE, "format": HOSTILE}
    config["encoder"] |= {"encoder": HOSTILE, "encoder_weights": HOSTILE}
    config |= {"signature": HOSTILE, "scores": {HOSTILE: 1.0}}
    card, plain = (linking_card(config, name, "mit") for name in (HOSTILE, "x"))
    assert len(card.splitlines()) == len(plain.splitlines())
    assert "\n# <b>" not in card
    rows = [[row for row in text.splitlines() if row.startswith("|")] for text in (card, plain)]
    borders = [[row.count("|") - row.count("\\|") for row in each] for each in rows]
    assert borders[0] == borders[1]
