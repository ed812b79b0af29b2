"""The training loop: the steps it takes, when it stops, and that a resumed run is the same run."""

import contextlib
import json
import math
import os
import signal
import threading
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import train
from captioner.captioner import restore
from captioner.checkpoints import checkpoint
from captioner.data.demo import scenes as demo
from captioner.errors import InputError, Interrupted
from captioner.metrics import captions as metrics
from captioner.metrics.statistics import SufficientStatistics
from captioner.models.captioning import show_and_tell
from captioner.models.losses import Loss
from captioner.training import optimization
from captioner.training.logging import TrainingLog
from captioner.training.loop import fit
from captioner.training.optimization import TrainingOptions, parameter_groups
from captioner.vision.encoders import Encoder, SmallCNN
from tests.support import tiny
from tests.support.interrupting import assert_same_rows, assert_same_run, interrupt_at

CPU = torch.device("cpu")
OPTIONS = TrainingOptions(
    epochs=3,
    learning_rate=1.5e-3,
    encoder_learning_rate=1e-4,
    weight_decay=0.01,
    warmup=0.25,
    clip=1.0,
    patience=4,
    precision="float32",
)
STEPS = 4  # of an epoch
NAMES = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr")  # without METEOR's


@dataclass(frozen=True)
class ToyBatch:
    x: torch.Tensor
    ids: tuple[int, ...]
    count: int = 1
    waited: float = 0.0

    def to(self, device):
        return self


