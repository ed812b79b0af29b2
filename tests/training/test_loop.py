"""The training loop on a toy model: its steps, stopping, signals and exact resuming."""

import contextlib
import copy
import json
import math
import os
import signal
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from captioner.errors import InputError, Interrupted
from captioner.models.losses import Loss
from captioner.products import decoding_in, product
from captioner.tasks.options import TrainingOptions
from captioner.training.logging import TrainingLog
from captioner.training.loop import fit, train_step
from captioner.training.optimization import parameter_groups
from tests.support.interrupting import assert_same_rows

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
STEPS = 4  # per epoch


@dataclass(frozen=True)
class ToyBatch:
    x: torch.Tensor
    ids: tuple[int, ...]
    count: int = 1

    def to(self, _):
        return self


class Toy(nn.Module):
    """A linear encoder and a linear layer; the word count of a batch is its `count`."""

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
    """One call of `fit` on the toy, with the checkpoints and the log that it writes."""

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

        def evaluate(_epoch):
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
            log=TrainingLog(directory, curves=False),
            device=CPU,
            **{"unit": "words", "negligible": 0.02, **more},
        )

    def rows(self):
        return [json.loads(line) for line in self.log.read_text().splitlines()]


# ---- the steps ----------------------------------------------------------------------------------


def reference_factor(step: int, steps: int, warmup: int) -> float:
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
            optimizer.param_groups[0]["lr"] = group["rate"] * reference_factor(step, 12, warmup)
            optimizer.step()
    assert max(norms) > options.clip
    for name, value in model.state_dict().items():
        torch.testing.assert_close(run.model.state_dict()[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("decay", [0.0, 0.8])
def test_the_running_average_is_saved_and_scored(tmp_path, decay):
    """Compared with the recurrence over the weights of runs without averaging."""
    options = replace(OPTIONS, epochs=1, average=decay)
    model = Toy()
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    for steps in range(1, STEPS + 1):
        plain = Toy()

        def first_batches(epoch, first, steps=steps):
            return toy_batches(epoch, first)[:steps]

        run = Fit(tmp_path, replace(options, average=0.0), model=plain, batches=first_batches)
        with contextlib.suppress(
            IndexError
        ):  # raised by `fit`, as the epoch is cut short without a signal
            run.call()
        share = max(1 - decay, 9 / (steps + 9))
        for name, value in plain.state_dict().items():
            expected[name] = expected[name] * (1 - share) + value * share
    run = Fit(tmp_path, options, model=model)
    run.call()
    for name, value in expected.items():
        torch.testing.assert_close(run.weights["best"][name], value)
        torch.testing.assert_close(run.weights["last"][name], value)
    trained = plain.state_dict()
    for name, value in model.state_dict().items():  # training continues from its own values
        assert torch.equal(value, trained[name])
    assert decay == 0 or not torch.equal(value, expected[name])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_lower_precision_is_limited_to_the_models_computation(tmp_path, precision):
    seen = []

    class Recorder(Toy):
        def forward(self, batch):
            seen.append(torch.is_autocast_enabled("cpu"))
            return super().forward(batch)

    run = Fit(tmp_path, replace(OPTIONS, precision=precision), model=Recorder())
    run.call()
    assert set(seen) == {precision == "bfloat16"}
    assert {p.dtype for p in run.model.parameters()} == {torch.float32}


# ---- stopping and checkpoints -----------------------------------------------------------


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
def test_training_stops_when_patience_is_used_up(tmp_path, scores, patience, epochs, best):
    run = Fit(tmp_path, replace(OPTIONS, epochs=6, patience=patience), scores=scores)
    progress = run.call()
    assert (progress.epoch, progress.best_epoch) == (epochs, best)
    assert progress.best_score == scores[best - 1] == run.states["best"]["progress"]["best_score"]
    assert run.states["best"]["progress"]["epoch"] == best
    assert run.states["last"]["progress"]["epoch"] == epochs
    assert json.loads((tmp_path / "best").read_text())["score"] == scores[best - 1]


def test_scores_near_zero_do_not_use_up_patience(tmp_path):
    """BLEU-4 on few images stays near 0 for several epochs while the model learns."""
    options = replace(OPTIONS, epochs=6, patience=2)
    progress = Fit(tmp_path, options, scores=[0, 0, 0, 0, 5, 6]).call()
    assert (progress.epoch, progress.best_epoch) == (6, 6)
    progress = Fit(tmp_path, options, scores=[0.01, 0.005, 0, 0.004, 5, 6]).call()
    assert (progress.epoch, progress.best_epoch) == (6, 6)
    progress = Fit(tmp_path, options, scores=[1, 0, 0, 0, 5, 6]).call()
    assert (progress.epoch, progress.best_epoch) == (3, 1)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_never_best(tmp_path, bad):
    run = Fit(tmp_path, replace(OPTIONS, epochs=4), scores=[bad, 2.0, bad, 1.0])
    progress = run.call()
    assert (progress.best_epoch, progress.best_score) == (2, 2.0)
    assert run.saved.count("best") == 1
    assert run.saved[-1] == "last"
    assert [row["score"] for row in run.rows()] == [None, 2.0, None, 1.0]  # valid JSON


def bad_at(*bad):
    """Return the toy's batches, with infinite inputs in the batches of the given numbers."""

    def batches(epoch, first):
        for batch in toy_batches(epoch, first):
            x = batch.x * math.inf if batch.ids[0] in bad else batch.x
            yield replace(batch, x=x)

    return batches


def test_steps_without_a_finite_gradient_are_skipped(tmp_path):
    run = Fit(tmp_path, batches=bad_at(0, 1, 3, 4, 6, 10, 11))
    progress = run.call()
    assert progress.step == 12
    assert run.model.seen == list(range(12))

    kept = [2, 5, 7, 8, 9]
    model = Toy()
    optimizer = torch.optim.AdamW(parameter_groups(model, OPTIONS))
    peaks = [group["lr"] for group in optimizer.param_groups]
    for step, number in enumerate(kept):
        model.zero_grad()
        model(toy_batch(number)).value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), OPTIONS.clip)
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * reference_factor(step, 12, 3)
        optimizer.step()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(run.model.state_dict()[name], value)


