"""The recipes in docs/recipes caption each image once, as one process would, whoever helps."""

import importlib.util
import json
import shutil

import pytest

from captioner import Captioner
from tests.support import tiny
from tests.support.processes import ROOT, finish, start, two_nodes

RECIPES = ROOT / "docs" / "recipes"


@pytest.fixture
def model(tmp_path_factory):
    return tiny.run(tmp_path_factory, attention=True)


@pytest.fixture
def directory(tmp_path, tmp_path_factory):
    """Sixteen images in two directories, one of which is broken."""
    images = sorted((tiny.data(tmp_path_factory) / "train").glob("*.png"))
    for number, image in enumerate(images):
        place = tmp_path / "images" / str(number % 2)
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, place)
    (tmp_path / "images" / "1" / "broken.jpg").write_bytes(b"no image")
    return tmp_path / "images"


def check(rows, model, directory):
    """Every image is there once, with a single process's caption, and the bad one's error."""
    images = sorted(directory.rglob("*.png"))
    captions = Captioner.from_pretrained(model, "cpu").caption(images)
    assert len({caption.text for caption in captions}) > 3
    wanted = {str(path): each for path, each in zip(images, captions, strict=True)}
    broken = str(directory / "1" / "broken.jpg")
    assert sorted(row["image"] for row in rows) == sorted([*wanted, broken])
    for row in rows:
        if row["image"] == broken:
            assert "not an image" in row["error"] and row.get("caption") is None
        else:
            best = wanted[row["image"]]
            assert row["caption"] == best.text and row.get("error") is None
            assert row["score"] == pytest.approx(best.score, abs=1e-4)


def read(out, ending):
    files = sorted(out.glob(f"*.{ending}"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_two_nodes_by_torchrun(model, directory, tmp_path):
    """Two launchers meet at a port of loopback, as on two machines, with a process each."""
    recipe, out = RECIPES / "torchrun_captions.py", tmp_path / "out"
    command = [*two_nodes(), recipe, model, directory, out]
    printed = finish(start(*command), start(*command))
    assert "rank 0 of 2: 9 images" in printed and "rank 1 of 2: 8 images" in printed
    check(read(out, "jsonl"), model, directory)
    assert [len(file.read_text().splitlines()) for file in sorted(out.iterdir())] == [9, 8]


def test_a_process_goes_on_where_its_file_ends(model, directory, tmp_path, monkeypatch, capsys):
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    path = RECIPES / "torchrun_captions.py"
    spec = importlib.util.spec_from_file_location("torchrun_captions", path)
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    recipe.main(model, directory, tmp_path / "out")
    file = tmp_path / "out" / "captions-0.jsonl"
    whole = file.read_bytes()
    lines = whole.splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:5]) + lines[5][:20])
    recipe.main(model, directory, tmp_path / "out")
    assert "17 images, 5 done before" in capsys.readouterr().out
    assert file.read_bytes() == whole
    check(read(tmp_path / "out", "jsonl"), model, directory)


BY_RAY = """
import runpy, sys
import ray

# The write needs a processor besides those of the two actors.
ray.init(num_cpus=3, object_store_memory=100_000_000, include_dashboard=False, log_to_driver=False)
runpy.run_path(sys.argv[1])["main"](*sys.argv[2:])
"""


def test_two_actors_by_ray_data(model, directory, tmp_path, monkeypatch):
    if not importlib.util.find_spec("ray"):
        pytest.skip("ray[data] is not installed")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # 15 else, which starves on a busy machine
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (tmp_path / "by_ray.py").write_text(BY_RAY)
    out = tmp_path / "out"
    command = tmp_path / "by_ray.py", RECIPES / "ray_captions.py", model, directory, out, "2", "4"
    printed = finish(start(*command))
    assert "17 images, 0 done before" in printed
    check(read(out, "json"), model, directory)
    first = min(out.glob("*.json"))
    first.write_bytes(first.read_bytes()[:-2])  # as a crash leaves it
    count = "import runpy, sys; print(len(runpy.run_path(sys.argv[1])['done'](Path(sys.argv[2]))))"
    assert (
        "16" in finish(start("-c", f"from pathlib import Path; {count}", command[1], out)).split()
    )