class Toy(nn.Module):
    """A matrix, a bias, an encoder; as many words in a batch as it says."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Linear(3, 3)
        self.layer = nn.Linear(3, 3)
        self.seen = []

    def forward(self, batch):
        self.seen.append(batch.ids[0])
        assert self.training
        value = (self.layer(torch.tanh(self.encoder(batch.x))) - 3).square().mean()
        return Loss(value, batch.count, {"half": value.detach() / 2})


def toy_batch(number: int) -> ToyBatch:
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(number))
    return ToyBatch(x, (number,), count=1 + number % 3)


def toy_batches(epoch, first):
    return [toy_batch(epoch * STEPS + i) for i in range(first, STEPS)]


class Fit:
    """One call of `fit` on the toy, with what it saved and logged."""

    def __init__(
        self, directory: Path, options=OPTIONS, *, scores=None, batches=toy_batches, **more
    ):
        self.model = more.pop("model", None) or Toy()
        self.log = directory / "log.jsonl"
        self.saved: list[str] = []
        self.states: dict[str, dict] = {}
        self.weights: dict[str, dict] = {}
        answers = iter(scores or [1.0 + i for i in range(options.epochs)])

        def save(name, state, scores):
            self.saved.append(name)
            directory.joinpath(name).write_text(json.dumps(scores))
            torch.save(state, directory / f"{name}.pt")
            self.states[name] = torch.load(directory / f"{name}.pt", weights_only=True)
            self.weights[name] = {k: v.clone() for k, v in self.model.state_dict().items()}

        def evaluate(epoch):
            self.model.eval()
            return {"score": next(answers), "other": -1.0}

        self.call = lambda: fit(
            self.model,
            batches,
            STEPS,
            options,
            evaluate=evaluate,
            watch="score",
            save=save,
            log=TrainingLog(directory),
            device=CPU,
            **more,
        )

    def rows(self):
        return [json.loads(line) for line in self.log.read_text().splitlines()]


# ---- the steps ----------------------------------------------------------------------------------


def share_by_formula(step: int, steps: int, warmup: int) -> float:
    if step < warmup:
        return (step + 1) / warmup
    return (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2


@pytest.mark.parametrize(
    "changes", [{}, {"clip": 0.05, "learning_rate": 0.1}, {"warmup": 0.0}, {"weight_decay": 0.5}]
)
def test_steps_are_adamw_with_warmup_cosine_and_clipping(tmp_path, changes):
    options = replace(OPTIONS, **changes)
    run = Fit(tmp_path, options)
    run.call()
    assert run.model.seen == list(range(12))

    model = Toy()
    groups = [
        {"params": [model.layer.weight], "rate": options.learning_rate, "decay": True},
        {"params": [model.layer.bias], "rate": options.learning_rate, "decay": False},
        {"params": [model.encoder.weight], "rate": options.encoder_learning_rate, "decay": True},
        {"params": [model.encoder.bias], "rate": options.encoder_learning_rate, "decay": False},
    ]
    optimizers = [
        torch.optim.AdamW(g["params"], weight_decay=options.weight_decay * g["decay"])
        for g in groups
    ]
    warmup = max(1, round(options.warmup * 12))
    norms = []
    for step in range(12):
        model.zero_grad()
        model(toy_batch(step)).value.backward()
        gradients = [parameter.grad for parameter in model.parameters()]
        norms.append(torch.cat([g.flatten() for g in gradients]).norm().item())
        for gradient in gradients:
            gradient *= min(1.0, options.clip / norms[-1])
        for group, optimizer in zip(groups, optimizers, strict=True):
            optimizer.param_groups[0]["lr"] = group["rate"] * share_by_formula(step, 12, warmup)
            optimizer.step()
    assert max(norms) > options.clip
    for name, value in model.state_dict().items():
        torch.testing.assert_close(run.model.state_dict()[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("warmup", "steps", "rising"), [(0.1, 100, 10), (0.0, 10, 1), (0.5, 3, 2)])
def test_the_rate_rises_and_falls(warmup, steps, rising):
    shares = [optimization.rate_share(warmup, steps)(step) for step in range(steps)]
    assert shares == pytest.approx([share_by_formula(s, steps, rising) for s in range(steps)])
    assert shares[rising - 1] == max(shares) == 1 and min(shares) > 0
    assert optimization.rate_share(warmup, steps)(steps) == pytest.approx(0)


def test_one_step_is_enough(tmp_path):
    assert optimization.rate_share(0.9, 1)(0) == 1


def test_parameter_groups_of_a_model_with_a_frozen_encoder():
    model = nn.Module()
    model.encoder = Encoder("small_cnn", SmallCNN(8))
    model.layer = nn.Linear(2, 2)
    groups = parameter_groups(model, OPTIONS)
    assert [[p.ndim for p in group["params"]] for group in groups] == [[2], [1]]
    assert [group["weight_decay"] for group in groups] == [OPTIONS.weight_decay, 0.0]
    model.encoder = Encoder("small_cnn", SmallCNN(8), trained_from=3)
    rates = [group["lr"] for group in parameter_groups(model, OPTIONS)]
    assert rates == [OPTIONS.learning_rate] * 2 + [OPTIONS.encoder_learning_rate] * 2


@pytest.mark.parametrize("decay", [0.0, 0.8])
def test_the_running_average_is_what_is_saved_and_scored(tmp_path, decay):
    """Against the recurrence, over weights as a training without an average leaves them."""
    options = replace(OPTIONS, epochs=1, average=decay)
    model = Toy()
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    for steps in range(1, STEPS + 1):
        plain = Toy()

        def some(epoch, first, steps=steps):
            return toy_batches(epoch, first)[:steps]

        run = Fit(tmp_path, replace(options, average=0.0), model=plain, batches=some)
        with contextlib.suppress(IndexError):  # what an epoch that is too short ends with
            run.call()
        share = max(1 - decay, 9 / (steps + 9))
        for name, value in plain.state_dict().items():
            expected[name] = expected[name] * (1 - share) + value * share
    run = Fit(tmp_path, options, model=model)
    run.call()
    for name, value in expected.items():
        torch.testing.assert_close(run.weights["best"][name], value)
        torch.testing.assert_close(run.weights["last"][name], value)
    trained = {name: value for name, value in plain.state_dict().items()}
    for name, value in model.state_dict().items():  # afterwards the model goes on from its own
        assert torch.equal(value, trained[name])
    assert decay == 0 or not torch.equal(value, expected[name])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_only_what_the_model_computes_is_of_lower_precision(tmp_path, precision):
    seen = []

    class Watched(Toy):
        def forward(self, batch):
            seen.append(torch.is_autocast_enabled("cpu"))
            return super().forward(batch)

    run = Fit(tmp_path, replace(OPTIONS, precision=precision), model=Watched())
    run.call()
    assert set(seen) == {precision == "bfloat16"}
    assert {p.dtype for p in run.model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"patience": 0}, "patience must be at least 1, got 0"),
        ({"beam_size": 0}, "beam_size must be at least 1, got 0"),
        ({"weight_decay": -0.1}, "weight_decay must be at least 0, got -0.1"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"scheduled_sampling": 1.0}, "scheduled_sampling must be at least 0 and below 1, got 1.0"),
        ({"warmup": 1.0}, "warmup must be at least 0 and below 1, got 1.0"),
        ({"cross_entropy_share": 1.0}, "cross_entropy_share must be at least 0 and below 1, got"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0, got 0.0"),
        ({"learning_rate": math.nan}, "learning_rate must be above 0, got nan"),
        ({"encoder_learning_rate": -1.0}, "encoder_learning_rate must be above 0, got -1.0"),
        ({"clip": 0.0}, "clip must be above 0, got 0.0"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(InputError, match=message):
        TrainingOptions(**options)


# ---- when it stops, and what it saves -----------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "patience", "epochs", "best"),
    [
        ([1, 2, 3, 4, 5, 6], 2, 6, 6),
        ([3, 2, 1, 4, 5, 6], 2, 3, 1),
        ([3, 2, 4, 4, 3.5, 9], 2, 5, 3),
        ([1, 1, 1, 1, 1, 1], 3, 4, 1),
        ([2, 1, 3, 1, 1, 1], 4, 6, 3),
        ([-2, -1, -3, 0, 0.5, 0], 2, 6, 5),
    ],
)
def test_patience(tmp_path, scores, patience, epochs, best):
    run = Fit(tmp_path, replace(OPTIONS, epochs=6, patience=patience), scores=scores)
    progress = run.call()
    assert (progress.epoch, progress.best_epoch) == (epochs, best)
    assert progress.best_score == scores[best - 1] == run.states["best"]["progress"]["best_score"]
    assert run.states["best"]["progress"]["epoch"] == best
    assert run.states["last"]["progress"]["epoch"] == epochs
    assert json.loads((tmp_path / "best").read_text())["score"] == scores[best - 1]


def test_a_score_of_zero_says_nothing_yet(tmp_path):
    """BLEU-4 of few images stays 0 for epochs, while the model learns."""
    options = replace(OPTIONS, epochs=6, patience=2)
    progress = Fit(tmp_path, options, scores=[0, 0, 0, 0, 5, 6]).call()
    assert (progress.epoch, progress.best_epoch) == (6, 6)
    progress = Fit(tmp_path, options, scores=[0.01, 0.005, 0, 0.004, 5, 6]).call()
    assert (progress.epoch, progress.best_epoch) == (6, 6)
    progress = Fit(tmp_path, options, scores=[1, 0, 0, 0, 5, 6]).call()
    assert (progress.epoch, progress.best_epoch) == (3, 1)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_is_never_best(tmp_path, bad):
    run = Fit(tmp_path, replace(OPTIONS, epochs=4), scores=[bad, 2.0, bad, 1.0])
    progress = run.call()
    assert (progress.best_epoch, progress.best_score) == (2, 2.0)
    assert run.saved.count("best") == 1 and run.saved[-1] == "last"
    assert [row["score"] for row in run.rows()] == [None, 2.0, None, 1.0]  # still JSON


def bad_at(*bad):
    """The toy's batches, those of these numbers with an infinity in them."""

    def batches(epoch, first):
        for batch in toy_batches(epoch, first):
            x = batch.x * math.inf if batch.ids[0] in bad else batch.x
            yield replace(batch, x=x)

    return batches