@pytest.mark.parametrize("first", [0, 3, 4, 6])  # 6: across the end of an epoch
def test_three_consecutive_gradients_that_are_not_finite_end_training(tmp_path, first):
    run = Fit(tmp_path, batches=bad_at(first, first + 1, first + 2))
    message = rf"not finite in 3 consecutive steps, most recently in step {first + 3} at learning "
    with pytest.raises(
        FloatingPointError, match=message + rf"rate \S+ with images \[{first + 2}\]; "
    ):
        run.call()
    epochs = (first + 2) // STEPS
    assert run.saved.count("best") == epochs
    assert {s["progress"]["step"] for s in run.states.values()} <= {epochs * STEPS}
    for weights in run.weights.values():
        assert all(value.isfinite().all() for value in weights.values())


def test_log_rows(tmp_path):
    run = Fit(tmp_path)
    progress = run.call()
    rows = run.rows()
    assert rows == progress.history
    assert len(rows) == 3
    assert list(tmp_path.glob(".*")) == []
    model = Toy()
    for row, epoch in zip(rows, range(3), strict=True):
        assert row["epoch"] == epoch + 1
        assert row["step"] == (epoch + 1) * STEPS
        assert (row["score"], row["other"]) == (epoch + 1, -1.0)
        assert row["loss"] == pytest.approx(2 * row["half"], abs=2e-6)
        assert row["words_per_second"] > 0
        assert row["training_seconds"] > 0
        assert 0 <= row["waiting_share"] < 1
        assert row["memory_mb"] > 50
        assert row["evaluation_seconds"] >= 0
    # With negligible steps the loss is the mean over words of the initial model.
    slow = replace(OPTIONS, learning_rate=1e-12, encoder_learning_rate=1e-12)
    run = Fit(tmp_path, slow)
    run.call()
    for epoch, row in enumerate(run.rows()):
        batches = toy_batches(epoch, 0)
        losses = [model(batch).value.item() * batch.count for batch in batches]
        assert row["loss"] == pytest.approx(sum(losses) / sum(b.count for b in batches), rel=1e-5)


def test_prepared_batches_are_trained_on_and_their_scalars_logged(tmp_path):
    """The time that `prepare` takes counts as part of the step, not as waiting for data."""

    def prepare(batch):
        time.sleep(0.01)
        number = batch.ids[0] - 2  # the batch trained on is a different one
        return toy_batch(number), {"number": torch.tensor(float(number))}

    run = Fit(tmp_path, replace(OPTIONS, epochs=1), prepare=prepare, unit="pairs")
    run.call()
    assert run.model.seen == [-2, -1, 0, 1]
    (row,) = run.rows()
    counts = [toy_batch(number).count for number in run.model.seen]
    mean = sum(n * c for n, c in zip(run.model.seen, counts, strict=True)) / sum(counts)
    assert row["number"] == pytest.approx(mean)
    assert row["pairs_per_second"] * row["training_seconds"] == pytest.approx(sum(counts))
    assert "words_per_second" not in row
    assert row["training_seconds"] >= 4 * 0.01
    assert row["waiting_share"] * row["training_seconds"] < 0.01


