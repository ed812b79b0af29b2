"""A wheel of the repository, installed into an empty environment, away from the repository.

A .pth file gives the environment access to the packages of the running one, so that nothing is
downloaded; only `captioner` is installed in it.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from tests.support import tiny

ROOT = Path(__file__).parents[1]
SOURCES = ("captioner", "setup.cfg", "setup.py", "pyproject.toml", "README.md", "LICENSE")
FLAGS = [*tiny.OPTIONS, "--attention"]
PROGRAM = """
import captioner
from captioner import TrainConfig, train
from captioner.training.config import (
    CaptioningOptions,
    DataOptions,
    ModelOptions,
    RunOptions,
    TrainingOptions,
)

result = train(
    TrainConfig(
        data=DataOptions(data="data", workers=0),
        task=CaptioningOptions(min_count=1),
        model=ModelOptions(attention=True, hidden_size=16, embedding_size=16),
        training=TrainingOptions(epochs=2, batch_size=8, precision="float32"),
        run=RunOptions(run="python", device="cpu", samples=0, heatmaps=1, curves=False),
    )
)
print("file:", captioner.__file__)
print("run:", result.run, result.best_epoch, sorted(result.scores)[0])
print("caption:", result.captioner.caption("data/val/100.png").text)
"""

pytestmark = pytest.mark.slow


def run(*command, cwd):
    """Run a command without the variables that could lead Python to the repository."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PIP"))}
    done = subprocess.run(
        [*map(str, command)],
        cwd=cwd,
        env={**environment, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy of the sources, since a build writes next to them."""
    here = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("__pycache__")
    (here / "sources").mkdir()
    for name in SOURCES:
        copied = here / "sources" / name
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copied, ignore=ignored)
        else:
            shutil.copy(ROOT / name, copied)
    options = ("--no-deps", "--no-build-isolation", "--no-index", "-w", "built")
    run(sys.executable, "-m", "pip", "wheel", *options, here / "sources", cwd=here)
    (built,) = (here / "built").glob("captioner-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The directory of executables of an environment with only the wheel installed."""
    directory = tmp_path_factory.mktemp("environment")
    venv.create(directory, with_pip=False)
    programs = directory / ("Scripts" if os.name == "nt" else "bin")
    paths = {"base": str(directory), "platbase": str(directory)}
    packages = Path(sysconfig.get_path("purelib", "venv", vars=paths))
    # Entries of this file are not site directories: .pth files in them are not read, so an
    # editable installation of captioner in the running environment has no effect.
    shared = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (packages / "shared.pth").write_text("".join(f"{path}\n" for path in sorted(shared)))
    python = programs / Path(sys.executable).name
    if not python.exists():
        python = programs / "python"
    options = ("--no-deps", "--no-index", "--force-reinstall")
    pip = (sys.executable, "-m", "pip", "--python", python)
    run(*pip, "install", *options, wheel, cwd=directory)
    return programs


@pytest.fixture(scope="module")
def elsewhere(installed, tmp_path_factory):
    """A directory with data in which `captioner train --attention` has trained."""
    directory = tmp_path_factory.mktemp("elsewhere")
    tiny.write_colours(directory / "data")
    flags = ["--data", "data", "--run", "first", *FLAGS]
    out = run(installed / "captioner", "train", *flags, cwd=directory)
    assert "\n  captioner evaluate --checkpoint checkpoints/first --split test" in out
    return directory


def test_the_wheel_has_all_files_of_the_package_and_no_others(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    kept = {".py", ".html", ".css", ".js", ".typed", ".json", ".safetensors", ".md"}
    sources = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "captioner").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == sources
    assert {Path(name).suffix for name in names} == kept
    assert "captioner/py.typed" in names


def build(hook, directory):
    """Call a hook of setuptools in a copy of the whole repository; return the file it makes."""
    caches = ("__pycache__", "*.egg-info", ".hyp*", ".*_cache")
    ignored = shutil.ignore_patterns(".git", "checkpoints", *caches)
    if not (directory / "sources").exists():
        shutil.copytree(ROOT, directory / "sources", ignore=ignored)
        (directory / "sources" / "checkpoints").mkdir()
        (directory / "sources" / "checkpoints" / ".gitkeep").touch()
    code = f"from setuptools import build_meta; build_meta.{hook}({str(directory)!r})"
    run(sys.executable, "-c", code, cwd=directory / "sources")


def test_the_sdist_has_all_files_of_the_repository(tmp_path):
    build("build_sdist", tmp_path)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    sources = {
        path.relative_to(tmp_path / "sources").as_posix()
        for path in (tmp_path / "sources").rglob("*")
        if path.is_file() and not path.parent.name.endswith(".egg-info")
    }
    assert sources - names == set()


def test_the_description_on_an_index_has_no_link_into_the_repository(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        text = archive.read(name).decode()
    assert "| quick start |" in text
    addresses = re.findall(r"\]\(([^)]*)\)", text)
    assert addresses
    assert all(address.startswith("https://") for address in addresses)


def test_type_checkers_find_an_editable_installation_and_check_options(tmp_path):
    """They follow paths in .pth files, but not import hooks."""
    build("build_editable", tmp_path)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".pth"))
        assert archive.read(name).decode().strip() == str(tmp_path / "sources")
    program = tmp_path / "program.py"
    program.write_text(
        "from captioner import Captioner\n"
        'captioner = Captioner.from_pretrained("run")\n'
        'print(captioner.caption("a.jpg", beam_size=5).text)\n'
        'captioner.caption("a.jpg", beam_sise=5)\n'
        'captioner.caption("a.jpg", beam_size="5")\n'
    )
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--follow-imports", "silent", "--cache-dir", ".", program],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(tmp_path / "sources")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    errors = [line for line in checked.stdout.splitlines() if ": error" in line]
    assert {line.split(":")[1] for line in errors} == {"4", "5"}, checked.stdout
    assert 'did you mean "beam_size"?' in errors[0]


def test_the_installed_command_evaluates_and_captions(installed, elsewhere):
    first = "checkpoints/first"
    split = ("--split", "test", "--workers", "0", "--metrics", "bleu", "--report", "report")
    out = run(installed / "captioner", "evaluate", "--checkpoint", first, *split, cwd=elsewhere)
    assert "BLEU-4 " in out
    scores = json.loads((elsewhere / first / "evaluation-test" / "scores.json").read_text())
    assert scores["BLEU-1"] > 0
    assert "<html" in (elsewhere / "report" / "report.html").read_text()
    image = "data/val/100.png"
    out = run(
        *(installed / "captioner", "caption", image, "--checkpoint", first, "--heatmap", "maps"),
        cwd=elsewhere,
    )
    assert out.startswith(f"{image}\t")
    assert (elsewhere / "maps" / "100.png").is_file()


def test_the_installed_package_trains_from_a_file(installed, elsewhere):
    (elsewhere / "options.toml").write_text('data = "data"\n[model]\nattention = true\n')
    flags = [*tiny.OPTIONS, "--epochs", "1", "--run", "file"]
    run(installed / "captioner", "train", "--config", "options.toml", *flags, cwd=elsewhere)
    config = json.loads((elsewhere / "checkpoints/file/best/config.json").read_text())
    assert config["model"]["attention"]
    assert config["training"]["epochs"] == 1


def test_the_installed_package_trains_from_python(installed, elsewhere):
    (elsewhere / "program.py").write_text(PROGRAM)
    out = run(installed / "python", "program.py", cwd=elsewhere)
    file, trained, caption = out.splitlines()[-3:]
    assert Path(file.removeprefix("file: ")).is_relative_to(installed.parent)
    assert trained.startswith("run: checkpoints/python ")
    assert len(caption.split()) > 2
    assert list((elsewhere / "checkpoints/python/heatmaps").iterdir())


def test_the_models_of_the_package_work_without_a_flag(installed, tmp_path):
    tiny.write_colours(tmp_path / "data")
    out = run(installed / "captioner", "caption", "data/val/100.png", cwd=tmp_path)
    assert out.startswith("data/val/100.png\t")
    run(installed / "captioner", "index", "data/val", cwd=tmp_path)
    out = run(installed / "captioner", "search", "man", "--top", "2", cwd=tmp_path)
    assert len(out.splitlines()) == 3
    run(installed / "captioner", "localize", "data/val/100.png", "grass", cwd=tmp_path)
    assert (tmp_path / "label-maps" / "100.png").is_file()
