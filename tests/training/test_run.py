"""Complete training runs: exact resuming, run directories, watched scores, the demo data."""

import errno
import io
import json
import math
import os
import re
import signal
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import train
from captioner.checkpoints import checkpoint
from captioner.checkpoints.captioning import restore
from captioner.data.demo import dataset as demo
from captioner.errors import InputError, Interrupted, run_command
from captioner.evaluation import split
from captioner.metrics import captions as metrics
from captioner.metrics.statistics import SufficientStatistics
from captioner.models.captioning import show_and_tell
from captioner.tasks.captioning import job
from captioner.tasks.options import TrainingOptions
from captioner.vision.encoders import SmallCNN
from tests.support import tiny
from tests.support.interrupting import assert_same_run, interrupt_at

NAMES = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr")  # those without Java

FOUR_STEPS = ["--batch-size", "5", "--dropout", "0.5"]  # per epoch


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "step", "signum"),
    [
        ([], 2, signal.SIGTERM),
        (["--attention"], 3, signal.SIGINT),
        (["--attention"], 4, signal.SIGTERM),  # the last of the first epoch
        (["--attention"], 5, signal.SIGINT),
        (["--attention", "--hard-attention"], 3, signal.SIGTERM),
        (["--scheduled-sampling", "0.9"], 3, signal.SIGINT),
    ],
)
def test_resuming_is_exact(train_run, monkeypatch, options, step, signum):
    straight = train_run("straight", *FOUR_STEPS, *options)
    with monkeypatch.context() as patch:
        interrupt_at(step, signum, patch)
        with pytest.raises(Interrupted, match=signum.name):
            train_run("stopped", *FOUR_STEPS, *options)
    assert checkpoint.load("checkpoints/stopped/last").training_state()["progress"]["step"] == step
    assert_same_run(train_run("stopped", *FOUR_STEPS, *options, "--resume"), straight)


@pytest.mark.slow
def test_resuming_is_exact_with_a_frozen_encoder_and_twice(train_run, monkeypatch):
    torch.manual_seed(3)
    torch.save(SmallCNN().state_dict(), "encoder.pth")
    options = [*FOUR_STEPS, "--attention", "--encoder-weights", "encoder.pth"]
    straight = train_run("straight", *options)
    for step in (1, 2):  # the first step, then the third
        with monkeypatch.context() as patch:
            interrupt_at(step, signal.SIGTERM, patch)
            with pytest.raises(Interrupted):
                train_run("stopped", *options, *(["--resume"] if step > 1 else []))
    assert_same_run(train_run("stopped", *options, "--resume"), straight)
    weights = checkpoint.load(straight).weights
    for key, value in torch.load("encoder.pth").items():
        assert torch.equal(weights[f"encoder.layers.{key}"], value)


@pytest.mark.slow
def test_a_run_from_a_gpu_resumes_exactly_without_one(train_run, monkeypatch):
    """Its training state is the one that a GPU would write: all tensors are tagged with cuda:0."""
    straight = train_run("straight", *FOUR_STEPS)
    with monkeypatch.context() as patch:
        interrupt_at(3, signal.SIGTERM, patch)
        patch.setattr(torch.serialization, "location_tag", lambda _: "cuda:0")
        with pytest.raises(Interrupted):
            train_run("stopped", *FOUR_STEPS)
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="on a CUDA device"):
            torch.load("checkpoints/stopped/last/training_state.pt", weights_only=True)
    assert_same_run(train_run("stopped", *FOUR_STEPS, "--resume"), straight)


@pytest.mark.parametrize(
    ("before", "message"),
    [
        ([], "error: the cache in checkpoints/.cache cannot be written: "),
        (["other"], "error: checkpoints/mine cannot be used: "),
        (["mine"], "error: checkpoints/mine/.lock cannot be used: "),
    ],
    ids=["first", "another", "resumed"],
)
def test_a_read_only_directory_is_refused_before_the_first_step(
    train_run, monkeypatch, capsys, before, message
):
    """Creating files fails here as on a read-only disk: root ignores permissions."""
    for name in before:
        train_run(name, *FOUR_STEPS)
    capsys.readouterr()
    existing = {path: path.stat().st_mtime_ns for path in Path().rglob("*")}
    mkdir, open_file, root = os.mkdir, io.open, Path("checkpoints").resolve()

    def refuse(path):
        where = Path(path).resolve() if isinstance(path, str | Path) else Path()
        if root in where.parents and (where.name == ".lock" or not where.exists()):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(os, "mkdir", lambda path, *rest: refuse(path) or mkdir(path, *rest))
    monkeypatch.setattr(
        io, "open", lambda path, *args, **kw: refuse(path) or open_file(path, *args, **kw)
    )
    with pytest.raises(SystemExit) as ended:
        run_command(lambda: train_run("mine", *FOUR_STEPS, "--resume", "auto"))
    assert ended.value.code.startswith(message)
    assert "Read-only file system" in ended.value.code
    assert "epoch" not in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in Path().rglob("*")} == existing


