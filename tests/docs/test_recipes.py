"""The recipes in docs/recipes caption each image once, with a single process's captions."""

import importlib.util
import json
import shutil

import pytest
from PIL import Image

from captioner import Captioner
from tests.support import tiny
from tests.support.processes import ROOT, finish, start, two_nodes

RECIPES = ROOT / "docs" / "recipes"


@pytest.fixture
def model(tmp_path_factory):
    return tiny.run(tmp_path_factory, attention=True)


@pytest.fixture
def directory(tmp_path, tmp_path_factory):
    """Sixteen images in several formats and a broken one, in two directories; and hidden files."""
    images = sorted((tiny.data(tmp_path_factory) / "train").glob("*.png"))
    endings = (".webp", ".bmp", ".TIF", *[".png"] * len(images))
    for number, (image, ending) in enumerate(zip(images, endings, strict=False)):
        half = tmp_path / "images" / str(number % 2)
        half.mkdir(parents=True, exist_ok=True)
        with Image.open(image) as opened:
            opened.save(half / f"{image.stem}{ending}", lossless=True)
    (tmp_path / "images" / "1" / "broken.jpg").write_bytes(b"not an image")
    (tmp_path / "images" / ".checkpoints").mkdir()
    shutil.copy(images[0], tmp_path / "images" / ".checkpoints")
    return tmp_path / "images"


def check(rows, model, directory):
    """Every image has one row, with a single process's caption or the broken image's error."""
    files = [path for path in directory.rglob("*.*") if path.is_file()]
    images = [p for p in files if p.name != "broken.jpg" and p.parent.name in ("0", "1")]
    assert len(images) == 16
    captions = Captioner.from_pretrained(model, "cpu").caption(images)
    assert len({caption.text for caption in captions}) > 3
    expected = dict(zip(map(str, images), captions, strict=True))
    broken = str(directory / "1" / "broken.jpg")
    assert sorted(row["image"] for row in rows) == sorted([*expected, broken])
    for row in rows:
        if row["image"] == broken:
            assert "not an image" in row["error"]
            assert row.get("caption") is None
        else:
            caption = expected[row["image"]]
            assert row["caption"] == caption.text
            assert row.get("error") is None
            assert row["score"] == pytest.approx(caption.score, abs=1e-4)


def read(out, suffix):
    files = sorted(out.glob(f"*.{suffix}"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


@pytest.mark.distributed
@pytest.mark.slow
def test_torchrun_on_two_nodes(model, directory, tmp_path):
    """Two launchers with one process each meet over loopback, as two machines would."""
    recipe, out = RECIPES / "torchrun_captions.py", tmp_path / "out"
    command = [*two_nodes(), recipe, model, directory, out]
    printed = finish(start(*command), start(*command))
    assert "rank 0 of 2: 9 images" in printed
    assert "rank 1 of 2: 8 images" in printed
    check(read(out, "jsonl"), model, directory)
    assert [len(file.read_text().splitlines()) for file in sorted(out.iterdir())] == [9, 8]


def test_torchrun_recipe_continues_a_truncated_file(
    model, directory, tmp_path, monkeypatch, capsys
):
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    path = RECIPES / "torchrun_captions.py"
    spec = importlib.util.spec_from_file_location("torchrun_captions", path)
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    recipe.main(model, directory, tmp_path / "out")
    file = tmp_path / "out" / "captions-0.jsonl"
    complete = file.read_bytes()
    lines = complete.splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:5]) + lines[5][:20])
    recipe.main(model, directory, tmp_path / "out")
    assert "17 images, 5 done before" in capsys.readouterr().out
    assert file.read_bytes() == complete
    check(read(tmp_path / "out", "jsonl"), model, directory)


WITH_RAY = """
import runpy, sys
import ray

# Writing needs a processor besides those of the two actors.
ray.init(num_cpus=3, object_store_memory=100_000_000, include_dashboard=False, log_to_driver=False)
runpy.run_path(sys.argv[1])["main"](*sys.argv[2:])
"""
COUNT_DONE = """
import runpy, sys
from pathlib import Path

print(len(runpy.run_path(sys.argv[1])["done"](Path(sys.argv[2]))))
"""


@pytest.mark.distributed
@pytest.mark.slow
def test_ray_data_with_two_actors(model, directory, tmp_path, monkeypatch):
    if not importlib.util.find_spec("ray"):
        pytest.skip("ray[data] is not installed")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # the default, 15, starves on a busy machine
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    script, recipe, out = tmp_path / "with_ray.py", RECIPES / "ray_captions.py", tmp_path / "out"
    script.write_text(WITH_RAY)
    printed = finish(start(script, recipe, model, directory, out, "2", "4"))
    assert "17 images, 0 done before" in printed
    assert "deprecated" not in printed
    check(read(out, "json"), model, directory)
    first = min(out.glob("*.json"))
    first.write_bytes(first.read_bytes()[:-2])  # truncated, as after a crash
    assert "16" in finish(start("-c", COUNT_DONE, recipe, out)).split()