def test_no_step_where_the_gradient_is_not_finite(tmp_path):
    run = Fit(tmp_path, batches=bad_at(0, 1, 3, 4, 6, 10, 11))
    progress = run.call()
    assert progress.step == 12 and run.model.seen == list(range(12))

    kept = [2, 5, 7, 8, 9]
    model = Toy()
    optimizer = torch.optim.AdamW(parameter_groups(model, OPTIONS))
    peaks = [group["lr"] for group in optimizer.param_groups]
    for step, number in enumerate(kept):
        model.zero_grad()
        model(toy_batch(number)).value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), OPTIONS.clip)
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * share_by_formula(step, 12, 3)
        optimizer.step()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(run.model.state_dict()[name], value)


@pytest.mark.parametrize("first", [0, 3, 4, 6])  # 6: across the end of an epoch
def test_three_gradients_in_a_row_that_are_not_finite(tmp_path, first):
    run = Fit(tmp_path, batches=bad_at(first, first + 1, first + 2))
    message = rf"not finite 3 times in a row, at step {first + 2} and learning rate \S+, the last "
    with pytest.raises(FloatingPointError, match=message + rf"time for images \[{first + 2}\]; "):
        run.call()
    epochs = (first + 2) // STEPS
    assert run.saved.count("best") == epochs
    assert {s["progress"]["step"] for s in run.states.values()} <= {epochs * STEPS}
    for weights in run.weights.values():
        assert all(value.isfinite().all() for value in weights.values())


