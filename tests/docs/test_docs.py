"""Every command and Python block of README and docs/ runs, and every flag named there exists.

The blocks of a page run one after another in a directory of its own. Names that the page uses and
no earlier block creates (`dog.jpg`, `checkpoints/RUN`) are created first by stand_ins.py. Trainings
are shortened by SHORT. What cannot run here is only parsed; ONLY_PARSED gives the reasons.
"""

import argparse
import configparser
import contextlib
import io
import re
import runpy
import shlex
import subprocess
import sys
import warnings
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import evaluate
import train
from captioner import Captioner, captioner
from captioner import __main__ as command
from captioner.cli import evaluate as evaluate_command
from captioner.cli import train as train_command
from captioner.console import LOGGER
from captioner.data.demo import dataset as demo
from captioner.tasks.systems import TASKS
from tests.support import pages
from tests.support.stand_ins import provide

pytestmark = pytest.mark.docs

ROOT = pages.ROOT
SHORT = (
    "--epochs 1 --batch-size 8 --hidden-size 16 --embedding-size 16 --image-size 64 --workers 0 "
    "--precision float32 --device cpu --samples 0 --heatmaps 1 --no-curves"
).split()
SHORT_LINEAR = "--image-size 64 --workers 0 --device cpu".split()
SHORT_REGRESSION = [
    *SHORT_LINEAR,
    *"--epochs 1 --batch-size 8 --text-min-count 1 --no-curves".split(),
]
SHORT_JOINT = (
    "--epochs 1 --batch-size 8 --hidden-size 16 --dimensions 16 --word-size 16 --image-size 64 "
    "--workers 0 --precision float32 --device cpu --no-curves"
).split()
SHORT_MCNN = (
    "--epochs 1 --batch-size 8 --maps 8 --hidden-size 16 --word-size 16 --image-size 64 "
    "--text-min-count 1 --workers 0 --precision float32 --device cpu --no-curves"
).split()
SHORT_SPATIAL = (
    "--epochs 1 --batch-size 8 --image-size 64 --workers 0 --precision float32 --device cpu "
    "--heatmaps 1 --no-curves --min-images 1 --text-min-count 1"
).split()
SHORT_RELATION = (
    "--epochs 1 --batch-size 8 --image-size 64 --workers 0 --precision float32 --device cpu "
    "--no-curves"
).split()
ONLY_PARSED = {  # text that commands or Python contain: why they are not run
    "docs/pretrained.py": "takes an hour",
    "captioner compare": "takes minutes; covered by tests/training/test_compare.py",
    "captioner serve": "runs until it is stopped; covered by tests/serving/test_app.py",
    "api/search": "needs an index; covered by tests/serving/test_search_api.py",
    **dict.fromkeys(
        ("api/paint", "api/label", "api/localize", "api/projection"),
        "the same; covered by tests/serving/test_spatial_api.py",
    ),
    "captioner export": "half a minute and an extra; covered by tests/inference/test_export.py",
    "onnxruntime": "the same",
    "push_to_hub": "needs the network; tests/checkpoints/test_hub.py uses a hub on loopback",
    "user/": "the same",
    "recipes/": "extras and processes; covered by tests/docs/test_recipes.py",
    "https://host": "needs the network; tests/data/storage/test_remote_tar.py uses loopback",
    "timm:": "an extra and a download; covered by tests/vision/test_timm_backbones.py",
    "--logger": "an extra; covered by tests/training/test_trackers.py",
    "--tensorboard": "an extra; covered by tests/training/test_logging.py",
    "benchmarks": "take minutes",
    "linear --data DIR": "random weights of the stand-in give all images the same vector",
    "regression --data DIR": "the same",
    "mcnn --data DIR": "the same",
    "torchrun": "processes that import torch; covered by tests/test_distributed.py",
}
MEASURED = ("docs/results.md", "docs/lab-notes.md", "docs/performance")  # took minutes and hours
TOOLS = ("pytest", ".ci/run", "ruff ", "mypy", "python -m venv", ". .venv")  # in CONTRIBUTING.md
SHELL = ("cp", "mkdir", "ls", "head", "cat", "echo", "find")
OTHER_FLAGS = {  # of programs that are not part of this repository
    "--dist",  # of pytest-xdist
    *("--data-binary", "--check", "--logdir", "--nproc-per-node", "--nnodes"),
    *("--rdzv-backend", "--rdzv-endpoint", "--rdzv-id", "--max-restarts", "--rm", "--strict"),
}
SHOWN_PROGRAMS = {"onnx_caption.py"}  # printed on a page
NUMBERS = {"N": "1", "P": "0.5", "STAGE": "0"}  # placeholders in inline commands


# ---- the state in which every page begins --------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A directory with a few demo scenes and a run trained on them."""
    here = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        make_small(patch)
        demo.write_demo(Path("demo"))
        run_command("python train.py --attention")
    return here