def test_show_and_tell_standardises_the_maps_of_a_frozen_encoder(train_run):
    torch.manual_seed(3)
    torch.save(SmallCNN().state_dict(), "encoder.pth")
    weights = checkpoint.load(
        train_run("run", *FOUR_STEPS, "--encoder-weights", "encoder.pth")
    ).weights
    assert weights["standardize.mean"].any()


@pytest.mark.slow
def test_the_number_of_workers_changes_nothing(train_run):
    alone = train_run("alone", *FOUR_STEPS)
    assert_same_run(train_run("workers", *FOUR_STEPS, "--workers", "2"), alone)


def test_scheduled_sampling_rises_linearly_from_the_first_step_to_the_last(train_run, monkeypatch):
    probs, original = [], show_and_tell.previous_words

    def record(model, features, batch):
        probs.append(batch.sampling_prob)
        return original(model, features, batch)

    monkeypatch.setattr(show_and_tell, "previous_words", record)
    train_run("run", *FOUR_STEPS, "--scheduled-sampling", "0.7")
    assert probs == pytest.approx([0.1 * step for step in range(8)])


def test_the_last_scores_are_those_of_float32(train_run, monkeypatch):
    precisions, original = [], job.evaluate_split

    def record(*arguments):
        precisions.append(arguments[4].precision)
        return original(*arguments)

    monkeypatch.setattr(job, "evaluate_split", record)
    train_run("run", "--precision", "bfloat16", "--epochs", "2")
    assert precisions == ["bfloat16", "bfloat16", "float32"]


def test_hard_attention_has_its_own_name_and_baseline(train_run):
    options = [*FOUR_STEPS, "--attention", "--hard-attention"]
    weights = checkpoint.load(train_run("run", *options)).weights
    assert -math.log(30) < weights["baseline"] < 0
    rows = [json.loads(row) for row in Path("checkpoints/run/log.jsonl").read_text().splitlines()]
    assert all(0 < row["entropy"] < math.log(64) for row in rows)
    model, _ = restore(checkpoint.load("checkpoints/run"))
    assert model.options.name == "hard-attention"
    assert torch.equal(model.baseline, weights["baseline"])


def test_resuming_a_finished_run_changes_nothing(train_run, capsys):
    run = train_run("run")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    capsys.readouterr()
    train_run("run", "--resume")
    assert "best epoch" in capsys.readouterr().out
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_words_that_a_run_left_out_are_not_listed_when_it_is_resumed(train_run, capsys):
    train_run("rare", "--min-count", "5")
    train_run("rare", "--min-count", "5", "--resume")
    assert "unknown to the model" not in capsys.readouterr().out


def test_an_existing_run_is_not_overwritten(train_run):
    run = train_run("run")
    message = (
        r"checkpoints/run already contains a run; pass --resume to continue it, pass --run NAME"
    )
    with pytest.raises(InputError, match=message):
        train_run("run")
    (run / "last").rename(run / ".last.old")  # as after a replacement that was cut short
    with pytest.raises(
        InputError, match=r"checkpoints/run already contains a run; .*--run NAME to"
    ):
        train_run("run")
    train_run("run", "--resume")


def test_resuming_with_other_options_or_data_is_refused(train_run):
    run = train_run("run", "--epochs", "1")
    before = (run / "last" / "manifest.json").read_bytes()
    changes = ["--epochs", "2", "--hidden-size", "32", "--seed", "1", "--attention"]
    with pytest.raises(
        InputError, match="cannot be resumed with different options or data: "
    ) as caught:
        train_run("run", "--resume", *changes)
    for difference in (
        "training.epochs was 1 but is now 2",
        "model.hidden_size was 16 but is now 32",
        "training.seed was 0 but is now 1",
        "model.attention was False but is now True",
    ):
        assert difference in str(caught.value)
    other = tiny.write_colours(Path("other"))
    captions = other / "annotations" / "captions_train.json"
    captions.write_text(captions.read_text().replace("nothing else", "nothing more"))
    message = (
        r"cannot be resumed with different options or data: image ids, splits or captions have "
        r"changed; restore"
    )
    with pytest.raises(InputError, match=message):
        train_run("run", "--resume", "--epochs", "1", "--data", "other")
    train_run("run", "--resume", "--epochs", "1", "--patience", "7", "--workers", "1")
    assert (run / "last" / "manifest.json").read_bytes() == before


