"""`captioner index`: what is embedded, what is left alone, what is reported, what a kill leaves."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captioner import Index, Linker
from captioner import __main__ as commands
from captioner.errors import InputError
from captioner.inference import indexing
from captioner.vision.feature_store import FeatureStore
from tests.support import linking, tiny
from tests.support.layouts import write_tar

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path_factory):
    return linking.run(tmp_path_factory)


@pytest.fixture
def photos(tmp_path, tmp_path_factory, monkeypatch):
    """Copies of the 7 val images in the directory photos of the working directory."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny.data(tmp_path_factory) / "val", "photos")
    return sorted(Path("photos").iterdir())


@pytest.fixture
def embedded(monkeypatch):
    """The names of the images whose features are computed, in order."""
    names, compute = [], FeatureStore._compute

    def count(self, images, keys, chunk, *rest):
        compute(self, images, keys, chunk, *rest)
        names.extend(Path(images.paths[i]).name for i in chunk)

    monkeypatch.setattr(FeatureStore, "_compute", count)
    return names


def index(run, *words, output="photos.index"):
    options = ["--cache", "cache", "--workers", "0", "--device", "cpu"]
    words = ["index", *map(str, words), "--checkpoint", str(run), "--output", output, *options]
    commands.main(words)


def names():
    return [Path(path).name for path in Index.open("photos.index").paths]


def draw(path, colour):
    Image.new("RGB", (30, 20), colour).save(path)


def check_rows(run):
    """All rows are those of their images."""
    opened = Index.open("photos.index")
    rows = Linker.from_pretrained(run, "cpu").encode_images(opened.paths)
    np.testing.assert_allclose(opened.rows, rows, atol=2e-3)


def test_adding_changing_and_removing_updates_only_these(run, photos, embedded, capsys):
    index(run, "photos")
    assert names() == [path.name for path in photos] == embedded
    out = capsys.readouterr().out
    assert out == "index: photos.index, 7 images: 7 embedded, 0 unchanged, 0 removed\n"
    embedded.clear()
    index(run, "photos")
    assert embedded == []
    assert "7 images: 0 embedded, 7 unchanged, 0 removed" in capsys.readouterr().out

    photos[1].unlink()
    draw(photos[3], "orange")
    draw("photos/new.png", "pink")
    index(run, "photos")
    assert sorted(embedded) == sorted([photos[3].name, "new.png"])
    assert "7 images: 2 embedded, 5 unchanged, 1 removed" in capsys.readouterr().out
    kept = [path.name for i, path in enumerate(photos) if i not in (1, 3)]
    assert names() == [*kept, photos[3].name, "new.png"]
    check_rows(run)


def test_images_of_other_directories_stay(run, photos):
    Path("more").mkdir()
    draw("more/pink.png", "pink")
    index(run, "photos")
    index(run, "more")
    assert names() == [*(path.name for path in photos), "pink.png"]
    Path("more/pink.png").unlink()
    index(run, photos[0])
    assert names() == [path.name for path in photos]


@pytest.mark.usefixtures("photos")
def test_features_in_the_store_are_used(run, embedded):
    index(run, "photos", output="other.index")
    embedded.clear()
    index(run, "photos")
    assert embedded == []
    check_rows(run)


def test_the_working_directory_does_not_matter(run, photos, embedded, monkeypatch, tmp_path):
    index(run, "photos")
    embedded.clear()
    monkeypatch.chdir(tmp_path / "photos")
    cache = ["--cache", "../cache", "--workers", "0", "--device", "cpu"]
    commands.main(["index", ".", "--checkpoint", str(run), "--output", "../photos.index", *cache])
    assert embedded == []
    assert Index.open("../photos.index").paths == [str(tmp_path / path) for path in photos]


def test_unreadable_images_are_reported_and_tried_again(run, photos, capsys):
    photos[2].write_bytes(b"no image")
    photos[4].write_bytes(b"")
    message = r"^3 of 8 images could not be indexed; photos\.index/skipped\.jsonl lists them"
    with pytest.raises(InputError, match=message):
        index(run, "photos", "missing.png")
    assert names() == [path.name for i, path in enumerate(photos) if i not in (2, 4)]
    err = capsys.readouterr().err
    assert f"/{photos[2]}': not an image in any of the formats JPEG" in err
    lines = Path("photos.index/skipped.jsonl").read_text().splitlines()
    skipped = {Path(r["image"]).name: r["error"] for r in map(json.loads, lines)}
    assert list(skipped) == [photos[2].name, photos[4].name, "missing.png"]
    assert "missing.png': no such file" in skipped["missing.png"]
    assert "the file is empty" in skipped[photos[4].name]
    check_rows(run)
    draw(photos[2], "pink")
    photos[4].unlink()
    index(run, "photos")
    assert len(names()) == 6
    assert Path("photos.index/skipped.jsonl").read_text() == ""