def make_small(patch):
    """Fewer scenes and heatmaps, no Java, no C++ compiler."""
    write = demo.write_demo
    patch.setattr(demo, "write_demo", lambda path: write(path, train=24, val=8, test=4))
    patch.setattr(captioner, "compile_steps", lambda model: model)
    patch.setattr("captioner.metrics.meteor.shutil.which", lambda _: None)


# ---- parsers -------------------------------------------------------------------------------------


class ParserFoundError(Exception):
    """Carries the parser that a program was about to use."""


def parser_of(main):
    """The parser that `main()` builds; `main` does not get further than parsing."""

    def stop(parser, *_, **__):
        raise ParserFoundError(parser)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_known_args", stop)
        with pytest.raises(ParserFoundError) as caught:
            main()
    return caught.value.args[0]


def module_parser(module):
    """The parser of `python -m module`, whether or not another test has imported it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(sys.modules, module, raising=False)
        return parser_of(lambda: runpy.run_module(module, run_name="__main__", alter_sys=True))


# ---- commands ------------------------------------------------------------------------------------


def run_training(argv, *, parse):
    train_command.parse(argv)
    if "linear" in argv and not parse:
        train.main([*argv, *SHORT_LINEAR])
    elif "regression" in argv and not parse:
        train.main([*argv, *SHORT_REGRESSION])
    elif "joint" in argv and not parse:
        train.main([*argv, *SHORT_JOINT])
    elif "mcnn" in argv and not parse:
        train.main([*argv, *SHORT_MCNN])
    elif "spatial" in argv and not parse:
        train.main([*argv, *SHORT_SPATIAL])
    elif "relation" in argv and not parse:
        train.main([*argv, *SHORT_RELATION])
    elif not parse:
        min_count = [] if {"--start-from", "--min-count"} & {*argv} else ["--min-count", "1"]
        train.main([*argv, *SHORT, *min_count])


def run_evaluation(argv, *, parse):
    evaluate_command.parse(argv)
    if not parse:
        evaluate.main(argv)


def run_captioner(argv, *, parse):
    command.parser(argv[:1]).parse_args(argv)
    if not parse:
        command.main(argv)


def run_python(argv, *, parse):
    match argv:
        case ["train.py", *rest]:
            run_training(rest, parse=parse)
        case ["evaluate.py", *rest]:
            run_evaluation(rest, parse=parse)
        case ["-m", "captioner", *rest]:
            run_captioner(rest, parse=parse)
        case ["-m", module, *rest] if module.startswith("benchmarks"):
            module_parser(module).parse_known_args(rest)
        case ["-c", code]:
            compile(code, "page", "exec")
            if not parse:
                exec(code, {})
        case [file, *_] if parse:
            assert file in SHOWN_PROGRAMS or (ROOT / file).is_file(), f"{file} does not exist"
        case _:
            raise ValueError(f"python {shlex.join(argv)}: a kind of command that is not known")


def run_curl(argv, *, parse):
    """Send curl's request to the application itself."""
    testing = pytest.importorskip("fastapi.testclient")
    from captioner.serving.app import create_app
    from captioner.serving.schemas import Limits

    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--data-binary")
    parser.add_argument("-F")
    options = parser.parse_args(argv)
    if parse:
        return
    url = urlsplit(options.url)
    model = Captioner.from_pretrained("checkpoints/RUN", "cpu")
    address = f"{url.scheme}://{url.netloc}"
    with testing.TestClient(create_app(model, Limits()), base_url=address) as client:
        target = f"{url.path}?{url.query}"
        if options.F:
            field, _, file = options.F.partition("=@")
            response = client.post(target, files={field: Path(file).read_bytes()})
        else:
            response = client.post(target, content=Path(options.data_binary[1:]).read_bytes())
    assert response.status_code == 200, response.text


def check_torchrun(argv, *, parse):  # noqa: ARG001  never run
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.distributed.run import get_args_parser
    options = get_args_parser().parse_args(argv)
    run_python([options.training_script, *options.training_script_args], parse=True)


def check_installation(argv, *, parse):  # noqa: ARG001  nothing is installed
    """The extras that `pip install` names exist."""
    assert argv[0] == "install"
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    packages = [word for word in argv if word.startswith((".", "captioner"))]
    named = {
        extra
        for package in packages
        for extras in re.findall(r"\[(.*)\]", package)
        for extra in extras.split(",")
    }
    unknown = named - set(setup["options.extras_require"])
    assert not unknown, f"{unknown} is not an extra"


def check_tensorboard(argv, *, parse):  # noqa: ARG001  runs until it is stopped
    assert argv[:-1] == ["--logdir"]


