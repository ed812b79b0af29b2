"""Whatever README and docs/ tell people to type is run, and no flag is told of that there is not.

A page is a story: its blocks run one after another in a directory of its own. What they name and none
before has made (`dog.jpg`, `checkpoints/RUN`) is put there first, as stand_ins.py has it. Trainings
are shortened by SHORT. What cannot be run here is at least parsed, and ONLY_PARSED says why.
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
from captioner.data.demo import scenes as demo
from captioner.cli import evaluate as evaluate_command
from captioner.cli import train as train_command
from tests.support import pages
from tests.support.stand_ins import provide

ROOT = pages.ROOT
SHORT = (
    "--epochs 1 --batch-size 8 --hidden-size 16 --embedding-size 16 --image-size 64 --workers 0 "
    "--precision float32 --device cpu --samples 0 --heatmaps 1 --no-curves"
).split()
ONLY_PARSED = {  # commands and Python that hold this, and why they are not run
    "captioner serve": "it ends when it is told to; tests/serving/test_app.py does",
    "captioner export": "half a minute and an extra; tests/inference/test_export.py does",
    "onnxruntime": "the same",
    "push_to_hub": "the network; tests/checkpoints/test_hub.py has a hub of its own",
    "user/": "the same",
    "recipes/": "extras and processes; tests/docs/test_recipes.py does",
    "https://host": "the network; tests/data/storage/test_remote_tar.py has a server of its own",
    "--tensorboard": "an extra; tests/training/test_logging.py does",
    "benchmarks": "minutes",
    "torchrun": "processes that import torch anew; tests/test_distributed.py has two",
}
LONG = ("docs/results.md", "docs/performance")  # pages of commands that took minutes and hours
OURS = ("pytest", ".ci/run", "ruff ", "mypy", "python -m venv", ". .venv")  # of CONTRIBUTING.md
FOREIGN = {  # of programs that are not ours
    *("--data-binary", "--check", "--logdir", "--nproc-per-node", "--nnodes"),
    *("--rdzv-backend", "--rdzv-endpoint", "--rdzv-id"),
}
WRITTEN = {"onnx_caption.py"}  # programs that pages show
NUMBERS = {"N": "1", "P": "0.5", "STAGE": "0"}  # what commands within the text say


# ---- what all pages begin with -------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The demo's first scenes, and a run on them."""
    here = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        make_small(patch)
        demo.write_demo(Path("demo"))
        run_command("python train.py --attention")
    return here


def make_small(patch):
    """Of everything less: scenes, heatmaps, Java, C++."""
    write = demo.write_demo
    patch.setattr(demo, "write_demo", lambda path: write(path, train=24, val=8, test=4))
    patch.setattr(captioner, "compile_steps", lambda model: model)
    patch.setattr("captioner.metrics.meteor.shutil.which", lambda name: None)


# ---- commands ------------------------------------------------------------------------------------


class Found(Exception):
    """The parser that a program was about to use."""


def parser_of(main):
    """The parser that `main()` makes; nothing of what it would do is done."""

    def stop(parser, *args, **kwargs):
        raise Found(parser)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_known_args", stop)
        with pytest.raises(Found) as found:
            main()
    return found.value.args[0]


def module_parser(module):
    """The parser of `python -m module`, also where another test has imported it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(sys.modules, module, raising=False)
        return parser_of(lambda: runpy.run_module(module, run_name="__main__", alter_sys=True))


def run_training(argv, *, parse):
    train_command.parse(argv)
    if not parse:
        rare = [] if {"--start-from", "--min-count"} & {*argv} else ["--min-count", "1"]
        train.main([*argv, *SHORT, *rare])


def run_evaluation(argv, *, parse):
    evaluate_command.parse(argv)
    if not parse:
        evaluate.main(argv)


def run_captioner(argv, *, parse):
    command.parser(argv[:1]).parse_args(argv)
    if not parse:
        command.main(argv)


def run_curl(line):
    """The request that curl would make, of the application itself."""
    testing = pytest.importorskip("fastapi.testclient")
    from captioner.serving.app import create_app
    from captioner.serving.schemas import Limits

    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--data-binary")
    parser.add_argument("-F")
    asked = parser.parse_args(shlex.split(line)[1:])
    url = urlsplit(asked.url)
    model = Captioner.from_pretrained("checkpoints/RUN", "cpu")
    with testing.TestClient(create_app(model, Limits())) as client:
        place = f"{url.path}?{url.query}"
        if asked.F:
            name, _, file = asked.F.partition("=@")
            answer = client.post(place, files={name: Path(file).read_bytes()})
        else:
            answer = client.post(place, content=Path(asked.data_binary[1:]).read_bytes())
    assert answer.status_code == 200, answer.text


def check_installation(words):
    """The extras that are asked for exist."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    there = set(setup["options.extras_require"])
    ours = [word for word in words if word.startswith((".", "captioner"))]
    asked = {
        e for word in ours for several in re.findall(r"\[(.*)\]", word) for e in several.split(",")
    }
    assert asked <= there, f"{asked - there} is no extra"


