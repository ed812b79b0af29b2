"""What the source may not do: import upwards, load what it need not, run what it reads."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.layouts import pictures, write_jsonl

ROOT = Path(__file__).parents[1]

# Lowest first; a module imports from lower layers only, never from its own. The names are those
# inside `captioner`, but for the two programs.
LAYERS = [
    "errors",
    "figures folders models runs search service sharing",
    "downloads",
    "streams",
    "devices figures.report_curves loading models.attention models.geometry "
    "models.hoisting models.layers models.pretrained options runs.next_steps "
    "metrics.java_meteor service.telemetry shapes shards",
    "decoding_options demo distributed figures.overlays formats formats.reading images losses "
    "models.model_options metrics.tallies ngrams text",
    "formats.coco formats.flickr formats.kaggle formats.karpathy formats.pairs formats.tables",
    "caption_files formats.huggingface formats.webdataset",
    "checkpoint data encoders figures.animation figures.inline metrics metrics.pointing "
    "search.filters",
    "batches features heatmaps optimization runs.run metrics.bootstrap metrics.caption_statistics "
    "search.hypotheses",
    "answers caption decodable inspection models.locations models.scheduled models.words "
    "picture_lists runs.board runs.curves runs.recipe runs.samples metrics.cider_d search.beam "
    "search.consensus sharing.checkpoint_info",
    "decoding evaluation_options models.show_and_tell models.show_attend_and_tell runs.watching "
    "sharing.hub sharing.model_card",
    "captioning",
    "ensemble restoring",
    "distillation evaluation self_critical training",
    "captioner report",
    "checkpoint_evaluation",
    "bulk job service.batcher service.wire export",
    "service.serving",
    "service.server",
    "__init__",
    "commands",
    "commands.caption commands.completion commands.data commands.demo_data commands.export "
    "commands.info commands.report commands.serve",
    "__main__ evaluate train",
]
PROGRAMS = ("train", "evaluate")
LAYER = {
    name if name in PROGRAMS else f"captioner.{name}".removesuffix(".__init__"): number
    for number, names in enumerate(LAYERS)
    for name in names.split()
}
# The one arrow that points up: a signature names the version, asked for inside a function.
EXCEPTIONS = {("captioner.metrics.captions", "captioner")}

FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in [*(ROOT / "captioner").rglob("*.py"), ROOT / "train.py", ROOT / "evaluate.py"]
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}


def imports(name, tree):
    """The modules of ours that the module `name` imports anywhere in its source."""
    package = name if FILES[name].stem == "__init__" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: 1 - node.level or None] if node.level else []
            base = ".".join(filter(None, [*parents, node.module]))
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                found.add(whole if whole in LAYER else base)
    return {
        module for module in found if module.split(".")[0] in ("captioner", "train", "evaluate")
    }


def arrows_that_point_up(name, tree):
    return {
        module
        for module in imports(name, tree)
        if (name, module) not in EXCEPTIONS and LAYER.get(module, 99) >= LAYER[name]
    }


def test_every_module_has_its_layer():
    assert FILES.keys() == LAYER.keys()


def drawn_modules(page):
    """The modules in CONTRIBUTING's map: those of `captioner`, and of each room of it."""
    room, found = "", set()
    for line in page.splitlines():
        if match := re.match(r" {6}(\w+)/ ", line):
            room = match[1]
            found.add(f"captioner.{room}")
        elif match := re.match(r" {6}(\w+)\.py ", line):
            found.add(f"captioner.{match[1]}")
        elif match := re.match(r" {8}(\w+)\.py ", line):
            found.add(f"captioner.{room}.{match[1]}")
    return found


def test_the_map_of_the_house_is_true():
    listed = ("captioner.cli.", "captioner.data.formats.")  # each room a line, as all is alike
    there = {name for name in FILES if not name.startswith(listed)} - {"captioner", *PROGRAMS}
    assert drawn_modules((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")) == there


@pytest.mark.parametrize("name", FILES)
def test_what_a_source_says_of_others_is_there(name):
    """A docstring that names a file that was moved away sends its reader nowhere."""
    named = set(re.findall(r"\b[a-z_]+\.py\b", FILES[name].read_text(encoding="utf-8")))
    assert named <= {path.name for path in FILES.values()}


@pytest.mark.parametrize("name", FILES)
def test_imports_point_down(name):
    assert arrows_that_point_up(name, TREES[name]) == set()


@pytest.mark.parametrize(
    ("name", "source", "upwards"),
    [
        (
            "captioner.text",
            "from .captioning import build_model",
            {"captioner.models.captioning.build"},
        ),
        ("captioner.text", "def f():\n    from . import demo", {"captioner.data.demo.scenes"}),
        ("captioner.text", "from . import __version__", {"captioner"}),
        ("captioner.data", "import captioner.captioner as c", {"captioner.captioner"}),
        ("captioner.captioner", "from train import load_data", {"train"}),
        ("captioner.data", "from captioner.nowhere import x", {"captioner.nowhere"}),
        ("captioner.data", "from .text import split_words\nimport torch, json", set()),
        ("captioner", "from .captioner import Captioner", set()),
        ("captioner.data.formats.coco", "from ..data import Example", {"captioner.data"}),
        ("captioner.data.formats.coco", "from . import kaggle", {"captioner.data.formats.kaggle"}),
        ("captioner.data.formats.coco", "from ..errors import InputError", set()),
    ],
)
def test_the_reader_of_imports_sees_every_form(name, source, upwards):
    assert arrows_that_point_up(name, ast.parse(source)) == upwards


def test_the_exception_is_used_inside_a_function_only():
    for name, _ in EXCEPTIONS:
        top = ast.Module(
            [n for n in TREES[name].body if isinstance(n, ast.Import | ast.ImportFrom)]
        )
        assert "captioner" not in imports(name, top)
        assert "captioner" in imports(name, TREES[name])


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
        "folder": os.getcwd(),
    }

before = world()
import captioner
for name in captioner.__all__:  # some are loaded when they are asked for
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
    assert len(public.split(",")) < 10
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "call",
    [
        "import captioner; captioner.DecodingOptions(); captioner.InputError",
        "from captioner.__main__ import main; main(['--help'])",
        "from captioner.__main__ import main; main(['caption', '--help'])",
        "from captioner.__main__ import main; main(['serve', '--help'])",
        "from captioner.__main__ import main; main(['data', 'data'])",
        "from captioner.__main__ import main; main(['demo-data', '--help'])",
        "from captioner.__main__ import main; main(['info', '--help'])",
        "from captioner.__main__ import main; main(['report', '--help'])",
        "from captioner.__main__ import main; main(['completion', 'bash'])",
    ],
)
def test_what_needs_no_torch_does_not_wait_for_it(tmp_path, call):
    write_jsonl(tmp_path / "data", pictures(3))
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
    """Where a source loads pickles, runs text as code or shell, or unpacks blindly."""
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
        # model.eval() takes no argument, the eval that is meant does
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