PROGRAMS = {
    "python": run_python,
    "captioner": run_captioner,
    "curl": run_curl,
    "torchrun": check_torchrun,
    "pip": check_installation,
    "tensorboard": check_tensorboard,
}


def run_command(line, *, parse=False):
    """Run one command of a page, or only parse it; fails for a kind that is not known."""
    before, pipe, after = line.rpartition(" | ")
    if pipe:
        piped = subprocess.run(before, shell=True, check=True, timeout=20, capture_output=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(piped.stdout)))
            run_command(after, parse=parse)
        return
    line, redirect, file = line.partition(" > ")
    if redirect:
        with open(file, "w") as out, contextlib.redirect_stdout(out):
            run_command(line, parse=parse)
        return
    program, *argv = [word for raw in shlex.split(line) if (word := raw.removesuffix("..."))]
    if line.startswith(TOOLS):
        return
    if program in SHELL:
        subprocess.run(line, shell=True, check=True, timeout=20)
    elif program in PROGRAMS:
        PROGRAMS[program](argv, parse=parse)
    else:
        raise ValueError(f"{line!r}: a kind of command that is not known")


def only_parsed(page, text):
    return page.startswith(MEASURED) or any(marker in text for marker in ONLY_PARSED)


# ---- the tests -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("page", pages.PAGES)
def test_commands_and_python_of_a_page_run(page, made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_small(monkeypatch)
    level = LOGGER.level
    try:
        run_page(page, made)
    finally:
        LOGGER.setLevel(level)  # a page shows how to hide messages


def run_page(page, made):
    """Run the page's blocks from top to bottom in the working directory."""
    names = {"__name__": "page"}
    for block in pages.blocks(page):
        provide(block.text if block.kind in ("sh", "python") else "", made)
        try:
            if block.kind == "python":
                code = compile(block.text, f"{page}:{block.line}", "exec")
                if not only_parsed(page, block.text):
                    exec(code, names)
            elif block.kind == "sh":
                for line in block.commands:
                    run_command(line, parse=only_parsed(page, line))
        except (Exception, SystemExit) as error:
            pytest.fail(f"{page}:{block.line}: {block.text}\n{type(error).__name__}: {error}")


@pytest.mark.parametrize("page", pages.PAGES)
def test_inline_commands_parse(page):
    for code in inline_commands(page):
        words = [NUMBERS.get(word, word) for word in shlex.split(code) if word != "--help"]
        try:
            if words[0] == "captioner" and len(words) == 2:  # only a command's name
                assert words[1] in command.COMMANDS
            elif shlex.join(words) not in ("python evaluate.py", "python -m captioner"):
                run_command(shlex.join(words), parse=True)
        except (Exception, SystemExit) as error:
            pytest.fail(f"{page}: {code}\n{type(error).__name__}: {error}")


def inline_commands(page):
    """Commands between backticks, without those whose arguments before the flags are elided."""
    for raw in pages.inline(page):
        code = re.sub(r"^(train|evaluate)\.py", r"python \g<0>", raw).replace("`", "")
        if re.match(r"(python|captioner|torchrun) ", code) and "..." not in code.split("--")[0]:
            yield code


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Prints\n\n    a dog\n", "neither commands nor Python"),
        ("```\npython train.py\n```\n", "neither commands nor Python"),
        ("    \n\n    pip install captioner[all]\n", "is not an extra"),
        ("\n    cat a.txt &&\\\n      format-disk\n", "a kind of command that"),
        ("\n    python train.py --atention\n", "SystemExit: 2"),
        ("\n    from captioner import Caption\n    Caption.show\n", "AttributeError"),
    ],
)
def test_a_wrong_page_fails(text, message, made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_small(monkeypatch)
    (tmp_path / "a.txt").touch()
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises((ValueError, pytest.fail.Exception), match=message):
        run_page(str(page), made)


def train_parser(system):
    parser = argparse.ArgumentParser()
    train_command.add_arguments(parser, ["--system", system])
    return parser


@pytest.fixture(scope="module")
def flags():
    """Every flag of every program."""
    benchmarks = "".join(map(read, ROOT.glob("benchmarks/*.py")))
    parsers = [
        *(train_parser(task.name) for task in TASKS),
        parser_of(lambda: evaluate_command.parse([])),
    ]
    commands = command.parser()._subparsers._group_actions[0].choices.values()
    return {
        *re.findall(r'"(--[a-z-]+)"', benchmarks),
        *OTHER_FLAGS,
        *(flag for parser in (*parsers, *commands) for flag in parser._option_string_actions),
    }


@pytest.mark.parametrize("page", pages.PAGES)
def test_every_flag_exists(page, flags):
    assert {*re.findall(r"(?<![\w-])--[a-z][a-z-]+", read(ROOT / page))} <= flags


def read(path):
    return path.read_text(encoding="utf-8")
