"""fit: the one training loop. It knows a model by `loss(batch)` and a checkpoint by `save`.

What the scores are, where batches come from and what a checkpoint holds is the caller's; how the
numbers are shown is watching.py's.
"""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm

from .. import distributed
from ..data.batches import Batch
from ..devices import peak_memory, products_in
from ..errors import InputError, Interrupted, collect_signals
from ..models.losses import Loss
from .logging import TrainingLog
from .optimization import TrainingOptions, WeightAverage, parameter_groups, rate_share

NOTHING = 0.02  # what BLEU may be, of 100, where no n-gram of its order matches
BAD_STEPS = 3  # so many gradients in a row that are not finite end the training


@dataclass
class Progress:
    """How far the training is, in plain values that a checkpoint can hold."""

    epoch: int = 0  # epochs finished
    batch: int = 0  # batches done of the one under way
    step: int = 0  # batches done in all
    bad: int = 0  # the last of them whose gradient was not finite
    best_score: float | None = None
    best_epoch: int = 0
    sums: dict[str, float] = field(default_factory=dict)  # of this epoch, as `add` has them
    history: list[dict[str, Any]] = field(default_factory=list)  # the rows of log.jsonl

    def finished(self, options: TrainingOptions) -> bool:
        """Whether the epochs or the patience are used up."""
        waited = self.epoch - self.best_epoch
        return self.epoch >= options.epochs or waited >= options.patience

    def add(self, loss: Loss, seconds: float, waited: float) -> None:
        """Take one step into this epoch's sums: words, the loss times these, seconds, of which
        waited for data."""
        values = {"words": 1.0, "loss": float(loss.value)}
        values |= {name: float(value) for name, value in loss.parts.items()}
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value * loss.count
        for name, value in (("seconds", seconds), ("waiting", waited)):
            self.sums[name] = self.sums.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        """This epoch's loss and its parts per word, its speed and seconds; NaN before any step."""
        sums = {**dict.fromkeys(("words", "seconds", "waiting", "loss"), math.nan), **self.sums}
        words, seconds, waited = (sums.pop(name) for name in ("words", "seconds", "waiting"))
        return {
            **{name: value / words for name, value in sums.items()},
            "words_per_second": words / seconds,
            "training_seconds": seconds,
            "waiting_share": waited / seconds,
        }


