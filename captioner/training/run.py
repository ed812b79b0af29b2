"""One complete training run, from its configuration to its result."""

from collections.abc import Sequence
from contextlib import ExitStack, closing
from typing import Any

from .. import distributed
from ..checkpoints import checkpoint
from ..checkpoints.runs import lock_run, write_skipped
from ..devices import pick_device
from ..distributed import say
from ..evaluation.split import Evaluation
from ..metrics.captions import SCORES, signature
from .config import TrainConfig
from .epoch_batches import EpochBatches
from .held_out import evaluate_held_out
from .logging import TrainingLog
from .loop import fit
from .progress import Progress
from .result import TrainingResult
from .samples import draw_heatmaps, show_samples
from .setup import TrainingSetup, build_setup
from .summary import describe_best, next_steps
from .tensorboard import TensorBoardWriter, check_tensorboard

NEGLIGIBLE_BLEU = 0.02  # on a scale of 0 to 100; BLEU is not exactly 0 if no n-gram matches


def run_training(config: TrainConfig, argv: Sequence[str] | None = None) -> TrainingResult:
    """Train, evaluate the best checkpoint, and print progress, scores and suggested commands.

    argv: the command line, if any, from which the command for a longer run is derived. Raises
    InputError for user errors, and the exceptions of `fit`.
    """
    if config.run.tensorboard:
        check_tensorboard()
    device = pick_device(config.run.device)
    with distributed.process_group(device):
        setup = build_setup(config, device)
        with lock_run(setup.run):
            if setup.data.problems and distributed.is_first():
                say(f"skipped: {write_skipped(setup.run, setup.data.problems)}")
            progress = train(setup)
            evaluation = finish(setup, progress, argv)
    return TrainingResult(setup.run, progress.best_epoch, progress.history, evaluation, str(device))


def train(setup: TrainingSetup) -> Progress:
    """Run the training loop, writing checkpoints, log and samples to the run's directory."""
    config = setup.config
    batches = EpochBatches(setup)
    state = setup.resumed.training_state() if setup.resumed else None

    def save(name: str, training_state: dict[str, Any], scores: dict[str, float]) -> None:
        save_checkpoint(setup, name, training_state, scores)

    with ExitStack() as stack:
        tensorboard = None
        if config.run.tensorboard and distributed.is_first():
            tensorboard = stack.enter_context(closing(open_tensorboard(setup, state)))

        def evaluate(epoch: int) -> dict[str, float]:
            evaluation = evaluate_held_out(setup)
            if distributed.is_first():
                show_samples(setup, evaluation, epoch, tensorboard, epoch * batches.steps)
            return evaluation.numbers

        return fit(
            setup.model,
            batches,
            batches.steps,
            config.training,
            evaluate=evaluate,
            watch=config.training.watched_score,
            save=save,
            log=TrainingLog(setup.run, tensorboard, config.run.curves),
            unit="words",
            negligible=NEGLIGIBLE_BLEU,
            prepare=batches.prepare,
            device=setup.device,
            resume=state,
        )


def save_checkpoint(
    setup: TrainingSetup, name: str, training_state: dict[str, Any], scores: dict[str, float]
) -> None:
    """Write a checkpoint of the current model; `scores` is empty before evaluation."""
    names = [score for score in SCORES if score in scores]
    scores_signature = signature([e.captions for e in setup.held_out.examples], names)
    config = {**setup.checkpoint_config, "scores": scores, "signature": scores_signature}
    weights = setup.model.state_dict()
    checkpoint.save(setup.run / name, config, setup.vocabulary, weights, training_state)


def open_tensorboard(setup: TrainingSetup, state: dict[str, Any] | None) -> TensorBoardWriter:
    """Open a TensorBoard writer in the run's directory; `state` is from the resumed run, if any."""
    progress: dict[str, Any] = state["progress"] if state else {"step": 0, "history": []}
    return TensorBoardWriter(setup.run / "tensorboard", progress["step"], progress["history"])


def finish(setup: TrainingSetup, progress: Progress, argv: Sequence[str] | None) -> Evaluation:
    """Evaluate the best checkpoint, draw its heatmaps and print the summary."""
    setup.model.load_state_dict(checkpoint.load(setup.run / "best").weights)
    evaluation = evaluate_held_out(setup)
    if distributed.is_first():
        lines = describe_best(setup, progress, evaluation)
        if directory := draw_heatmaps(setup, evaluation):
            lines.append(f"heatmaps: {directory}")
        for line in lines + next_steps(setup, progress, argv):
            say(line)
    return evaluation
