"""train.py, evaluate.py and `python -m captioner` on right and wrong command lines.

All command lines run once, before the first test, as separate processes with real exit codes. They
are forked from one process that has already imported the slow modules.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image

import train
from captioner import Captioner
from captioner import __main__ as commands
from captioner.data.demo import dataset as demo
from captioner.errors import InputError, Interrupted, run_command
from captioner.vision.encoders import SmallCNN
from tests.support import tiny
from tests.support.signing import sign

ROOT = Path(__file__).parents[2]

LAUNCHER = """
import json, os, runpy, signal, sys

jobs = json.load(open(sys.argv[1]))
import matplotlib.figure, nltk, safetensors.torch
import captioner.captioner, evaluate

def interrupt_first_batch():
    from captioner.tasks.captioning import batches as epoch_batches
    load = epoch_batches.make_batch

    def loaded(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        return load(*args)

    epoch_batches.make_batch = loaded

for number, setup in enumerate(jobs):
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # so that a command that hangs fails
        for descriptor, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{setup['at']}.{name}", os.O_CREAT | os.O_WRONLY), descriptor)
        os.mkdir(setup["at"])
        os.chdir(setup["at"])
        if setup["interrupt"]:
            interrupt_first_batch()
        program, *sys.argv[1:] = setup["command"]
        try:
            if program == "captioner":
                runpy.run_module("captioner", run_name="__main__", alter_sys=True)
            else:
                sys.argv[0] = program
                runpy.run_path(os.path.join(setup["root"], program), run_name="__main__")
            end = 0
        except SystemExit as ended:
            end = ended.code
        if setup["ends by itself"]:
            sys.exit(end)
        if isinstance(end, str):  # as Python does, which takes a second or two with torch
            print(end, file=sys.stderr)
        sys.stdout.flush()
        os._exit(1 if isinstance(end, str) else end)
    setup["code"] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
json.dump([setup["code"] for setup in jobs], open(sys.argv[1], "w"))
"""


@dataclass
class Mistake:
    """A command that must fail with one sentence that matches, and write nothing."""

    command: str
    message: str
    code: int = 1


ON_COLOURS = "train.py --data {colours} {options}"

MISTAKES = {
    # data
    "missing data": Mistake("train.py --data gone", "data set gone does not exist"),
    "unknown layout": Mistake(
        "train.py --data {here}/empty", "contains no captions in a known layout"
    ),
    "other layout": Mistake(
        "train.py --data {colours} --format kaggle",
        r"in the layout of the given format \(kaggle: captions.txt beside Images/\)",
    ),
    "missing images": Mistake(
        "train.py --data {here}/missing", r"image 6: the image \S*/5.png is missing; add the file"
    ),
    "empty split": Mistake(
        "train.py --data {here}/no-val", "no images in split 'val'; choose test or train"
    ),
    "corrupt image, trained encoder": Mistake(
        "train.py --data {here}/corrupt {options}",
        r"has 1 problem; .* \S*/5.png: not an image in any of",
    ),
    "corrupt image, loaded by a worker": Mistake(
        "train.py --data {here}/corrupt {options} --workers 1",
        r"has 1 problem; .* \S*/5.png: not an image in any of",
    ),
    "corrupt image, frozen encoder": Mistake(
        "train.py --data {here}/corrupt {options} --encoder-weights {here}/small.pth",
        r"has 1 problem; .* \S*/5.png: not an image in any of",
    ),
    "corrupt image, frozen encoder, worker": Mistake(
        "train.py --data {here}/corrupt {options} --encoder-weights {here}/small.pth --workers 1",
        r"has 1 problem; .* \S*/5.png: not an image in any of",
    ),
    "rare words": Mistake(f"{ON_COLOURS} --min-count 99", "no word occurs at least 99 times"),
    # encoder
    "unknown encoder": Mistake(
        f"{ON_COLOURS} --encoder resnet5", r"unknown encoder 'resnet5'; choose small_cnn, timm:NAME"
    ),
    "encoder without a map": Mistake(
        f"{ON_COLOURS} --encoder vit_b_16", r"'vit_b_16' does not return a square feature map"
    ),
    "weights of another encoder": Mistake(
        f"{ON_COLOURS} --encoder squeezenet1_1 --encoder-weights {{here}}/small.pth",
        r"do not fit squeezenet1_1: features.0.weight is missing; .* more",
    ),
    "missing weights": Mistake(
        f"{ON_COLOURS} --encoder-weights gone.pth", "encoder weights gone.pth do not exist"
    ),
    "file without weights": Mistake(
        f"{ON_COLOURS} --encoder-weights {{here}}/corrupt/train/5.pth",
        r"encoder weights \S+5.pth cannot be read: it is damaged, or was not",
    ),
    "stage above the last": Mistake(
        f"{ON_COLOURS} --fine-tune-encoder 9",
        "--fine-tune-encoder must be a stage of small_cnn, from 0 to 3, got 9",
    ),
    "stage below zero": Mistake(
        f"{ON_COLOURS} --fine-tune-encoder -1", "--fine-tune-encoder must be a stage of small_cnn"
    ),
    # options
    "tiny images": Mistake(f"{ON_COLOURS} --image-size 8", "image_size must be at least 32, got 8"),
    "no batch": Mistake(f"{ON_COLOURS} --batch-size 0", "batch_size must be at least 1, got 0"),
    "no epochs": Mistake(f"{ON_COLOURS} --epochs 0", "epochs must be at least 1, got 0"),
    "no rate": Mistake(
        f"{ON_COLOURS} --learning-rate 0", "learning_rate must be finite and above 0, got 0.0"
    ),
    "all dropped": Mistake(f"{ON_COLOURS} --dropout 1", "dropout must be at least 0 and below 1"),
    "no workers": Mistake(f"{ON_COLOURS} --workers -1", "workers must be at least 0, got -1"),
    "no count": Mistake(f"{ON_COLOURS} --min-count 0", "min_count must be at least 1, got 0"),
    "no number": Mistake("train.py --epochs two", "argument --epochs: invalid int value: 'two'", 2),
    "option of another system": Mistake(
        "train.py --system linear --attention",
        "--attention has no effect with --system linear; omit it, or use --system captioning",
        2,
    ),
    "unknown option": Mistake("train.py --atention", "unrecognized arguments: --atention", 2),
    "unknown score": Mistake(
        f"{ON_COLOURS} --watch spice", "watch must be one of bleu-4, .*, got 'spice'", 1
    ),
    "unknown device": Mistake(
        f"{ON_COLOURS} --device abacus", "device must be cpu, cuda, cuda:N or mps, got 'abacus'"
    ),
    "absent device": Mistake(f"{ON_COLOURS} --device cuda:99", "device 'cuda:99' cannot be used: "),
    "nothing to resume": Mistake(
        f"{ON_COLOURS} --run new --resume", "checkpoints/new cannot be resumed: "
    ),
    # evaluate.py
    "no checkpoint named": Mistake("evaluate.py", "pass either --checkpoint, for example", 2),
    "checkpoint and captions": Mistake(
        "evaluate.py --checkpoint {run} --predictions a.json", "or --predictions", 2
    ),
    "captions without references": Mistake(
        "evaluate.py --predictions a.json", "--predictions cannot be scored without references"
    ),
    "missing captions": Mistake(
        "evaluate.py --predictions gone.json --references {here}/jobs.json",
        "gone.json cannot be read: No such file",
    ),
    "file without captions": Mistake(
        "evaluate.py --predictions {here}/jobs.json --references {here}/jobs.json",
        "jobs.json, entry 1: expected one of the keys image_id, file_name, ",
    ),
    "missing checkpoint": Mistake(
        "evaluate.py --checkpoint gone", "checkpoint gone does not exist"
    ),
    "directory of something else": Mistake(
        "evaluate.py --checkpoint {colours}", "does not contain a checkpoint: there is no "
    ),
    "checkpoint of another kind": Mistake(
        "evaluate.py --checkpoint {here}/retrieval",
        "retrieval was trained for 'retrieval', but this version of captioner supports ",
    ),
    "damaged checkpoint": Mistake(
        "evaluate.py --checkpoint {here}/damaged", "is damaged: model.safetensors does not match"
    ),
    "evaluation of several": Mistake(
        "evaluate.py --checkpoint {run} --num-captions 2", "omit --num-captions"
    ),
    "split without images": Mistake(
        "evaluate.py --checkpoint {run} --data {here}/no-val", "no images in split 'val'"
    ),
    "corrupt image to score": Mistake(
        "evaluate.py --checkpoint {run} --data {here}/corrupt --split train",
        r"has 1 problem; .* \S*/5.png: not an image in any of",
    ),
    # captioner train, captioner evaluate
    "option that does not exist in a file": Mistake(
        "captioner train --config {here}/wrong.toml",
        r"wrong.toml: unknown option 'atention'; did you mean 'attention'\?",
    ),
    "training command without its data": Mistake(
        "captioner train --data gone", "data set gone does not exist"
    ),
    "evaluation command without a checkpoint": Mistake(
        "captioner evaluate", "pass either --checkpoint, for exam", 2
    ),
    # python -m captioner
    "no command": Mistake("captioner", "the following arguments are required: COMMAND", 2),
    "missing image": Mistake(
        "captioner caption gone.png --checkpoint {run}", "1 of 1 images .*; see the errors above"
    ),
    "one bad image of two": Mistake(
        "captioner caption {image} {here}/corrupt/train/5.png --checkpoint {run}",
        "1 of 2 images could not be captioned",
    ),
    "no images": Mistake(
        "captioner caption {here}/empty --checkpoint {run}", "no images found for '.*/empty'"
    ),
    "invalid shard": Mistake(
        "captioner caption {image} --checkpoint {run} --shard 3/2", "shard must be i/n with i"
    ),
    "maps without attention": Mistake(
        "captioner caption {image} --checkpoint {plain} --heatmap maps",
        "has no attention; omit --heatmap",
    ),
    "contradiction": Mistake(
        "captioner caption {image} --checkpoint {run} --top-k 5",
        "top_k requires method 'sample', got method 'beam'; change the method or omit top_k",
    ),
    "many from greedy": Mistake(
        "captioner caption {image} --checkpoint {run} --method greedy --num-captions 2",
        "greedy decoding returns one caption, got num_captions 2",
    ),
    "no batch to caption": Mistake(
        "captioner caption {image} --checkpoint {run} --batch-size 0", "batch_size must be at lea"
    ),
    "caption by another kind": Mistake(
        "captioner caption {image} --checkpoint {here}/retrieval",
        "was trained for 'retrieval', not 'cap",
    ),
    "demo data over other data": Mistake(
        "captioner demo-data {colours}", "exists, but is not a complete demo data set"
    ),
}

VALID = {
    "caption": "captioner caption {image} {here}/b/0.png --checkpoint {here}/sent --heatmap maps",
    "animations": "captioner caption {image} --checkpoint {run} --heatmap m --heatmap-format gif",
    "alternatives": "captioner caption {image} --checkpoint {run} --num-captions 3 --beam-size 3",
    "evaluate": "evaluate.py --checkpoint {run} --output scores --workers 0 --metrics bleu",
    "train help": "train.py --help",
    "evaluate help": "evaluate.py --help",
    "caption help": "captioner caption --help",
    "train": "captioner train --data {colours} --attention {options} --epochs 1",
    "interrupted": f"{ON_COLOURS} --run stopped",
}


@dataclass
class Done:
    """The exit code and output of a command, and its working directory."""

    code: int
    out: str
    err: str
    directory: Path


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The results of all commands by name."""
    here = tmp_path_factory.mktemp("commands")
    colours = tiny.data(tmp_path_factory)
    run, plain = (tiny.run(tmp_path_factory, attention=yes) for yes in (True, False))
    (here / "empty").mkdir()
    for name in ("missing", "no-val", "corrupt"):
        shutil.copytree(colours, here / name)
    missing = here / "missing" / "train" / "5.png"
    missing.rename(missing.with_name("6000.png"))
    (here / "no-val" / "annotations" / "captions_val.json").unlink()
    (here / "corrupt" / "train" / "5.png").write_bytes(b"no image")
    (here / "corrupt" / "train" / "5.pth").write_bytes(b"no weights")
    (here / "wrong.toml").write_text("[model]\natention = true\n")
    torch.save(SmallCNN().state_dict(), here / "small.pth")
    for name in ("retrieval", "damaged", "sent"):
        shutil.copytree(run / "best", here / name)
    config = json.loads((here / "retrieval" / "config.json").read_text())
    (here / "retrieval" / "config.json").write_text(json.dumps(config | {"task": "retrieval"}))
    sign(here / "retrieval")
    weights = here / "damaged" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    image = here / "a" / "0.png"
    for path in (image, here / "b" / "0.png"):
        path.parent.mkdir()
        Image.new("RGB", (30, 20), tiny.COLOURS["red"]).save(path)

    places = {
        "here": here,
        "colours": colours,
        "run": run,
        "plain": plain,
        "image": image,
        "options": " ".join(tiny.OPTIONS),
    }
    lines = {name: mistake.command for name, mistake in MISTAKES.items()} | VALID
    jobs = [
        {
            "command": line.format(**places).split(),
            "at": str(here / f"job{number}"),
            "root": str(ROOT),
            "interrupt": name == "interrupted",
            "ends by itself": name in ("missing data", "caption", "corrupt image to score"),
        }
        for number, (name, line) in enumerate(lines.items())
    ]
    (here / "jobs.json").write_text(json.dumps(jobs))
    subprocess.run(
        [sys.executable, "-c", LAUNCHER, here / "jobs.json"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=300,
    )
    codes = json.loads((here / "jobs.json").read_text())
    return {
        name: Done(
            code,
            Path(f"{setup['at']}.out").read_text(),
            Path(f"{setup['at']}.err").read_text().replace("\r", "\n"),
            Path(setup["at"]),
        )
        for name, setup, code in zip(lines, jobs, codes, strict=True)
    }


def files(directory):
    """The files in a directory, without the cache."""
    found = (str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file())
    return sorted(name for name in found if not name.startswith("checkpoints/.cache/"))


@pytest.mark.slow
@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_end_with_one_sentence_and_leave_nothing(done, name):
    mistake, found = MISTAKES[name], done[name]
    last = found.err.strip().splitlines()[-1]
    assert re.search(mistake.message, last), found.err
    assert re.match(r"error: |\S+( \w+)?: error: ", last)
    assert found.code == mistake.code
    assert "Traceback" not in found.err + found.out
    assert found.err.count("error: ") == 1
    assert len(last) < 2500
    assert files(found.directory) == []
    assert not list(found.directory.glob("checkpoints/[!.]*"))  # not even an empty run directory


@pytest.mark.slow
def test_caption(done, tmp_path_factory):
    """With a copied checkpoint; two images of one name get two heatmaps."""
    found = done["caption"]
    assert (found.code, found.err) == (0, "")
    captions, note = found.out.splitlines()[:2], found.out.splitlines()[2]
    captioner = Captioner.from_pretrained(tiny.run(tmp_path_factory, attention=True), "cpu")
    places = [found.directory.parent / directory / "0.png" for directory in "ab"]
    text = captioner.caption(places[0]).text
    assert captions == [f"{place}\t{text}" for place in places]
    assert note == "heatmaps: maps"
    assert files(found.directory) == ["maps/0-0.png", "maps/0-1.png"]
    for name in files(found.directory):
        Image.open(found.directory / name).verify()


@pytest.mark.slow
def test_animations(done):
    found = done["animations"]
    assert (found.code, files(found.directory)) == (0, ["m/0.gif"])
    with Image.open(found.directory / "m" / "0.gif") as animation:
        assert animation.n_frames > 2


@pytest.mark.slow
def test_alternatives(done, tmp_path_factory):
    found = done["alternatives"]
    captioner = Captioner.from_pretrained(tiny.run(tmp_path_factory, attention=True), "cpu")
    image = found.directory.parent / "a" / "0.png"
    best = captioner.caption(image, num_captions=3, beam_size=3)
    texts = [caption.text for caption in (best, *best.alternatives)]
    assert found.out.splitlines() == [f"{image}\t{text}" for text in texts]
    assert files(found.directory) == []


@pytest.mark.slow
def test_evaluate(done):
    found = done["evaluate"]
    assert found.code == 0
    assert "BLEU-4 " in found.out
    assert "|tokens:ptb-coco|" in found.out
    assert found.out.splitlines()[-1] == "captions and scores: scores"
    assert files(found.directory) == ["scores/captions.json", "scores/scores.json"]


@pytest.mark.slow
def test_train(done):
    found = done["train"]
    assert found.code == 0, found.err
    assert (
        "\n  python -m captioner evaluate --checkpoint checkpoints/colours-attention" in found.out
    )
    longer = found.out.splitlines()[-1]
    assert longer.startswith("  python -m captioner train --data ")
    assert longer.endswith("--epochs 2 --run colours-attention-2-epochs")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train help", "evaluate help", "caption help"])
def test_help(done, name):
    found = done[name]
    assert (found.code, found.err, files(found.directory)) == (0, "", [])
    flags = re.findall(r"^  (?:-\w, )?(--[a-z-]+)", found.out, re.MULTILINE)
    assert len(flags) == len(set(flags)) <= 52
    for flag in flags:  # has a help text
        assert re.search(rf"^  .*{flag}\b[^\n]*\s+[^\s-]\S* \S+", found.out, re.MULTILINE), flag
    assert "None" not in found.out
    assert "default: False" not in found.out


@pytest.mark.slow
def test_interrupted(done):
    """After a signal the step is finished and saved, and the exit code reports the signal."""
    found = done["interrupted"]
    assert found.code == 128 + signal.SIGTERM
    assert (
        found.err.strip().splitlines()[-1]
        == "stopped by SIGTERM; everything is saved; pass --resume to continue"
    )
    assert "Traceback" not in found.err
    assert {name.split("/")[2] for name in files(found.directory)} == {"last"}


# ---- the demo data ------------------------------------------------------------------------------


def losses(run):
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [tiny.untimed(row) for row in rows]


def test_demo_data_of_the_command_train_the_same_run(tmp_path, monkeypatch, capsys):
    write = demo.write_demo
    monkeypatch.setattr(
        demo, "write_demo", lambda directory: write(directory, train=16, val=4, test=2)
    )
    monkeypatch.chdir(tmp_path)
    commands.main(["demo-data", "by-hand"])
    assert capsys.readouterr().out == "demo data: by-hand\n"
    train.main(["--data", "by-hand", "--attention", *tiny.OPTIONS])
    train.main(["--attention", *tiny.OPTIONS])
    assert losses(Path("checkpoints/by-hand-attention")) == losses(
        Path("checkpoints/demo-attention")
    )


# ---- exit codes and messages ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "stderr"),
    [
        (InputError("wrong"), "error: wrong", ""),
        (FloatingPointError("not finite"), "error: not finite", ""),
        (
            OSError(28, "No space left on device"),
            "error: No space left on device; free some space or choose another disk",
            "",
        ),
        (
            PermissionError(13, "Permission denied", "runs"),
            "error: runs cannot be used: Permission denied; "
            "choose another path or change its permissions",
            "",
        ),
        (OSError("of a library"), "error: of a library", ""),
        (OSError(5, "Input/output error", 3), "error: 3 cannot be used: Input/output error", ""),
        (
            Interrupted(signal.SIGINT),
            130,
            "stopped by SIGINT; everything is saved; pass --resume to continue\n",
        ),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_exit_code_and_message(error, code, stderr, capsys):
    def main():
        raise error

    with pytest.raises(SystemExit) as ended:
        run_command(main)
    assert ended.value.code == code
    assert capsys.readouterr().err == stderr


def test_bugs_keep_their_traceback():
    def main():
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        run_command(main)
    run_command(lambda: None)