def run_command(line, *, parse=False):
    """A command as it stands on a page; fails for one of a kind that is not known."""
    first, piped, line = line.rpartition(" | ")
    if piped:
        listed = subprocess.run(first, shell=True, check=True, timeout=20, capture_output=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(listed.stdout)))
            return run_command(line, parse=parse)
    line, redirected, file = line.partition(" > ")
    if redirected:
        with open(file, "w") as out, contextlib.redirect_stdout(out):
            return run_command(line, parse=parse)
    words = [word.removesuffix("...") for word in shlex.split(line)]
    words = [word for word in words if word]
    match words:
        case ["python", "train.py", *argv]:
            run_training(argv, parse=parse)
        case ["python", "evaluate.py", *argv]:
            run_evaluation(argv, parse=parse)
        case ["python", "-m", "captioner", *argv] | ["captioner", *argv]:
            run_captioner(argv, parse=parse)
        case ["python", "-m", module, *argv] if module.startswith("benchmarks"):
            module_parser(module).parse_known_args(argv)
        case ["torchrun", *argv]:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                from torch.distributed.run import get_args_parser
            read = get_args_parser().parse_args(argv)
            words = ["python", read.training_script, *read.training_script_args]
            run_command(shlex.join(words), parse=True)
        case ["curl", *_]:
            run_curl(line)
        case ["pip", "install", *_]:
            check_installation(words)
        case ["cp" | "mkdir" | "ls" | "head" | "cat" | "echo" | "find", *_]:
            subprocess.run(line, shell=True, check=True, timeout=20)
        case ["python", file, *_] if parse:
            assert file in WRITTEN or (ROOT / file).is_file()
        case ["tensorboard", "--logdir", _]:
            pass
        case _:
            assert line.startswith(OURS), (
                f"{line!r}: a kind of command that tests/docs/test_docs.py does not know"
            )


def only_parsed(page, text):
    """Whether commands or Python may not be run."""
    return page.startswith(LONG) or any(each in text for each in ONLY_PARSED)


# ---- the tests -----------------------------------------------------------------------------------


@pytest.mark.parametrize("page", pages.PAGES)
def test_what_a_page_tells_to_type_is_run(page, made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_small(monkeypatch)
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
def test_commands_within_the_text_are_commands(page):
    for code in pages.inline(page):
        code = re.sub(r"^(train|evaluate)\.py", r"python \g<0>", code).replace("`", "")
        if re.match(r"(python|captioner|torchrun) ", code) and "..." not in code.split("--")[0]:
            words = [NUMBERS.get(word, word) for word in shlex.split(code) if word != "--help"]
            try:
                if words[0] == "captioner" and len(words) == 2:  # the name alone
                    assert words[1] in command.COMMANDS
                elif shlex.join(words) not in ("python evaluate.py", "python -m captioner"):
                    run_command(shlex.join(words), parse=True)
            except (Exception, SystemExit) as error:
                pytest.fail(f"{page}: {code}\n{type(error).__name__}: {error}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Prints\n\n    a dog\n", "neither commands nor Python"),
        ("```\npython train.py\n```\n", "neither commands nor Python"),
        ("    \n\n    pip install captioner[all]\n", "is no extra"),
        ("\n    cat a.txt &&\\\n      format-disk\n", "a kind of command that"),
        ("\n    python train.py --atention\n", "SystemExit: 2"),
        ("\n    from captioner import Caption\n    Caption.show\n", "AttributeError"),
    ],
)
def test_pages_that_are_wrong(text, message, made, tmp_path, monkeypatch):
    (tmp_path / "a.txt").touch()
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises((ValueError, pytest.fail.Exception), match=message):
        test_what_a_page_tells_to_type_is_run(str(page), made, tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def flags():
    """Every flag of every program."""
    of_benchmarks = re.findall(r'"(--[a-z-]+)"', "".join(map(read, ROOT.glob("benchmarks/*.py"))))
    parsers = [parser_of(lambda: train_command.parse([])), parser_of(lambda: evaluate_command.parse([]))]
    commands = command.parser()._subparsers._group_actions[0].choices.values()
    return {
        *of_benchmarks,
        *FOREIGN,
        *(f for p in (*parsers, *commands) for f in p._option_string_actions),
    }


@pytest.mark.parametrize("page", pages.PAGES)
def test_every_flag_is_there(page, flags):
    assert {*re.findall(r"(?<![\w-])--[a-z][a-z-]+", read(ROOT / page))} <= flags


def read(path):
    return path.read_text(encoding="utf-8")