@dataclass
class _Session:
    """What one run of `fit` works with."""

    model: nn.Module  # what is called: the model, or its data-parallel wrapper
    options: TrainingOptions
    optimizer: AdamW
    schedule: LambdaLR
    average: WeightAverage
    progress: Progress
    device: torch.device
    steps: int  # of an epoch
    log: TrainingLog
    stop: list[int] = field(default_factory=list)  # signals received

    @property
    def rate(self) -> float:
        """The next step's learning rate, outside of the encoder."""
        return float(self.schedule.get_last_lr()[0])

    def told_to_stop(self) -> bool:
        """Whether any process got a signal: all must stop after the same step."""
        if distributed.world_size() == 1:
            return bool(self.stop)
        if not distributed.total(torch.tensor(len(self.stop), device=self.device)):
            return False
        signals = distributed.gather(self.stop[:1])
        self.stop[:] = [signum for received in signals for signum in received]
        return bool(self.stop)

    def state(self) -> dict[str, Any]:
        """All that resuming needs beyond the weights; every process must call this."""
        generators = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            generators["cuda"] = torch.cuda.get_rng_state(self.device)
        return {
            "progress": asdict(self.progress),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "average": self.average.state(),
            "generators": distributed.gather(generators),
        }

    def restore(self, state: dict[str, Any]) -> None:
        if len(state["generators"]) != distributed.world_size():
            raise InputError(
                f"the run was trained by {len(state['generators'])} processes, these are "
                f"{distributed.world_size()}; resume with as many"
            )
        self.progress = Progress(**state["progress"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.average.restore(state["average"])
        generators = state["generators"][distributed.rank()]
        torch.set_rng_state(generators["cpu"])
        if self.device.type == "cuda" and "cuda" in generators:
            torch.cuda.set_rng_state(generators["cuda"], self.device)


def fit(
    model: nn.Module,
    batches: Callable[[int, int], Iterable[Batch]],
    steps_per_epoch: int,
    options: TrainingOptions,
    *,
    evaluate: Callable[[int], dict[str, float]],
    watch: str,
    save: Callable[[str, dict[str, Any], dict[str, float]], None],
    log: TrainingLog,
    device: torch.device,
    resume: dict[str, Any] | None = None,
) -> Progress:
    """Train until the epochs are over or `patience` of them brought no better `watch`ed score.

    batches(epoch, first): the epoch's batches from number `first` on. evaluate(epoch): the scores
    after an epoch, counted from 1, higher is better, by free decoding; it and save find the running
    average of the weights in the model. save(name, training_state, scores): writes the checkpoint
    "last" or "best". record: takes the numbers of steps and epochs. resume: a training state that
    `save` was given, while the model has the weights that `save` found there; continues as if never
    stopped.
    Raises Interrupted on SIGINT or SIGTERM once "last" is saved, FloatingPointError when the
    gradient stays without a finite value; what was saved before is kept.
    """
    session = _begin(model, options, steps_per_epoch, log, device)
    if resume is not None:
        session.restore(resume)
    progress = session.progress

    def save_as(name: str, scores: dict[str, float]) -> None:
        state = session.state()
        if distributed.is_first():
            with session.average.in_use():
                save(name, state, scores)
        distributed.barrier()

    with collect_signals(session.stop):
        while not progress.finished(options):
            _train_epoch(session, batches)
            save_as("last", {})  # before anything can go wrong in evaluating
            if progress.batch < steps_per_epoch:
                raise Interrupted(session.stop[0])
            scores = _finish_epoch(session, evaluate)
            if _is_better(scores[watch], progress.best_score):
                progress.best_score, progress.best_epoch = scores[watch], progress.epoch
                save_as("best", scores)
            save_as("last", scores)
            if distributed.is_first():
                log.epoch(progress.history, options.epochs, watch, progress.best_epoch)
            if session.told_to_stop() and not progress.finished(options):
                raise Interrupted(session.stop[0])
    return progress


def _begin(
    model: nn.Module, options: TrainingOptions, steps: int, log: TrainingLog, device: torch.device
) -> _Session:
    """All that steps need, before the first of them; `steps` are those of an epoch."""
    optimizer = AdamW(parameter_groups(model, options), fused=True)
    schedule = LambdaLR(optimizer, rate_share(options.warmup, steps * options.epochs))
    torch.manual_seed(options.seed + distributed.rank())
    parallel = model
    if distributed.world_size() > 1:
        parallel = DistributedDataParallel(model, broadcast_buffers=False)
    average = WeightAverage(model, options.average)
    return _Session(parallel, options, optimizer, schedule, average, Progress(), device, steps, log)


def _train_epoch(session: _Session, batches: Callable[[int, int], Iterable[Batch]]) -> None:
    """The rest of the epoch under way, or as much of it as a signal leaves."""
    options, progress = session.options, session.progress
    session.model.train()
    started = time.perf_counter()
    with tqdm(
        desc=f"epoch {progress.epoch + 1}/{options.epochs}",
        total=session.steps,
        initial=progress.batch,
        unit="batch",
        mininterval=1,
        disable=not distributed.is_first(),
        leave=False,
    ) as bar:
        for batch in batches(progress.epoch, progress.batch):
            batch, rate = batch.to(session.device), session.rate
            loss, finite = step(session.model, session.optimizer, batch, options, session.device)
            if finite:
                session.schedule.step()
                session.average.update()
            progress.bad = 0 if finite else progress.bad + 1
            if progress.bad == BAD_STEPS:
                raise FloatingPointError(
                    f"the gradient was not finite {BAD_STEPS} times in a row, at step "
                    f"{progress.step} and learning rate {rate:.2g}, the last time for "
                    f"images {list(batch.ids)[:5]}; lower the learning rate"
                )
            progress.step += 1
            progress.batch += 1
            now = time.perf_counter()
            if finite:
                progress.add(loss, now - started, batch.waited)
            session.log.step(progress.step, float(loss.value), rate)
            started = now
            bar.set_postfix_str(_status(session), refresh=False)
            bar.update()
            if session.told_to_stop():
                return


def _finish_epoch(
    session: _Session, evaluate: Callable[[int], dict[str, float]]
) -> dict[str, float]:
    """Score the epoch whose steps are done, and count it: its row joins the history."""
    progress = session.progress
    row = {"epoch": progress.epoch + 1, "step": progress.step, **progress.means()}
    row |= {"learning_rate": session.rate}  # where the epoch ends
    started = time.perf_counter()
    with session.average.in_use():
        distributed.share_buffers(session.model)
        scores = evaluate(progress.epoch + 1)
    row |= {**scores, "evaluation_seconds": time.perf_counter() - started}
    row |= peak_memory(session.device)
    progress.history.append({key: _short(value) for key, value in row.items()})
    progress.epoch, progress.batch, progress.sums = progress.epoch + 1, 0, {}
    return scores


def step(
    model: nn.Module,
    optimizer: AdamW,
    batch: Batch,
    options: TrainingOptions,
    device: torch.device,
) -> tuple[Loss, bool]:
    """One optimizer step, skipped where the gradient is not finite, as is then returned.

    The loss returned is of the whole batch, of which each process has its share.
    """
    with products_in(options.precision, device):
        loss: Loss = model(batch)
    values = torch.stack([loss.value.detach(), *loss.parts.values()]).float()
    sums = distributed.total(torch.cat([torch.ones_like(values[:1]), values]) * loss.count)
    words, means = sums[0], sums[1:] / sums[0]
    # Processes are averaged: each weighs as many words as it has, not one of world_size.
    optimizer.zero_grad(set_to_none=True)
    (loss.value * (loss.count * distributed.world_size() / words)).backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), options.clip)
    finite = bool(norm.isfinite())
    if finite:
        optimizer.step()
    return Loss(means[0], int(words), dict(zip(loss.parts, means[1:], strict=True))), finite


def _short(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.8g}")


def _is_better(score: float, best: float | None) -> bool:
    """A score of nothing after nothing counts: BLEU-4 of few images stays there for epochs."""
    nothing = best is not None and max(score, best) <= NOTHING
    return math.isfinite(score) and (best is None or score > best or nothing)


def _status(session: _Session) -> str:
    """Loss, words per second, and the time that training (without evaluation) still takes."""
    progress, means = session.progress, session.progress.means()
    left = session.options.epochs * session.steps - progress.step
    minutes = left * progress.sums.get("seconds", math.nan) / max(1, progress.batch) / 60
    return (
        f"loss {means['loss']:.3f}, {means['words_per_second']:,.0f} words/s, "
        f"{minutes:.1f} min left in all"
    )