def test_resume_auto_starts_a_run_or_resumes_it(train_run, monkeypatch):
    straight = train_run("straight", *FOUR_STEPS)
    with monkeypatch.context() as patch:
        interrupt_at(6, signal.SIGTERM, patch)
        with pytest.raises(Interrupted):
            train_run("auto", *FOUR_STEPS, "--resume", "auto")
    assert_same_run(train_run("auto", *FOUR_STEPS, "--resume", "auto"), straight)


def test_resume_auto_starts_again_if_a_killed_run_saved_nothing(train_run):
    Path("checkpoints/run/tensorboard").mkdir(parents=True)
    with pytest.raises(InputError, match="already contains a run"):
        train_run("run")
    with pytest.raises(InputError, match=r"it has no checkpoint; .*or --resume auto to start this"):
        train_run("run", "--resume")
    train_run("run", "--resume", "auto", "--epochs", "1")


def test_a_damaged_checkpoint_is_skipped_and_named(train_run, monkeypatch, capsys):
    straight = train_run("straight", *FOUR_STEPS)
    with monkeypatch.context() as patch:
        interrupt_at(6, signal.SIGTERM, patch)
        with pytest.raises(Interrupted):
            train_run("run", *FOUR_STEPS)
    run = Path("checkpoints/run")
    state = run / "last" / "training_state.pt"
    state.write_bytes(state.read_bytes()[:-1])
    capsys.readouterr()
    train_run("run", *FOUR_STEPS, "--resume")
    said = capsys.readouterr().out
    assert f"skipped: checkpoint {run / 'last'} is damaged: training_state.pt does not" in said
    assert f"resuming from {run / 'best'}\n" in said
    assert_same_run(run, straight)


def test_a_run_without_an_undamaged_checkpoint_is_never_started_again(train_run):
    run = train_run("run")
    for name in ("last", "best"):
        (run / name / "model.safetensors").write_bytes(b"")
    damaged = r"last is damaged: model.* checkpoint .*best is damaged: model.safetensors does not"
    for resume in ("last", "auto"):
        with pytest.raises(InputError, match=f"checkpoints/run cannot be resumed: .*{damaged}"):
            train_run("run", "--resume", resume)


EXHAUSTED = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
]