def test_every_loss_is_observed(tmp_path):
    seen = []
    run = Fit(tmp_path, replace(OPTIONS, epochs=2), observe=seen.append)
    run.call()
    for epoch, row in enumerate(run.rows()):
        losses = seen[epoch * STEPS : (epoch + 1) * STEPS]
        mean = sum(float(loss.value) * loss.count for loss in losses)
        assert row["loss"] == pytest.approx(mean / sum(loss.count for loss in losses), rel=1e-5)
    assert len(seen) == 2 * STEPS


def test_a_model_receives_the_statistics_of_its_losses(tmp_path):
    class Counting(Toy):
        received = 0

        def forward(self, batch):
            return replace(super().forward(batch), statistics=torch.tensor([batch.ids[0], 1]))

        def update_statistics(self, sums):
            self.received = self.received + sums

    run = Fit(tmp_path, model=Counting())
    run.call()
    assert run.model.received.tolist() == [sum(range(12)), 12]


def test_a_training_stopped_within_an_epoch_by_an_older_version_continues(tmp_path):
    """In that version every loss counted words, and its sums used that name."""
    stopped = Fit(tmp_path, batches=signalled_at(6, signal.SIGINT))
    with pytest.raises(Interrupted):
        stopped.call()
    state = stopped.states["last"]
    assert 0 < state["progress"]["batch"] < STEPS
    older = copy.deepcopy(state)
    older["progress"]["sums"]["words"] = older["progress"]["sums"].pop("count")
    rows = []
    for name, resume in (("now", state), ("older", older)):
        (tmp_path / name).mkdir()
        model = Toy()
        model.load_state_dict(stopped.weights["last"])
        run = Fit(tmp_path / name, scores=[2.0, 3.0], model=model, resume=resume)
        run.call()
        rows.append([row["loss"] for row in run.rows()])
    assert rows[0] == rows[1]


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
def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path, at, signum):
    straight = Fit(tmp_path)
    straight.call()
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    first = Fit(tmp_path, batches=signalled_at(at, signum))
    with pytest.raises(Interrupted, match=signal.Signals(signum).name) as caught:
        first.call()
    assert caught.value.signum == signum
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert first.model.seen == list(range(at + 1))  # the current step is finished
    state = first.states["last"]
    assert state["progress"]["epoch"] * STEPS + state["progress"]["batch"] == at + 1

    second = Fit(tmp_path, resume=state, scores=[1.0, 2.0, 3.0][state["progress"]["epoch"] :])
    second.model.load_state_dict(first.weights["last"])
    second.call()
    assert second.model.seen == list(range(at + 1, 12))
    for name, value in straight.model.state_dict().items():
        assert torch.equal(second.model.state_dict()[name], value)
    assert_same_rows(second.rows(), straight.rows())


def test_a_signal_in_the_very_last_step_changes_nothing(tmp_path):
    assert Fit(tmp_path, batches=signalled_at(11, signal.SIGINT)).call().epoch == 3


def test_a_second_signal_ends_training_at_once(tmp_path):
    run = Fit(tmp_path, batches=signalled_at(5, signal.SIGINT, signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal
    try:
        with pytest.raises(KeyboardInterrupt):
            run.call()
    finally:
        signal.signal(signal.SIGINT, before)
    assert run.model.seen == list(range(5))
    assert run.states["last"]["progress"]["epoch"] == 1


def test_a_failure_in_evaluation_costs_no_training(tmp_path):
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


def test_fit_works_in_a_thread_which_cannot_handle_signals(tmp_path):
    results = []
    thread = threading.Thread(target=lambda: results.append(Fit(tmp_path).call().epoch))
    thread.start()
    thread.join()
    assert results == [3]


def test_resuming_with_another_number_of_processes_is_refused(tmp_path):
    run = Fit(tmp_path)
    run.call()
    state = run.states["last"] | {"generators": run.states["last"]["generators"] * 2}
    message = "number of processes: it was started with 2, got 1; resume it with 2"
    with pytest.raises(InputError, match=message):
        Fit(tmp_path, resume=state).call()


def test_products_of_decoding_have_the_weights_of_the_last_step():
    """They are sampled from within an epoch, and are kept in bfloat16 until the weights change."""
    model, rows = Toy(), torch.ones(1, 3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.5, fused=True)

    def decode(weight):
        with torch.inference_mode(), decoding_in("bfloat16", CPU):
            return product(rows, weight)

    for _ in range(2):
        before = decode(model.layer.weight)
        train_step(model, optimizer, ToyBatch(torch.ones(1, 3), (0,)), OPTIONS, CPU)
        assert not torch.equal(decode(model.layer.weight), before)
        assert torch.equal(decode(model.layer.weight), decode(model.layer.weight.detach().clone()))
