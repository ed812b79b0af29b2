"""What the source must not do: import upwards, import needlessly, execute what it reads."""

import ast
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.layouts import numbered_images, write_jsonl

ROOT = Path(__file__).parents[1]

HOUSE = runpy.run_path(str(ROOT / "docs" / "house.py"))
HEIGHT = {room: number for number, room in enumerate((*HOUSE["ROWS"], "__init__"))}
FILES = {
    ".".join(path.relative_to(ROOT / "captioner").with_suffix("").parts): path
    for path in (ROOT / "captioner").rglob("*.py")
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}


def rooms_imported(name, tree):
    """Return the rooms that the module `name`, such as "data.formats.coco", imports anywhere."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            package = ["captioner", *name.split(".")][: -node.level] if node.level else []
            base = [*package, *(node.module or "").split(".")] if node.module else package
            found = [[*base, alias.name] for alias in node.names]
        elif isinstance(node, ast.Import):
            found = [alias.name.split(".") for alias in node.names]
        else:
            continue
        yield from (path[1] for path in found if path[0] == "captioner" and len(path) > 1)


@pytest.mark.parametrize("name", FILES)
def test_rooms_import_from_rows_above_only(name):
    own = name.split(".")[0]
    rooms = set(rooms_imported(name, TREES[name])) - {own}
    assert {room for room in rooms if HEIGHT[room] >= HEIGHT[own]} == set()


@pytest.mark.parametrize(
    "source",
    [
        "from ..training.loop import fit",
        "def f():\n    from .. import training",
        "import captioner.training.loop as loop",
        "from captioner import training",
        "from captioner.training import loop",
    ],
)
def test_every_form_of_import_is_seen(source):
    assert list(rooms_imported("data.images", ast.parse(source))) == ["training"]


def test_the_map_of_the_house_is_current():
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert HOUSE["draw"]() in page, "run: python docs/house.py"


# ---- `import captioner` -------------------------------------------------------------------------

IMPORT = """
import os, random, signal, sys, threading, warnings
import numpy, torch, torchvision
from PIL import Image, ImageFile

def world():
    return {
        "random": random.getstate(),
        "numpy": repr(numpy.random.get_state()),
        "torch": torch.get_rng_state().tolist(),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "running": threading.active_count(),
        "warnings": list(warnings.filters),
        "numbers": (torch.get_default_dtype(), torch.get_default_device(), numpy.geterr()),
        "precision": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "gradients": torch.is_grad_enabled(),
        "pillow": (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES),
        "signals": [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)],
        "hooks": (sys.excepthook, sys.displayhook),
        "environment": dict(os.environ),
        "directory": os.getcwd(),
    }

before = world()
import captioner
for name in captioner.__all__:  # some are imported on first access
    getattr(captioner, name)
after = world()
print("changed:", [name for name in before if before[name] != after[name]])
heavy = {"matplotlib", "nltk", "pycocotools", "pycocoevalcap", "train", "evaluate"}
print("loaded:", sorted(heavy & set(sys.modules)))
print("public:", sorted(captioner.__all__))
"""


def test_import_changes_nothing_and_loads_no_more_than_it_must(tmp_path):
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}){IMPORT}"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert run.stderr == ""
    changed, loaded, public = run.stdout.splitlines()
    assert changed == "changed: []"
    assert loaded == "loaded: []"
    assert len(public.split(",")) < 13
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "call",
    [
        "import captioner; captioner.DecodingOptions(); captioner.InputError",
        "from captioner.__main__ import main; main(['--help'])",
        "from captioner.__main__ import main; main(['caption', '--help'])",
        "from captioner.__main__ import main; main(['serve', '--help'])",
        "from captioner.__main__ import main; main(['train', '--help'])",
        "from captioner.__main__ import main; main(['evaluate', '--help'])",
        "import captioner; captioner.TrainConfig.from_options(attention=True)",
        "from captioner.__main__ import main; main(['data', 'data'])",
        "from captioner.__main__ import main; main(['demo-data', '--help'])",
        "from captioner.__main__ import main; main(['cache'])",
        "from captioner.__main__ import main; main(['info', '--help'])",
        "from captioner.__main__ import main; main(['report', '--help'])",
        "from captioner.__main__ import main; main(['project', '--help'])",
        "from captioner.__main__ import main; main(['index', '--help'])",
        "from captioner.__main__ import main; main(['search', '--help'])",
        "from captioner.__main__ import main; main(['completion', 'bash'])",
    ],
)
def test_what_needs_no_torch_does_not_wait_for_it(tmp_path, call):
    write_jsonl(tmp_path / "data", numbered_images(3))
    code = f"import atexit, sys; sys.path.insert(0, {str(ROOT)!r}); " + (
        f"atexit.register(lambda: print('torch:', 'torch' in sys.modules)); {call}"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.splitlines()[-1] == "torch: False"


def test_other_names_are_none_of_the_package():
    import captioner

    with pytest.raises(AttributeError, match="module 'captioner' has no attribute 'Captoiner'"):
        captioner.Captoiner  # noqa: B018


# ---- what may not be written --------------------------------------------------------------------

FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "shelve", "marshal", "joblib", "yaml"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "extractall", "system", "popen"}


def offences(tree):
    """Return where a source loads pickles, runs text as code or in a shell, or unpacks unsafely."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {getattr(node, "module", None), *(alias.name for alias in node.names)}
            yield from sorted(FORBIDDEN_MODULES & {name.split(".")[0] for name in names if name})
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        keywords = {k.arg: k.value for k in node.keywords}

        def says(keyword, value, keywords=keywords):
            found = keywords.get(keyword)
            return isinstance(found, ast.Constant) and found.value is value

        if called.endswith("torch.load") and not says("weights_only", True):
            yield "torch.load without weights_only=True"
        # model.eval() has no argument; the built-in eval has one
        compiles = called in ("re.compile", "torch.compile")
        harmless = compiles or (called.endswith(".eval") and not node.args)
        if called.split(".")[-1] in FORBIDDEN_CALLS and not harmless:
            yield called
        if "shell" in keywords and not says("shell", False):
            yield "shell"
        if "allow_pickle" in keywords and not says("allow_pickle", False):
            yield "allow_pickle"


@pytest.mark.parametrize("name", FILES)
def test_nothing_read_is_ever_run(name):
    assert list(offences(TREES[name])) == []


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "import pickle",
        "from pickle import loads",
        "eval(text)",
        "exec(text)",
        "archive.extractall(path)",
        "subprocess.run(text, shell=True)",
        "os.system(text)",
        "np.load(path, allow_pickle=True)",
    ],
)
def test_the_reader_of_offences_sees_them(source):
    assert len(list(offences(ast.parse(source)))) == 1


def test_what_is_allowed_is_no_offence():
    source = "model.eval(); torch.load(p, weights_only=True); re.compile(x); run(x, shell=False)"
    assert list(offences(ast.parse(source))) == []
