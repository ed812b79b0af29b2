"""One complete training run, from its configuration to its result."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from PIL import Image

from .. import distributed
from ..checkpoints import checkpoint
from ..checkpoints.runs import lock_run, write_skipped
from ..data.storage import files as storage
from ..data.storage.location import Location
from ..devices import memory_advice, peak_memory, pick_device, pick_precision
from ..distributed import say
from ..errors import InputError
from ..models.parameter_count import count_parameters
from ..tasks.task import Result
from .config import TrainConfig
from .logging import LOG, TrainingLog, write_log
from .loop import fit
from .progress import Progress
from .result import TrainingResult
from .setup import TrainingSetup, build_setup
from .summary import describe_best, next_steps
from .trackers import TrackedRun, Tracker, check_trackers, open_trackers

FEW_STEPS = 200  # with fewer, a model from scratch learns little


def run_training(config: TrainConfig, argv: Sequence[str] | None = None) -> TrainingResult:
    """Train, evaluate the best checkpoint, and print progress, scores and suggested commands.

    argv: the command line, if any, from which the command for a longer run is derived. Raises
    InputError for user errors, and the exceptions of `fit`.
    """
    check_trackers(config.run.trackers)
    device = pick_device(config.run.device)
    seconds = distributed.SERVER_SECONDS if _is_remote(config) else distributed.STEP_SECONDS
    with distributed.process_group(device, seconds):
        setup = build_setup(config, device)
        with lock_run(setup.run):
            if setup.data.problems and distributed.is_first():
                say(f"skipped: {write_skipped(setup.run, setup.data.problems)}")
            with memory_advice(*_memory(config, device)):
                progress = train(setup) if setup.job.fit is None else solve(setup)
                result = finish(setup, progress, argv)
    return TrainingResult(
        setup.run,
        config.system.name,
        progress.best_epoch,
        progress.history,
        result,
        str(device),
    )


def _memory(config: TrainConfig, device: torch.device) -> tuple[str, str]:
    """Return the arguments of `memory_advice`: what did not fit into memory, and what to do."""
    size, precision = config.training.batch_size, config.training.precision
    dtype = str(pick_precision(precision, device)).removeprefix("torch.")
    advice = [f"--batch-size {size // 2}"] if size > 1 else []
    if dtype == "float32":
        advice.append("--precision bfloat16")
    advice.append("a smaller --image-size, or more processes (torchrun --nproc-per-node)")
    return (
        f"training on {device} with --batch-size {size} and --precision {precision} ({dtype})",
        f"the saved checkpoints are intact; start a new run with {', '.join(advice)}",
    )


def _is_remote(config: TrainConfig) -> bool:
    data = config.data.data
    return data is not None and isinstance(storage.parse_location(data), Location)


def train(setup: TrainingSetup) -> Progress:
    """Run the training loop, writing checkpoints, logs and samples to the run's directory.

    A resumed run continues from its training state.
    """
    config, job, task = setup.config, setup.job, setup.config.system
    state = setup.resumed.training_state() if setup.resumed else None
    steps = job.steps * config.training.epochs
    if steps < FEW_STEPS and state is None and config.run.start_from is None:
        say(f"note: training takes only {steps} steps; try a smaller --batch-size or more --epochs")

    with ExitStack() as stack:
        trackers: tuple[Tracker, ...] = ()
        if distributed.is_first():
            progress: dict[str, Any] = state["progress"] if state else {"step": 0, "history": []}
            tracked = TrackedRun(
                setup.run, setup.checkpoint_config, progress["step"], progress["history"]
            )
            trackers = stack.enter_context(open_trackers(config.run.trackers, tracked))

        def evaluate(epoch: int) -> dict[str, float]:
            result = job.evaluate(config.training.precision)
            if distributed.is_first():
                log_image = None
                if trackers:
                    log_image = partial(_log_image, trackers, epoch * job.steps)
                job.show(result, epoch, log_image)
            return result.numbers

        return fit(
            job.model,
            job.batches,
            job.steps,
            config.training,
            evaluate=evaluate,
            watch=task.watched_score(config.training.watch),
            save=partial(save_checkpoint, setup),
            log=TrainingLog(setup.run, trackers, config.run.curves, task.negligible),
            unit=task.unit,
            negligible=task.negligible,
            prepare=job.prepare,
            observe=job.observe,
            device=setup.device,
            resume=state,
        )


def solve(setup: TrainingSetup) -> Progress:
    """Fit the model in closed form, and write the checkpoint "best" and a log of one row.

    Raises InputError if torchrun started several processes, because one does all the work.
    """
    assert setup.job.fit is not None
    if distributed.world_size() > 1:
        raise InputError(
            "a model that is fitted in closed form needs one process, got "
            f"{distributed.world_size()}; run without torchrun"
        )
    started = time.perf_counter()
    setup.job.fit()
    fitted = time.perf_counter()
    numbers = setup.job.evaluate("float32").numbers
    row = {"epoch": 1, "step": 0, "training_seconds": fitted - started, **numbers}
    row |= {"evaluation_seconds": time.perf_counter() - fitted, **peak_memory(setup.device)}
    save_checkpoint(setup, "best", None, numbers)
    write_log(setup.run / LOG, [row])
    say(f"fitted in {fitted - started:.1f} s, memory {row['memory_mb'] / 1000:.2f} GB")
    return Progress(epoch=1, best_epoch=1, history=[row])


def save_checkpoint(
    setup: TrainingSetup,
    name: str,
    training_state: dict[str, Any] | None,
    scores: dict[str, float],
) -> None:
    """Write a checkpoint of the current model; `scores` is empty before evaluation."""
    signature = setup.job.signature(scores)
    config = {**setup.checkpoint_config, "scores": scores, "signature": signature}
    config["parameters"] = count_parameters(setup.job.model)
    weights = setup.job.model.state_dict()
    checkpoint.save(setup.run / name, config, setup.job.save_text_model, weights, training_state)


def _log_image(trackers: Sequence[Tracker], step: int, name: str, image: Image.Image) -> None:
    for tracker in trackers:
        tracker.add_image(name, image, step)


def finish(setup: TrainingSetup, progress: Progress, argv: Sequence[str] | None) -> Result:
    """Evaluate the best checkpoint, draw its figures and print the summary; return the results.

    The results are those of float32, whatever the precision of the run.
    """
    setup.job.model.load_state_dict(checkpoint.load(setup.run / "best").weights)
    result = setup.job.evaluate("float32")
    if distributed.is_first():
        lines = describe_best(setup, progress, result) + setup.job.conclude(result)
        for line in lines + next_steps(setup, progress, argv):
            say(line)
    return result
