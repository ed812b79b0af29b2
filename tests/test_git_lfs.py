"""Git LFS pointers: every reader of files says what they are."""

import shutil

import pytest
from PIL import Image

from captioner import InputError
from captioner.checkpoints import checkpoint
from captioner.data.caption_files import read_caption_file
from captioner.data.images import load_image, read_image
from captioner.data.readers import load_data
from captioner.data.storage.files import parse_location
from captioner.option_files import read_toml
from captioner.text.given_rows import open_rows
from captioner.text.sentence_vectors import read_word_vectors
from captioner.text.vocabulary import Vocabulary
from captioner.text.word_vectors import read_vectors
from captioner.vision.store_files import KEYS, ROWS, read_segments
from tests.support import loopback_files, tiny
from tests.support.layouts import write_tar
from tests.support.pointers import POINTER

POINTS = "is a Git LFS pointer, not the file itself; run git lfs pull in its repository"


@pytest.fixture
def pointer(tmp_path):
    """Write a pointer under a name, and return its path."""

    def write(name):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(POINTER)
        return path

    return write


def refused(name):
    return pytest.raises(InputError, match=rf"{name}'? {POINTS}")


def test_images(pointer, tmp_path):
    with refused("a.jpg"):
        load_image(pointer("a.jpg"))
    with refused("the file"):
        read_image(POINTER)
    write_tar(tmp_path / "x.tar", [("a.jpg", POINTER)])
    with refused("x.tar/a.jpg"):
        load_image(tmp_path / "x.tar" / "a.jpg")


@pytest.mark.parametrize(
    "name",
    [
        *("captions.csv", "captions.tsv", "captions.jsonl", "captions.txt", "results.csv"),
        *("metadata.jsonl", "annotations/captions_train2017.json", "dataset_flickr8k.json"),
    ],
)
def test_data(pointer, tmp_path, name):
    pointer(f"set/{name}")
    for directory in ("Images", "train2017"):
        (tmp_path / "set" / directory).mkdir()
    with refused(name):
        load_data(tmp_path / "set", None, tmp_path)


def test_captions_of_an_image(pointer, tmp_path):
    """One pointer among the texts of a directory is an error, not a caption."""
    for name in ("a", "b"):
        Image.new("RGB", (8, 8)).save(pointer(f"set/{name}.txt").with_suffix(".png"))
    (tmp_path / "set" / "a.txt").write_text("a red ball\n")
    with refused("b.txt"):
        load_data(tmp_path / "set", None, tmp_path)


@pytest.mark.parametrize("name", ["captions.json", "captions.jsonl", "captions.csv"])
def test_caption_files(pointer, name):
    with refused(name):
        read_caption_file(pointer(name))


def test_tar_files(pointer, tmp_path):
    with refused("train.tar"):
        load_data(pointer("set/train.tar").parent, None, tmp_path)


def test_tar_files_on_a_server(tmp_path):
    pytest.importorskip("webdataset", reason="the extra webdataset is not installed")
    with loopback_files.running() as server, refused("train.tar"):
        server.files["train.tar"] = POINTER
        load_data(parse_location(f"{server.url}/train.tar"), None, tmp_path)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "training_state.pt", "vocabulary.json", "manifest.json"]
)
def test_checkpoints(tmp_path_factory, tmp_path, name):
    found = checkpoint.find(tiny.run(tmp_path_factory, attention=False))
    shutil.copytree(found, tmp_path / "run")
    (tmp_path / "run" / name).write_bytes(POINTER)
    with refused(name):
        checkpoint.load(tmp_path / "run")


def test_other_files(pointer):
    with refused("options.toml"):
        read_toml(pointer("options.toml"))
    with refused("vectors.txt"):
        read_word_vectors(pointer("vectors.txt"), ["a dog"], 1, weighted=False)
    with refused("vocabulary.json"):
        Vocabulary.load(pointer("vocabulary.json"))


def test_sentence_encoders(pointer):
    pytest.importorskip("tokenizers", reason="the extra text is not installed")
    from captioner.text.transformer import read_transformer

    names = ("config.json", "model.safetensors", "tokenizer.json")
    for name in names:
        directory = pointer(f"{name}/{name}").parent
        for other in {*names} - {name}:
            (directory / other).write_text("{}")
        with refused(name):
            read_transformer(directory)


def test_stored_features_are_computed_again(pointer, tmp_path):
    """A store is a cache, so that a pointer in it is like any damaged segment."""
    for ending in (KEYS, ROWS):
        pointer(f"maps-000000{ending}")
    assert list(read_segments(tmp_path, "maps")) == []


def test_vectors(pointer):
    with refused("rows.npy"):
        open_rows(pointer("rows.npy"))
    with refused("vectors.bin"):
        read_vectors(pointer("vectors.bin"), {"dog"})
    with refused("vectors.txt.gz"):
        read_vectors(pointer("vectors.txt.gz"), {"dog"})