def test_the_log(tmp_path):
    run = Fit(tmp_path)
    progress = run.call()
    rows = run.rows()
    assert rows == progress.history and len(rows) == 3
    assert list(tmp_path.glob(".*")) == []
    model = Toy()
    for row, epoch in zip(rows, range(3), strict=True):
        assert row["epoch"] == epoch + 1 and row["step"] == (epoch + 1) * STEPS
        assert (row["score"], row["other"]) == (epoch + 1, -1.0)
        assert row["loss"] == pytest.approx(2 * row["half"], abs=2e-6)
        assert row["words_per_second"] > 0 and row["training_seconds"] > 0
        assert row["waiting_share"] == 0 and row["memory_mb"] > 50
        assert row["evaluation_seconds"] >= 0
    # With steps too small to matter, the loss is the mean over words of a model that stands still.
    slow = replace(OPTIONS, learning_rate=1e-12, encoder_learning_rate=1e-12)
    run = Fit(tmp_path, slow)
    run.call()
    for epoch, row in enumerate(run.rows()):
        batches = toy_batches(epoch, 0)
        losses = [model(batch).value.item() * batch.count for batch in batches]
        assert row["loss"] == pytest.approx(sum(losses) / sum(b.count for b in batches), rel=1e-5)


# ---- signals ------------------------------------------------------------------------------------


def signalled_at(number, *signals):
    def batches(epoch, first):
        for batch in toy_batches(epoch, first):
            if batch.ids[0] == number:
                for signum in signals:
                    os.kill(os.getpid(), signum)
            yield batch

    return batches


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("at", [0, 2, 3, 5, 7, 10])
def test_interrupted_and_resumed(tmp_path, at, signum):
    straight = Fit(tmp_path)
    straight.call()
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    first = Fit(tmp_path, batches=signalled_at(at, signum))
    with pytest.raises(Interrupted, match=signal.Signals(signum).name) as caught:
        first.call()
    assert caught.value.signum == signum
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert first.model.seen == list(range(at + 1))  # the step under way is finished
    state = first.states["last"]
    assert state["progress"]["epoch"] * STEPS + state["progress"]["batch"] == at + 1

    second = Fit(tmp_path, resume=state, scores=[1.0, 2.0, 3.0][state["progress"]["epoch"] :])
    second.model.load_state_dict(first.weights["last"])
    second.call()
    assert second.model.seen == list(range(at + 1, 12))
    for name, value in straight.model.state_dict().items():
        assert torch.equal(second.model.state_dict()[name], value)
    assert_same_rows(second.rows(), straight.rows())


