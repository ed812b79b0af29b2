"""What `captioner serve` loads: captioners, linking runs, indexes, and combinations of them."""

import json
import re
import shutil
import signal
import subprocess
import sys

import httpx
import pytest

from captioner.__main__ import main
from captioner.devices import RuntimeOptions
from captioner.errors import InputError
from captioner.serving.loading import load_models
from tests.support import collections, linking, tiny
from tests.support.signing import sign

CPU = RuntimeOptions(device="cpu")


@pytest.fixture
def run(tmp_path_factory):
    return linking.run(tmp_path_factory)


@pytest.fixture
def index(tmp_path_factory, tmp_path):
    images = collections.copy_images(tmp_path_factory, tmp_path / "photos")
    return collections.write_index(tmp_path_factory, images, tmp_path)


def test_an_index_alone(index):
    captioner, (collection,), _ = load_models([], [index], CPU)
    assert captioner is None
    assert collection.name == "val.index"
    assert len(collection.snapshot().files.rows) == 7


def test_a_linking_run_is_the_new_location_of_a_checkpoint(index, run, tmp_path):
    manifest = index / "manifest.json"
    manifest.write_text(manifest.read_text().replace(str(run), "/gone/run"))
    with pytest.raises(InputError, match=r"/gone/run, the checkpoint of .*, does not exist"):
        load_models([], [index], CPU)
    moved = shutil.copytree(run, tmp_path / "moved")
    _, (collection,), _ = load_models([moved], [index], CPU)
    assert collection.linker.encode_texts("red").shape == (1, collection.linker.model.dimensions)


def test_indexes_of_one_checkpoint_share_its_model(index, tmp_path):
    other = shutil.copytree(index, tmp_path / "other" / "val.index")
    _, opened, _ = load_models([], [index, other], CPU)
    assert [each.name for each in opened] == ["val.index", "val.index-2"]
    assert opened[0].linker is opened[1].linker


def test_what_cannot_be_served(index, tmp_path, tmp_path_factory, run):
    with pytest.raises(InputError, match="is a linking model, but no index was"):
        load_models([run], [], CPU)
    other = linking.run(tmp_path_factory, "ranking")
    with pytest.raises(InputError, match="ranking/best is a linking model, but no index was"):
        load_models([other], [index], CPU)
    with pytest.raises(InputError, match="is not an index; write one with captioner index"):
        load_models([], [tmp_path], CPU)


def test_checkpoints_of_other_tasks_cannot_be_served(index, run, tmp_path):
    copy = shutil.copytree(run / "best", tmp_path / "other")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "task": "counting"}))
    sign(copy)
    with pytest.raises(InputError, match=r"other was trained for 'counting', which cannot be"):
        load_models([copy], [index], CPU)


@pytest.mark.parametrize(
    "flags",
    [
        *(["--precision", "float32"], ["--compile"], ["--batch-size", "32"]),
        *(["--max-beam-size", "10"], ["--max-words", "50"]),
    ],
)
def test_options_of_captions_need_a_captioner(index, flags):
    """Even if the value is the default."""
    with pytest.raises(InputError) as error:
        main(["serve", "--index", str(index), "--device", "cpu", *flags])
    assert str(error.value) == (
        f"{flags[0]} has no effect without a captioner; pass its run, or omit the flag"
    )


@pytest.mark.parametrize("flags", [["--thumbnails", "x"], ["--max-thumbnails", "1000"]])
def test_options_of_search_need_an_index(flags):
    with pytest.raises(InputError) as error:
        main(["serve", "run", *flags])
    assert str(error.value) == (
        f"{flags[0]} has no effect without an index; pass one with --index, or omit the flag"
    )


@pytest.mark.slow
def test_the_command_serves_a_captioner_and_an_index(index, tmp_path, tmp_path_factory):
    run = tiny.run(tmp_path_factory, attention=True)
    thumbnails = tmp_path / "thumbnails"
    command = [sys.executable, "-m", "captioner", "serve", str(run), "--index", str(index)]
    command += ["--port", "0", "--thumbnails", str(thumbnails), "--device", "cpu"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        line = process.stdout.readline()
        url = re.search(rf"serving {run}, {index} at (http://127\.0\.0\.1:\d+) ", line)[1]
        answer = httpx.get(f"{url}/api/search?query=red", timeout=60).json()
        assert answer["hits"][0]["name"] == "100.png"
        assert httpx.get(f"{url}/{answer['hits'][0]['thumbnail']}").status_code == 200
        content = (tmp_path / "photos/101.png").read_bytes()
        assert httpx.post(f"{url}/api/caption", content=content, timeout=60).json()["words"]
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "stopped\n")
    assert len(list(thumbnails.rglob("*.jpg"))) == 1