@pytest.mark.parametrize("error", EXHAUSTED, ids=["memory", "cuda", "cpu"])
@pytest.mark.parametrize("place", ["forward", "step"])
def test_exhausted_memory_ends_with_advice(train_run, monkeypatch, error, place):
    def exhausted(*_):
        raise error

    owner = show_and_tell.ShowAndTell if place == "forward" else torch.optim.AdamW
    monkeypatch.setattr(owner, place, exhausted)
    reason = f" ({error})" if str(error) else ""
    message = (
        f"not enough memory for training on cpu with --batch-size 8 and --precision float32 "
        f"(float32){reason}; the saved checkpoints are intact; start a new run with --batch-size "
        "4, --precision bfloat16, a smaller --image-size, or more processes "
        "(torchrun --nproc-per-node)"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        train_run("run")


def test_other_runtime_errors_are_not_replaced(train_run, monkeypatch):
    def fail(*_):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(show_and_tell.ShowAndTell, "forward", fail)
    with pytest.raises(RuntimeError, match="shapes differ"):
        train_run("run")


def test_memory_exhausted_in_decoding_ends_with_advice(train_run, monkeypatch):
    def exhausted(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(show_and_tell.ShowAndTell, "step", exhausted)
    message = r"for decoding 7 images together on cpu in float32 \(CUDA .*smaller batch size or"
    with pytest.raises(InputError, match=message):
        train_run("run")


def test_resuming_with_a_changed_image_is_refused(train_run):
    train_run("run", "--epochs", "1")
    other = tiny.write_colours(Path("other"))
    train_run("run", "--resume", "--epochs", "1", "--data", "other")
    Image.new("RGB", (9, 9)).save(other / "train" / "3.png")
    with pytest.raises(InputError, match="options or data: image files have changed; restore"):
        train_run("run", "--resume", "--epochs", "1", "--data", "other")


def test_few_steps_are_noted_unless_training_continues_from_a_model(
    train_run, tmp_path_factory, capsys
):
    note = "note: training takes only 4 steps; try a smaller --batch-size or more --epochs"
    run = train_run("run", *FOUR_STEPS, "--epochs", "1")
    assert note in capsys.readouterr().out
    train_run("run", *FOUR_STEPS, "--epochs", "1", "--resume")
    assert "note: training takes" not in capsys.readouterr().out
    data = str(tiny.data(tmp_path_factory))
    options = f"--run again --epochs 1 --workers 0 --start-from {run}"
    train.main(["--data", data, *options.split()])
    assert "note: training takes" not in capsys.readouterr().out


def test_truncated_captions_are_counted(train_run, capsys):
    other = tiny.write_colours(Path("other"))
    captions = other / "annotations" / "captions_train.json"
    captions.write_text(captions.read_text().replace("nothing else", "nothing " * 10_000, 2))
    train_run("run", "--epochs", "1", "--data", "other")
    said = capsys.readouterr().out
    assert "note: 2 training captions are truncated to 50 words\n" in said
    train_run("short", "--epochs", "1")
    assert "truncated" not in capsys.readouterr().out


def test_resuming_a_missing_run_is_refused(train_run):
    with pytest.raises(InputError, match="run cannot be resumed: it has no checkpoint; pass --run"):
        train_run("run", "--resume")
    assert not Path("checkpoints/run").exists()


@pytest.mark.slow
def test_a_run_depends_on_its_seed_only(train_run):
    runs = [
        train_run("a", *FOUR_STEPS),
        train_run("b", *FOUR_STEPS),
        train_run("c", *FOUR_STEPS, "--seed", "1"),
    ]
    assert_same_run(runs[0], runs[1])
    a, c = (checkpoint.load(run / "last").weights for run in (runs[0], runs[2]))
    assert any(not torch.equal(a[key], c[key]) for key in a)


def test_checkpoint_holds_options_and_scores_of_the_best_epoch(train_run):
    run = train_run("run", "--epochs", "3")
    rows = [json.loads(row) for row in (run / "log.jsonl").read_text().splitlines()]
    config = checkpoint.load(run).config
    for row in rows:
        assert {*NAMES, "mean_length", "brevity_penalty"} <= row.keys()
    best = max(rows, key=lambda row: (row["BLEU-4"], row["epoch"]))
    assert config["scores"]["BLEU-4"] == pytest.approx(best["BLEU-4"], abs=1e-6)
    assert config["model"]["hidden_size"] == 16
    assert config["encoder"]["image_size"] == 32
    assert config["training"] == {**asdict(TrainingOptions()), **config["training"], "epochs": 3}
    assert config["data"]["path"] == str(Path(config["data"]["path"]).resolve())


@pytest.mark.parametrize(
    ("options", "name", "best"),
    [
        ([], "BLEU-4", 1),
        (["--watch", "cider"], "CIDEr", 2),
        (["--watch", "rouge-l"], "ROUGE-L", 3),
        (["--watch", "meteor"], "METEOR", 2),
    ],
)
def test_the_watched_score_decides_on_best_epoch_and_stopping(
    train_run, monkeypatch, capsys, options, name, best
):
    """The scores improve in different epochs."""
    scripted = {
        "BLEU-4": iter([3.0, 2.0, 1.0, 0.5, 0.2, 0.1]),
        "CIDEr": iter([1.0, 5.0, 4.0, 3.0, 2.0, 1.0]),
        "ROUGE-L": iter([1.0, 2.0, 4.0, 3.0, 2.0, 1.0]),
        "METEOR": iter([1.0, 5.0, 4.0, 3.0, 2.0, 1.0]),
    }

    def scripted_scores(_captions, _references, wanted, _tokenizer):
        counts = np.array([[next(scripted[name])] for name in scripted])
        assert ("meteor" in wanted) == (name == "METEOR")
        tally = SufficientStatistics(tuple(scripted), counts.T, lambda sums: sums)
        return metrics.Scores((0,), {"all": tally})

    monkeypatch.setattr(metrics, "find_java", lambda: "java")
    monkeypatch.setattr(split, "compute_scores", scripted_scores)
    run = train_run("run", "--epochs", "5", "--patience", "2", *options)
    out = capsys.readouterr().out
    rows = [json.loads(row) for row in (run / "log.jsonl").read_text().splitlines()]
    assert len(rows) == best + 2
    assert f"validation {name} " in out
    saved = checkpoint.load(run / "best")
    assert saved.training_state()["progress"]["best_epoch"] == best
    assert saved.config["scores"][name] == max(row[name] for row in rows)


def test_watching_meteor_without_java_is_refused(train_run, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="METEOR needs Java, but java is not on the PATH"):
        train_run("run", "--watch", "meteor")
    assert not Path("checkpoints/run").exists()


def test_a_resumed_run_cannot_watch_another_score(train_run):
    train_run("run", "--epochs", "1")
    with pytest.raises(InputError, match=r"training.watch was bleu-4 but is now cider"):
        train_run("run", "--epochs", "1", "--resume", "--watch", "cider")


def test_demo_data_is_drawn_into_the_cache_without_data(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write, drawn = demo.write_demo, []

    def small(directory):
        drawn.append(directory)
        write(directory, train=12, val=4, test=2)

    monkeypatch.setattr(demo, "write_demo", small)
    train.main([*tiny.OPTIONS, "--attention"])
    assert drawn[0].is_relative_to("checkpoints/.cache")
    assert drawn[0].name == "demo"
    assert checkpoint.load("checkpoints/demo-attention").config["data"]["path"] is None
    assert "demo: coco; train 12 images" in capsys.readouterr().out