def test_an_image_that_becomes_unreadable_loses_its_row(run, photos):
    index(run, "photos")
    photos[0].write_bytes(b"no image")
    with pytest.raises(InputError, match=r"^1 of 7 images could not be indexed"):
        index(run, "photos")
    assert names() == [path.name for path in photos[1:]]


def test_equal_images_have_one_row(run, photos, capsys):
    shutil.copy(photos[0], "photos/copy.png")
    Path("photos/link.png").symlink_to(photos[1].resolve())
    index(run, "photos")
    assert names() == [path.name for path in photos]
    out, err = capsys.readouterr()
    assert "duplicates: 2, listed in photos.index/skipped.jsonl" in out
    assert "photos/copy.png': same content as " in err
    records = map(json.loads, Path("photos.index/skipped.jsonl").read_text().splitlines())
    assert {Path(r["image"]).name: Path(r["duplicate_of"]).name for r in records} == {
        "copy.png": photos[0].name,
        "link.png": photos[1].name,
    }
    photos[0].unlink()
    index(run, "photos")
    assert sorted(names()) == sorted(["copy.png", *(path.name for path in photos[1:])])
    check_rows(run)


def test_members_of_tar_files(run, photos):
    write_tar(Path("photos.tar"), [(path.name, path.read_bytes()) for path in photos])
    index(run, *(f"photos.tar/{path.name}" for path in photos))
    assert names() == [path.name for path in photos]
    entries = Path("photos.index/images-1.jsonl").read_text().splitlines()
    sizes = [json.loads(line)["size"] for line in entries]
    assert sizes == [path.stat().st_size for path in photos]
    check_rows(run)


def test_lost_rows_are_embedded_again(run, photos):
    index(run, "photos")
    path = Path("photos.index/rows-1.npy")
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(
        InputError, match=r"^rows-1.npy is truncated: it has 6 of 7 rows; run captioner"
    ):
        Index.open("photos.index")
    index(run, photos[0])  # the lost image is not named
    assert names() == [path.name for path in photos]
    check_rows(run)


def test_an_index_of_another_checkpoint_is_refused(run, photos, tmp_path_factory):
    index(run, "photos")
    other = linking.run(tmp_path_factory, "ranking")
    with pytest.raises(InputError, match=r"^photos.index was written with other weights, from /.*"):
        index(other, photos[0])
    assert names() == [path.name for path in photos]


def test_errors_of_the_store_are_not_blamed_on_images(run, photos):
    Path("cache").write_text("a file")
    with pytest.raises(InputError, match=r"the feature store .* cannot be written"):
        index(run, photos[0])


def test_a_model_of_image_vectors_has_no_encoder(run, photos, monkeypatch):
    load = Linker.from_pretrained

    def without_encoder(*arguments):
        linker = load(*arguments)
        linker.model.encoder = None
        return linker

    monkeypatch.setattr(Linker, "from_pretrained", without_encoder)
    message = (
        "^images cannot be indexed: .* was trained with --image-vectors and has no encoder; train"
    )
    with pytest.raises(InputError, match=message):
        index(run, photos[0])
    assert not Path("photos.index").exists()


@pytest.mark.slow
def test_a_killed_process_is_continued_and_a_second_one_refused(run, photos, monkeypatch, embedded):
    """With one image per block, and the process killed once two rows are written."""
    script = (
        "import time\n"
        "from captioner import __main__ as commands\n"
        "from captioner.inference import indexing\n"
        "from captioner.retrieval.index_writer import IndexWriter\n"
        "indexing.BLOCK, append = 1, IndexWriter.append\n"
        "def slow(*arguments):\n"
        "    append(*arguments)\n"
        "    time.sleep(0.3)\n"
        "IndexWriter.append = slow\n"
        f"commands.main(['index', 'photos', '--checkpoint', {str(run)!r}, '--output', "
        "'photos.index', '--cache', 'cache', '--device', 'cpu'])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", script], env=environment)
    try:
        lines, deadline = Path("photos.index/images-1.jsonl"), time.monotonic() + 120
        while not lines.exists() or lines.read_bytes().count(b"\n") < 2:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        with pytest.raises(InputError, match=r"^photos.index is being written by another process"):
            index(run, "photos")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = names()
    assert 2 <= len(before) < 7
    assert before == [path.name for path in photos[: len(before)]]
    monkeypatch.setattr(indexing, "BLOCK", 3)
    index(run, "photos")
    assert names() == [path.name for path in photos]
    assert not set(before) & set(embedded)
    check_rows(run)
