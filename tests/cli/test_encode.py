"""`captioner encode`: rows and their list, unusable inputs, and what it does not overwrite."""

import io
import json
import os
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from captioner import Linker
from captioner import __main__ as commands
from captioner.errors import InputError
from captioner.inference import encode as module
from tests.support import linking, tiny


@pytest.fixture
def run(tmp_path_factory):
    return linking.run(tmp_path_factory)


@pytest.fixture
def linker(run):
    return Linker.from_pretrained(run, "cpu")


@pytest.fixture(autouse=True)
def images(tmp_path, tmp_path_factory, monkeypatch):
    """The val images of the colours, in the directory `images` of the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("images").symlink_to(tiny.data(tmp_path_factory) / "val")
    return [f"images/{path.name}" for path in sorted(Path("images").iterdir())]


def call(run, line, *words):
    argv = [*shlex.split(line), *words, "--checkpoint", str(run), "--device", "cpu"]
    commands.main(["encode", *argv])


def read(name):
    rows = np.load(f"{name}.npy")
    assert rows.dtype == np.float32
    names = Path(f"{name}.txt").read_text().splitlines()
    assert len(rows) == len(names)
    return rows, names


@pytest.mark.parametrize("batch_size", [1, 3, 64])
@pytest.mark.parametrize("workers", [0, 2])
def test_images_in_order(run, linker, images, batch_size, workers, capsys):
    options = f"--batch-size {batch_size} --workers {workers} --output out/a.npy"
    call(run, f"--images images/103.png images 'images/10[0-1].png' {options}")
    rows, names = read("out/a")
    assert names == [images[3], *images[:3], *images[4:]]  # each once
    np.testing.assert_allclose(rows, linker.encode_images(names), atol=1e-5)
    assert capsys.readouterr().out == (
        f"embeddings: out/a.npy, 7 rows of {rows.shape[1]} values\nimages: out/a.txt\n"
    )
    assert {path.name for path in Path("out").iterdir()} == {"a.npy", "a.txt"}


def test_a_list_on_standard_input(run, linker, images, monkeypatch):
    stdin = SimpleNamespace(buffer=io.BytesIO("\n".join(images[::-1]).encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    call(run, "--images - --output a.npy")
    rows, names = read("a")
    assert names == images[::-1]
    np.testing.assert_allclose(rows, linker.encode_images(names), atol=1e-5)


def test_texts_on_standard_input(run, linker, monkeypatch):
    stdin = SimpleNamespace(buffer=io.BytesIO(b"red and nothing else\r\n\n  blue \n"))
    monkeypatch.setattr(sys, "stdin", stdin)
    call(run, "--texts white - --output a.npy")
    rows, names = read("a")
    assert names == ["white", "red and nothing else", "blue"]
    np.testing.assert_allclose(rows, linker.encode_texts(names), atol=1e-5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n \n", "^standard input contains no texts; write one per line$"),
        (b"red\n\xff\n", "^standard input, line 2: the caption .* is not UTF-8; correct it$"),
    ],
)
def test_invalid_standard_input(run, monkeypatch, content, message):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))
    with pytest.raises(InputError, match=message):
        call(run, "--texts - --output a.npy")


def test_images_that_cannot_be_read_have_no_row(run, linker, images, capsys):
    Path("broken.png").write_bytes(b"no image")
    sources = f"{images[0]} broken.png {images[1]} gone.png"
    with pytest.raises(
        InputError, match=r"^2 of 4 images could not be encoded; see the errors above"
    ):
        call(run, f"--images {sources} --output a.npy --batch-size 2")
    rows, names = read("a")
    assert names == images[:2]
    np.testing.assert_allclose(rows, linker.encode_images(names), atol=1e-5)
    errors = capsys.readouterr().err
    assert "'broken.png': not an image in any of the formats" in errors
    assert "'gone.png': no such file" in errors

    before = Path("a.npy").read_bytes()
    with pytest.raises(InputError, match=r"^'broken.png': not an image"):
        call(run, f"--images {sources} --output a.npy --on-error stop")
    assert Path("a.npy").read_bytes() == before
    with pytest.raises(InputError, match=r"^nothing was written: no image could be encoded; see"):
        call(run, "--images broken.png --output b.npy")
    assert {path.name for path in Path().iterdir()} == {"a.npy", "a.txt", "broken.png", "images"}


def test_texts_and_files_in_order(run, linker, capsys):
    Path("lines.txt").write_text("red and\n\nblue  nothing\n")
    Path("rows.csv").write_text("caption\nwhite here\n")
    Path("rows.json").write_text(json.dumps([{"caption": ["black", "grey"]}]))
    call(run, "--texts 'red sees' lines.txt rows.csv green rows.json --output a.npy")
    rows, names = read("a")
    assert names == ["red sees", "red and", "blue nothing", "white here", "green", "black", "grey"]
    np.testing.assert_allclose(rows, linker.encode_texts(names), atol=1e-5)
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out == (f"embeddings: a.npy, 7 rows of {rows.shape[1]} values\ntexts: a.txt\n")


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_unknown_words_are_counted(run, linker, batch_size, capsys):
    texts = ["a red zebra", "blue", "zebra crossing", "a green zebra"]
    with pytest.raises(
        InputError, match=r"^1 of 4 texts could not be encoded; see the errors above"
    ):
        call(run, f"--output a.npy --batch-size {batch_size} --texts", *texts)
    rows, names = read("a")
    assert names == [texts[0], texts[1], texts[3]]
    np.testing.assert_allclose(rows, linker.encode_texts(["red", "blue", "green"]), atol=1e-5)
    assert capsys.readouterr().err == (
        "a text must contain at least one known word, got 'zebra crossing'\n"
        "note: 3 of 4 texts contain words that are unknown to the sentence encoder: "
        "'zebra' (3), 'a' (2), 'crossing' (1)\n"
    )
    with pytest.raises(
        InputError, match=r"^a text must contain at least one known word, got 'zebra cro"
    ):
        call(run, "--output b.npy --on-error stop --texts", *texts)
    assert not list(Path().glob("b.*"))


def test_rows_are_written_while_images_are_read(run, monkeypatch):
    """Memory does not depend on the number of images."""
    events, original, encode = [], Linker.stream_images, os.fsencode

    def stream(*arguments, **options):
        for row in original(*arguments, **options):
            events.append("read")
            yield row

    def listed(name):
        events.append("written")
        return encode(name)

    monkeypatch.setattr(Linker, "stream_images", stream)
    monkeypatch.setattr(module.os, "fsencode", listed)
    call(run, "--output a.npy --images images")
    assert events[-14:] == 7 * ["read", "written"]


def test_nothing_is_overwritten_by_the_list(run):
    Path("captions.txt").write_text("red\nblue\n")
    message = r"^captions\.txt already exists and would be overwritten by the list of rows; choose"
    with pytest.raises(InputError, match=message):
        call(run, "--images images --output captions.npy")
    Path("captions.npy").write_bytes(b"")
    message = r"^captions\.txt is an input and would be overwritten; choose another --output$"
    with pytest.raises(InputError, match=message):
        call(run, "--texts captions.txt --output captions.npy")
    assert Path("captions.txt").read_text() == "red\nblue\n"
    call(run, "--texts captions.txt --output rows.npy")
    call(run, "--texts green --output rows.npy")  # its own files are replaced
    assert read("rows")[1] == ["green"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--images empty --output a.npy", "no images found for 'empty'"),
        ("--images images --output a.txt", r"^--output must be a \.npy file, got a\.txt$"),
        (
            "--images images --output d.npy",
            r"^--output d\.npy is a directory; choose the name of a",
        ),
        ("--texts gone.csv --output a.npy", r"^gone\.csv does not exist or is not a file; check"),
        ("--texts blank.txt --output a.npy", r"^blank\.txt has no captions; choose another file$"),
        ("--texts '' --output a.npy", "^nothing was written: no text could be encoded; see"),
        ("--texts red --output a.npy --batch-size 0", "^batch_size must be at least 1, got 0$"),
        (
            "--texts red --output a.npy --checkpoint gone",
            "^checkpoint gone does not exist; check the path$",
        ),
        ("--texts red --output a.npy --device gpu", "^device must be cpu, cuda, cuda:N or mps"),
    ],
)
def test_mistakes_write_nothing(run, line, message):
    Path("empty").mkdir()
    Path("d.npy").mkdir()
    Path("blank.txt").write_text("\n")
    before = set(Path().iterdir())
    words = [] if "--checkpoint" in line else ["--checkpoint", str(run)]
    with pytest.raises(InputError, match=message):
        commands.main(["encode", *words, *shlex.split(line)])
    assert set(Path().iterdir()) == before


@pytest.mark.parametrize("line", ["", "--images a.png --texts red"])
def test_either_images_or_texts(run, line, capsys):
    with pytest.raises(SystemExit, match=r"2"):
        call(run, f"--output a.npy {line}")
    assert "--images" in capsys.readouterr().err


def test_a_captioner_has_no_embeddings(tmp_path_factory):
    captioning = tiny.run(tmp_path_factory, attention=False)
    with pytest.raises(InputError, match=r"was trained for 'captioning', not linking"):
        call(captioning, "--texts red --output a.npy")


def test_a_file_is_complete_or_absent(run, monkeypatch):
    """An error in the middle leaves neither of the two files."""
    monkeypatch.setattr(Linker, "embed", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        call(run, "--texts red --output a.npy")
    assert {path.name for path in Path().iterdir()} == {"images"}