def test_a_signal_in_the_last_step_of_all_changes_nothing(tmp_path):
    assert Fit(tmp_path, batches=signalled_at(11, signal.SIGINT)).call().epoch == 3


def test_the_second_signal_ends_it_at_once(tmp_path):
    run = Fit(tmp_path, batches=signalled_at(5, signal.SIGINT, signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # as a terminal has it
    try:
        with pytest.raises(KeyboardInterrupt):
            run.call()
    finally:
        signal.signal(signal.SIGINT, before)
    assert run.model.seen == list(range(5))
    assert run.states["last"]["progress"]["epoch"] == 1


def test_what_fails_in_evaluating_costs_no_training(tmp_path):
    straight = Fit(tmp_path)
    straight.call()
    first = Fit(tmp_path, scores=[1.0])
    with pytest.raises(StopIteration):  # there is no second score
        first.call()
    second = Fit(tmp_path, resume=first.states["last"], scores=[2.0, 3.0])
    second.model.load_state_dict(first.weights["last"])
    second.call()
    assert second.model.seen == list(range(8, 12))
    for name, value in straight.model.state_dict().items():
        assert torch.equal(second.model.state_dict()[name], value)
    assert_same_rows(second.rows(), straight.rows())


def test_in_a_thread_signals_are_left_alone(tmp_path):
    results = []
    thread = threading.Thread(target=lambda: results.append(Fit(tmp_path).call().epoch))
    thread.start()
    thread.join()
    assert results == [3]


def test_resume_with_another_number_of_processes(tmp_path):
    run = Fit(tmp_path)
    run.call()
    state = run.states["last"] | {"generators": run.states["last"]["generators"] * 2}
    message = "was trained by 2 processes, these are 1; resume with as many"
    with pytest.raises(InputError, match=message):
        Fit(tmp_path, resume=state).call()


# ---- train.py: a resumed run is the run that was never stopped, bit for bit ----------------------


@pytest.fixture
def work(tmp_path, tmp_path_factory, monkeypatch):
    """An empty working directory; returns how to train there, by name and options."""
    colours = str(tiny.data(tmp_path_factory))
    monkeypatch.chdir(tmp_path)

    def call(name, *options):
        train.main(["--data", colours, "--run", name, *tiny.OPTIONS, *options])
        return Path("checkpoints") / name

    return call


FOUR = ["--batch-size", "5", "--dropout", "0.5"]  # four steps an epoch


@pytest.mark.parametrize(
    ("kind", "step", "signum"),
    [
        ([], 2, signal.SIGTERM),
        (["--attention"], 3, signal.SIGINT),
        (["--attention"], 4, signal.SIGTERM),  # the last of the first epoch
        (["--attention"], 5, signal.SIGINT),
        (["--attention", "--hard-attention"], 3, signal.SIGTERM),
        (["--scheduled-sampling", "0.9"], 3, signal.SIGINT),
    ],
)
def test_resume_is_exact(work, monkeypatch, kind, step, signum):
    straight = work("straight", *FOUR, *kind)
    with monkeypatch.context() as patch:
        interrupt_at(step, signum, patch)
        with pytest.raises(Interrupted, match=signum.name):
            work("stopped", *FOUR, *kind)
    assert checkpoint.load("checkpoints/stopped/last").training_state()["progress"]["step"] == step
    assert_same_run(work("stopped", *FOUR, *kind, "--resume"), straight)


def test_resume_is_exact_with_a_frozen_encoder_and_twice(work, monkeypatch):
    torch.manual_seed(3)
    torch.save(SmallCNN().state_dict(), "encoder.pth")
    options = [*FOUR, "--attention", "--encoder-weights", "encoder.pth"]
    straight = work("straight", *options)
    for step in (1, 2):  # the first step, then the third
        with monkeypatch.context() as patch:
            interrupt_at(step, signal.SIGTERM, patch)
            with pytest.raises(Interrupted):
                work("stopped", *options, *(["--resume"] if step > 1 else []))
    assert_same_run(work("stopped", *options, "--resume"), straight)
    weights = checkpoint.load(straight).weights
    for key, value in torch.load("encoder.pth").items():
        assert torch.equal(weights[f"encoder.layers.{key}"], value)


def test_show_and_tell_measures_the_maps_of_a_frozen_encoder(work):
    torch.manual_seed(3)
    torch.save(SmallCNN().state_dict(), "encoder.pth")
    weights = checkpoint.load(work("run", *FOUR, "--encoder-weights", "encoder.pth")).weights
    assert weights["standardize.mean"].any()


def test_workers_change_nothing(work):
    alone = work("alone", *FOUR)
    assert_same_run(work("workers", *FOUR, "--workers", "2"), alone)


def test_own_words_become_more_from_the_first_step_to_the_last(work, monkeypatch):
    shares, plain = [], show_and_tell.previous_words

    def note(model, features, batch):
        shares.append(batch.sampling_prob)
        return plain(model, features, batch)

    monkeypatch.setattr(show_and_tell, "previous_words", note)
    work("run", *FOUR, "--scheduled-sampling", "0.7")
    assert shares == pytest.approx([0.1 * step for step in range(8)])


def test_hard_attention_has_a_name_and_a_baseline_of_its_own(work):
    options = [*FOUR, "--attention", "--hard-attention"]
    weights = checkpoint.load(work("run", *options)).weights
    assert -math.log(30) < weights["baseline"] < 0
    rows = [json.loads(row) for row in Path("checkpoints/run/log.jsonl").read_text().splitlines()]
    assert all(0 < row["entropy"] < math.log(64) for row in rows)
    model, _ = restore(checkpoint.load("checkpoints/run"))
    assert model.options.name == "hard-attention"
    assert torch.equal(model.baseline, weights["baseline"])


def test_a_finished_run_may_be_resumed(work, capsys):
    run = work("run")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    capsys.readouterr()
    work("run", "--resume")
    assert "best epoch" in capsys.readouterr().out
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_a_run_that_exists_is_not_overwritten(work):
    run = work("run")
    message = r"checkpoints/run holds a run already; --resume continues it, --run NAME starts ano"
    with pytest.raises(InputError, match=message):
        work("run")
    (run / "last").rename(run / ".last.old")  # where a replacement was cut short
    with pytest.raises(InputError, match=r"checkpoints/run holds a run already; .*--run NAME st"):
        work("run")
    work("run", "--resume")


def test_resume_with_other_options_or_data(work, tmp_path_factory):
    run = work("run", "--epochs", "1")
    before = (run / "last" / "manifest.json").read_bytes()
    changes = ["--epochs", "2", "--hidden-size", "32", "--seed", "1", "--attention"]
    with pytest.raises(InputError, match="cannot be continued with other options: ") as caught:
        work("run", "--resume", *changes)
    for difference in (
        "training.epochs was 1 and is 2",
        "model.hidden_size was 16 and is 32",
        "training.seed was 0 and is 1",
        "model.attention was False and is True",
    ):
        assert difference in str(caught.value)
    other = tiny.write_colours(Path("other"))
    captions = other / "annotations" / "captions_train.json"
    captions.write_text(captions.read_text().replace("nothing else", "nothing more"))
    message = r"cannot be continued with other options: the captions have changed$"
    with pytest.raises(InputError, match=message):
        work("run", "--resume", "--epochs", "1", "--data", "other")
    work("run", "--resume", "--epochs", "1", "--patience", "7", "--workers", "1")
    assert (run / "last" / "manifest.json").read_bytes() == before


def test_resume_without_a_run(work):
    with pytest.raises(InputError, match="checkpoint checkpoints/run/last does not exist"):
        work("run", "--resume")
    assert not Path("checkpoints/run").exists()


def test_the_same_seed_gives_the_same_run_and_another_another(work):
    runs = [work("a", *FOUR), work("b", *FOUR), work("c", *FOUR, "--seed", "1")]
    assert_same_run(runs[0], runs[1])
    a, c = (checkpoint.load(run / "last").weights for run in (runs[0], runs[2]))
    assert any(not torch.equal(a[key], c[key]) for key in a)


def test_a_run_keeps_its_options_scores_and_best(work):
    run = work("run", "--epochs", "3")
    rows = [json.loads(row) for row in (run / "log.jsonl").read_text().splitlines()]
    config = checkpoint.load(run).config
    for row in rows:
        assert {*NAMES, "mean_length", "brevity_penalty"} <= row.keys()
    best = max(rows, key=lambda row: (row["BLEU-4"], row["epoch"]))
    assert config["scores"]["BLEU-4"] == pytest.approx(best["BLEU-4"], abs=1e-6)
    assert config["model"]["hidden_size"] == 16 and config["encoder"]["image_size"] == 32
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
def test_the_watched_score_decides(work, monkeypatch, capsys, options, name, best):
    """Of scores that disagree, the one watched picks the best epoch and when to stop."""
    courses = {
        "BLEU-4": iter([3.0, 2.0, 1.0, 0.5, 0.2]),
        "CIDEr": iter([1.0, 5.0, 4.0, 3.0, 2.0]),
        "ROUGE-L": iter([1.0, 2.0, 4.0, 3.0, 2.0]),
        "METEOR": iter([1.0, 5.0, 4.0, 3.0, 2.0]),
    }

    def scored(captions, references, wanted):
        counts = np.array([[next(courses[name])] for name in courses])
        assert ("meteor" in wanted) == (name == "METEOR")
        tally = SufficientStatistics(tuple(courses), counts.T, lambda sums: sums)
        return metrics.Scores((0,), {"all": tally})

    monkeypatch.setattr(metrics, "find_java", lambda: "java")
    monkeypatch.setattr(metrics, "measure", scored)
    monkeypatch.setattr(train, "finish", lambda setup, progress, argv: None)
    run = work("run", "--epochs", "5", "--patience", "2", *options)
    told = capsys.readouterr().out
    rows = [json.loads(row) for row in (run / "log.jsonl").read_text().splitlines()]
    assert len(rows) == best + 2 and f"validation {name} " in told
    saved = checkpoint.load(run / "best")
    assert saved.training_state()["progress"]["best_epoch"] == best
    assert saved.config["scores"][name] == max(row[name] for row in rows)


def test_meteor_is_not_watched_without_java(work, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="METEOR needs Java, and there is no java on the path"):
        work("run", "--watch", "meteor")
    assert not Path("checkpoints/run").exists()


def test_what_is_watched_stays_so(work):
    work("run", "--epochs", "1")
    with pytest.raises(InputError, match=r"training.watch was bleu-4 and is cider"):
        work("run", "--epochs", "1", "--resume", "--watch", "cider")


def test_drawn_demo(work, tmp_path, monkeypatch, capsys):
    """Without --data the demo is drawn into the cache, and the pointing accuracy is told."""
    write, drawn = demo.write_demo, []

    def small(directory):
        drawn.append(directory)
        write(directory, train=12, val=4, test=2)

    monkeypatch.setattr(demo, "write_demo", small)
    train.main([*tiny.OPTIONS, "--attention"])
    assert drawn[0].is_relative_to("checkpoints/.cache") and drawn[0].name == "demo"
    assert checkpoint.load("checkpoints/demo-attention").config["data"]["path"] is None
    assert "demo: coco; train 12 images" in capsys.readouterr().out
