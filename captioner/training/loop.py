"""The training loop.

The model must map a batch to a `Loss`. The caller passes functions that provide batches, evaluate
the model and save checkpoints.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from .. import distributed
from ..console import progress_bar
from ..devices import peak_memory, products_in
from ..errors import InputError, Interrupted, collect_signals
from ..models.losses import Loss
from ..prefetch import timed
from ..tasks.options import TrainingOptions
from .logging import TrainingLog
from .optimization import WeightAverage, learning_rate_factor, parameter_groups
from .progress import Progress
from .threads import Threads

MAX_BAD_STEPS = 3  # consecutive steps with a non-finite gradient after which training fails


class Batch(Protocol):
    """The part of a batch that the loop uses; only the model uses the rest."""

    @property
    def ids(self) -> Sequence[int | str]:
        """Ids of the images, for error messages."""

    def to(self, device: torch.device) -> Self:
        """Return a copy on the device."""


Batches = Callable[[int, int], Iterable[Any]]  # of `Batch`
Prepare = Callable[[Any], tuple[Any, dict[str, Tensor]]]
Observe = Callable[[Loss], None]


@dataclass
class _LoopState:
    """The mutable state of one call to `fit`."""

    model: nn.Module  # the model or its data-parallel wrapper
    options: TrainingOptions
    optimizer: AdamW
    scheduler: LambdaLR
    average: WeightAverage
    progress: Progress
    device: torch.device
    steps_per_epoch: int
    log: TrainingLog
    unit: str
    signals: list[int] = field(default_factory=list)  # numbers of the signals received
    threads: Threads = field(default_factory=Threads)

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next step, for all parameters outside the encoder."""
        return float(self.scheduler.get_last_lr()[0])

    def should_stop(self) -> bool:
        """Return whether any process received a signal; all must stop after the same step."""
        if distributed.world_size() == 1:
            return bool(self.signals)
        if not distributed.total(torch.tensor(len(self.signals), device=self.device)):
            return False
        first_signals = distributed.gather(self.signals[:1])
        self.signals[:] = [signum for received in first_signals for signum in received]
        return bool(self.signals)

    def state_dict(self) -> dict[str, Any]:
        """Return the state needed to resume, without the averaged weights.

        Every process must call this.
        """
        generators = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            generators["cuda"] = torch.cuda.get_rng_state(self.device)
        return {
            "progress": asdict(self.progress),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.scheduler.state_dict(),
            "average": self.average.state_dict(),
            "generators": distributed.gather(generators),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state; raise InputError if it was saved by another number of processes."""
        processes = len(state["generators"])
        if processes != distributed.world_size():
            raise InputError(
                "the run cannot be resumed with a different number of processes: it was started "
                f"with {processes}, got {distributed.world_size()}; resume it with {processes}"
            )
        self.progress = Progress(**state["progress"])
        sums = self.progress.sums
        if "words" in sums:  # written by versions in which every loss counted words
            sums["count"] = sums.pop("words")
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["schedule"])
        self.average.load_state_dict(state["average"])
        generators = state["generators"][distributed.rank()]
        torch.set_rng_state(generators["cpu"])
        if self.device.type == "cuda" and "cuda" in generators:
            torch.cuda.set_rng_state(generators["cuda"], self.device)


def fit(
    model: nn.Module,
    batches: Batches,
    steps_per_epoch: int,
    options: TrainingOptions,
    *,
    evaluate: Callable[[int], dict[str, float]],
    watch: str,
    save: Callable[[str, dict[str, Any], dict[str, float]], None],
    log: TrainingLog,
    device: torch.device,
    unit: str,
    negligible: float = 0.0,
    prepare: Prepare = lambda batch: (batch, {}),
    observe: Observe = lambda _loss: None,
    resume: dict[str, Any] | None = None,
) -> Progress:
    """Train for all epochs, or until the watched score has not improved for `patience` epochs.

    batches(epoch, first): returns an epoch's batches from number `first`; both are counted from 0.
    evaluate(epoch): returns the scores after an epoch, counted from 1; higher is better.
    watch: the name of the score returned by `evaluate` that determines the best epoch and early
    stopping.
    save(name, training_state, scores): writes the checkpoint "last" or "best".
    unit: plural noun for what `Loss.count` counts, such as "words"; part of the speed's name.
    negligible: while neither the new nor the best score exceeds this value, the new score is
    treated as an improvement, so that the first epochs do not use up patience. For example, BLEU-4
    on few images stays near 0 for several epochs.
    prepare(batch): called with each batch on the device, just before its step; returns the batch to
    train on and named scalars to log alongside the parts of the loss.
    observe(loss): called after each step with its loss over all processes.
    resume: a training state that was passed to `save`; the model must have the weights saved with
    it. Training continues as if it had never stopped.
    During `evaluate` and `save`, the model's weights are replaced by their running average.
    Raises Interrupted after SIGINT or SIGTERM, once "last" is saved, and FloatingPointError if the
    gradient is not finite in MAX_BAD_STEPS consecutive steps; earlier checkpoints are kept.
    """
    state = _start(model, options, steps_per_epoch, log, device, unit)
    if resume is not None:
        state.load_state_dict(resume)
    progress = state.progress

    def save_as(name: str, scores: dict[str, float]) -> None:
        training_state = state.state_dict()
        if distributed.is_first():
            with state.average.applied():
                save(name, training_state, scores)
        distributed.barrier()

    with collect_signals(state.signals), closing(state.threads):
        while not progress.finished(options):
            _train_epoch(state, batches, prepare, observe)
            save_as("last", {})  # so that no training is lost if evaluation fails
            if progress.batch < steps_per_epoch:
                raise Interrupted(state.signals[0])
            scores = _finish_epoch(state, evaluate)
            if _is_better(scores[watch], progress.best_score, negligible):
                progress.best_score, progress.best_epoch = scores[watch], progress.epoch
                save_as("best", scores)
            save_as("last", scores)
            if distributed.is_first():
                log.log_epoch(progress.history, options.epochs, watch, progress.best_epoch)
            if state.should_stop() and not progress.finished(options):
                raise Interrupted(state.signals[0])
    return progress


def _start(
    model: nn.Module,
    options: TrainingOptions,
    steps_per_epoch: int,
    log: TrainingLog,
    device: torch.device,
    unit: str,
) -> _LoopState:
    """Build the state before the first step."""
    optimizer = AdamW(parameter_groups(model, options), fused=True)
    factor = learning_rate_factor(options.warmup, steps_per_epoch * options.epochs)
    scheduler = LambdaLR(optimizer, factor)
    torch.manual_seed(options.seed + distributed.rank())
    parallel = distributed.parallel(model)  # gives all processes the same weights
    average, progress = WeightAverage(model, options.average), Progress()
    return _LoopState(
        parallel,
        options,
        optimizer,
        scheduler,
        average,
        progress,
        device,
        steps_per_epoch,
        log,
        unit,
    )


def _train_epoch(state: _LoopState, batches: Batches, prepare: Prepare, observe: Observe) -> None:
    """Run the remaining steps of the current epoch; return early after a signal."""
    progress = state.progress
    state.model.train()
    started, threads = time.perf_counter(), state.threads
    with progress_bar(
        desc=f"epoch {progress.epoch + 1}/{state.options.epochs}",
        total=state.steps_per_epoch,
        initial=progress.batch,
        unit="batch",
        mininterval=1,
        shown=distributed.is_first(),
    ) as bar:
        for batch, waited in timed(batches(progress.epoch, progress.batch)):
            loss, finite, learning_rate = _take_step(state, batch, prepare)
            observe(loss)
            threads.adapt()
            now = time.perf_counter()
            if finite:
                progress.add(loss, now - started, waited)
            state.log.log_step(progress.step, float(loss.value), learning_rate)
            started = now
            bar.set_postfix_str(_status(state), refresh=False)
            bar.update()
            if state.should_stop():
                return


def _take_step(state: _LoopState, batch: Batch, prepare: Prepare) -> tuple[Loss, bool, float]:
    """Train on a batch; return the loss, whether the gradient was finite, and the learning rate."""
    progress, learning_rate = state.progress, state.learning_rate
    batch, scalars = prepare(batch.to(state.device))
    loss, finite = train_step(
        state.model, state.optimizer, batch, state.options, state.device, scalars
    )
    if finite:
        state.scheduler.step()
        state.average.update()
    progress.bad = 0 if finite else progress.bad + 1
    if progress.bad == MAX_BAD_STEPS:
        raise FloatingPointError(
            f"the gradient was not finite in {MAX_BAD_STEPS} consecutive steps, most recently in "
            f"step {progress.step + 1} at learning rate {learning_rate:.2g} with images "
            f"{list(batch.ids)[:5]}; lower the learning rate"
        )
    progress.step += 1
    progress.batch += 1
    return loss, finite, learning_rate


def _finish_epoch(
    state: _LoopState, evaluate: Callable[[int], dict[str, float]]
) -> dict[str, float]:
    """Evaluate the finished epoch, append its row to the history and update the progress."""
    progress = state.progress
    row = {"epoch": progress.epoch + 1, "step": progress.step, **progress.means(state.unit)}
    row |= {"learning_rate": state.learning_rate}  # at the end of the epoch
    started = time.perf_counter()
    with state.average.applied():
        distributed.share_buffers(state.model)
        scores = evaluate(progress.epoch + 1)
    row |= {**scores, "evaluation_seconds": time.perf_counter() - started}
    row |= peak_memory(state.device)
    progress.history.append({key: _round(value) for key, value in row.items()})
    progress.epoch, progress.batch, progress.sums = progress.epoch + 1, 0, {}
    return scores


def train_step(
    model: nn.Module,
    optimizer: AdamW,
    batch: Batch,
    options: TrainingOptions,
    device: torch.device,
    scalars: Mapping[str, Tensor] = MappingProxyType({}),
) -> tuple[Loss, bool]:
    """Take one optimizer step and return the loss and whether the gradient was finite.

    The step is skipped if the gradient is not finite. The returned loss is the mean over the whole
    batch, across all processes. scalars: values to return among the parts of the loss, by name.
    """
    with products_in(options.precision, device):
        loss: Loss = model(batch)
    parts = {**loss.parts, **scalars}
    values = torch.stack([loss.value.detach(), *parts.values()]).float()
    sums = distributed.total(torch.cat([torch.ones_like(values[:1]), values]) * loss.count)
    count, means = sums[0], sums[1:] / sums[0]
    if loss.statistics is not None:
        distributed.unwrap(model).update_statistics(distributed.total(loss.statistics))
    # DistributedDataParallel averages gradients over processes; weight each by its count instead.
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss.value * (loss.count * distributed.world_size() / count))
    norm = nn.utils.clip_grad_norm_(model.parameters(), options.clip)
    finite = bool(norm.isfinite())
    if finite:
        optimizer.step()
        # Fused optimisers do not count their changes, by which `products` notices new weights.
        for parameter in model.parameters():
            torch.autograd.graph.increment_version(parameter)
    return Loss(means[0], int(count), dict(zip(parts, means[1:], strict=True))), finite


def _round(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.8g}")


def _is_better(score: float, best: float | None, negligible: float) -> bool:
    """Return whether a score is finite and counts as an improvement.

    It does if it is the first, if it exceeds the best score, or if neither exceeds `negligible`.
    """
    beats = best is None or score > best or max(score, best) <= negligible
    return math.isfinite(score) and beats


def _status(state: _LoopState) -> str:
    """Format the loss, speed and remaining training time, excluding evaluation."""
    progress, means = state.progress, state.progress.means(state.unit)
    left = state.options.epochs * state.steps_per_epoch - progress.step
    minutes = left * progress.sums.get("seconds", math.nan) / max(1, progress.batch) / 60
    return (
        f"loss {means['loss']:.3f}, {means[f'{state.unit}_per_second']:,.0f} {state.unit}/s, "
        f"{minutes:.1f} min left in total"
    )
