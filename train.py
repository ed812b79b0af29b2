"""Train a captioning model: python train.py --help."""

import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from captioner import distributed
from captioner.checkpoints import checkpoint
from captioner.checkpoints.runs import lock_run, write_skipped
from captioner.data.batches import Batch, encode_captions, epoch_order, make_batch
from captioner.data.dataset import Example
from captioner.data.demo import dataset as demo
from captioner.data.images import load_image
from captioner.decoding.decode import DecodeSettings
from captioner.decoding.options import DecodingOptions
from captioner.devices import pick_device
from captioner.distributed import say
from captioner.errors import run_command
from captioner.evaluation.split import Evaluation, ScoringSettings, evaluate_split
from captioner.metrics import captions as metrics
from captioner.metrics.cider_d import CiderD
from captioner.models.captioning.distillation import (
    SoftTargets,
    add_soft_targets,
    compute_soft_targets,
)
from captioner.models.captioning.scst import add_rollouts
from captioner.plots.heatmaps import save_heatmap
from captioner.plots.samples import Sample, draw_sample, save_samples
from captioner.prefetch import load_ahead, timed
from captioner.text.collate import pad_captions
from captioner.training.config import parse
from captioner.training.hints import longer, next_commands
from captioner.training.logging import TrainingLog
from captioner.training.loop import Progress, fit
from captioner.training.optimization import TrainingOptions
from captioner.training.setup import TrainingSetup, build_setup, watched_metrics
from captioner.training.tensorboard import Board, check_tensorboard

HEATMAPS, SAMPLES = 12, 4


def main(argv: Sequence[str] | None = None) -> None:
    """Train, and say how good the best checkpoint is; raises InputError for users' mistakes."""
    options = parse(argv)
    if options["run"].tensorboard:
        check_tensorboard()
    device = pick_device(options["run"].device)
    with distributed.process_group(device):
        setup = build_setup(options, device)
        with lock_run(setup.run):
            if setup.data.problems and distributed.is_first():
                say(f"skipped: {write_skipped(setup.run, setup.data.problems)}")
            progress = train(setup)
            finish(setup, progress, sys.argv[1:] if argv is None else argv)


def train(setup: TrainingSetup) -> Progress:
    """Run the training loop over the job's data, and show how it goes."""
    options: TrainingOptions = setup.options["training"]
    batches, steps = batches_of(setup)

    def save(name: str, training_state: dict[str, Any], scores: dict[str, float]) -> None:
        weights = setup.model.state_dict()
        told = [name for name in metrics.SCORES if name in scores]
        signature = metrics.signature([e.captions for e in setup.held_out], told)
        config = {**setup.config, "scores": scores, "signature": signature}
        checkpoint.save(setup.run / name, config, setup.vocabulary, weights, training_state)

    state = setup.resumed.training_state() if setup.resumed else None
    with ExitStack() as stack:
        board = None
        if setup.options["run"].tensorboard and distributed.is_first():
            board = stack.enter_context(closing(open_board(setup, state)))

        def scores(epoch: int) -> dict[str, float]:
            result = evaluate_held_out(setup)
            if distributed.is_first():
                show_samples(setup, result, epoch, board, epoch * steps)
            return result.numbers

        return fit(
            setup.model,
            batches,
            steps,
            options,
            evaluate=scores,
            watch=next(name for name in metrics.SCORES if name.lower() == options.watch),
            save=save,
            log=TrainingLog(setup.run, board),
            device=setup.device,
            resume=state,
        )


def batches_of(setup: TrainingSetup) -> tuple[Callable[[int, int], Iterable[Batch]], int]:
    """What gives an epoch's batches from a number on, and how many of them an epoch has."""
    options: TrainingOptions = setup.options["training"]
    captions = encode_captions(setup.training, setup.vocabulary)
    ids = [example.id for example in setup.training]
    rank, world = distributed.rank(), distributed.world_size()

    def order(epoch: int) -> list[list[int]]:
        groups, window = setup.training_images.groups, setup.training_images.window
        seed = options.seed
        return epoch_order(captions, options.batch_size, seed, epoch, world, groups, window)

    steps = len(order(0))

    def batches(epoch: int, first: int) -> Iterable[Batch]:
        mine = [batch[rank::world] for batch in order(epoch)[first:]]
        workers, pin = setup.options["data"].workers, setup.device.type == "cuda"
        loaded = load_ahead(load, mine, workers, pin=pin)
        loaded = map(completed, timed(loaded), count(epoch * steps + first))
        return map(sample, loaded) if options.self_critical else loaded  # each as its turn comes

    def completed(loaded: tuple[Batch, float], step: int) -> Batch:
        share = step / max(1, options.epochs * steps - 1)
        batch, waited = loaded
        return replace(batch, waited=waited, sampling_prob=share * options.scheduled_sampling)

    if options.self_critical:
        sample = partial(
            add_rollouts,
            model=setup.model,
            reward=CiderD.of(captions, len(setup.vocabulary)).to(setup.device).score,
            share=options.cross_entropy_share,
            precision=options.precision,
        )
    lessons = lessons_of(setup, captions)

    def load(indices: Sequence[int]) -> Batch:
        tokens = pad_captions([captions[i] for i in indices])
        batch = make_batch(setup.training_images, indices, [ids[i] for i in indices], tokens)
        return add_soft_targets(batch, [lessons[i] for i in indices]) if lessons else batch

    return batches, steps


def lessons_of(
    setup: TrainingSetup, captions: Sequence[list[list[int]]]
) -> list[SoftTargets] | None:
    """What the teacher, if there is one, says of the training captions."""
    if setup.teacher is None:
        return None
    precision, workers = setup.options["training"].precision, setup.options["data"].workers
    return compute_soft_targets(setup.teacher, setup.training_images, captions, precision, workers)


def open_board(setup: TrainingSetup, state: dict[str, Any] | None) -> Board:
    """TensorBoard's files in the run's directory; `state` is that of the run that goes on."""
    progress: dict[str, Any] = state["progress"] if state else {"step": 0, "history": []}
    return Board(setup.run / "tensorboard", progress["step"], progress["history"])


def evaluate_held_out(setup: TrainingSetup) -> Evaluation:
    """Caption and score the val split with the model as it is now."""
    options: TrainingOptions = setup.options["training"]
    decoding = DecodingOptions(beam_size=options.beam_size)
    shapes = demo.read_shapes(setup.data.root, "val")
    return evaluate_split(
        setup.model,
        setup.vocabulary,
        setup.held_out,
        setup.held_out_images,
        DecodeSettings(decoding, workers=setup.options["data"].workers),
        ScoringSettings(watched_metrics(options.watch), shapes=shapes),
    )


def show_samples(
    setup: TrainingSetup, result: Evaluation, epoch: int, board: Board | None, step: int
) -> None:
    """Print what the model says of a few images, and draw it with where it looked."""
    samples: list[tuple[str, Sample]] = []
    say(f"epoch {epoch} writes")
    for example in spread(setup.held_out, SAMPLES):
        hypothesis, text = result.hypotheses[example.id], result.texts[example.id]
        words = setup.vocabulary.decode(hypothesis.tokens)
        maps = hypothesis.attention
        image, reference = load_image(example.path), example.captions[0]
        maps = None if maps is None else maps[: len(words)]
        samples.append((example.path.name, Sample(image, words, text, reference, maps)))
        say(f"  {example.path.name}: {text}")
    path, offset = setup.run / "samples" / f"epoch-{epoch:02}.png", setup.model.encoder.offset
    save_samples(path, [sample for _, sample in samples], offset)
    if board:
        for number, (name, sample) in enumerate(samples, start=1):
            board.image(f"samples/{number}-{name}", draw_sample(sample, offset), step)


def spread(examples: Sequence[Example], number: int) -> Sequence[Example]:
    """So many of the examples, from all over them."""
    return examples[:: max(1, len(examples) // number)][:number]


def finish(setup: TrainingSetup, progress: Progress, argv: Sequence[str]) -> None:
    """Score the best checkpoint, draw where it looked, and say what to do next."""
    setup.model.load_state_dict(checkpoint.load(setup.run / "best").weights)
    result = evaluate_held_out(setup)
    if not distributed.is_first():
        return
    beam_size = setup.options["training"].beam_size
    say(f"best epoch: {progress.best_epoch}; val split, beam size {beam_size}")
    say(result.describe([example.captions for example in setup.held_out]))
    if setup.options["model"].attention:
        directory = draw_heatmaps(setup, result)
        say(f"heatmaps: {directory}")
    say("next:")
    split = "test" if any(e.split == "test" for e in setup.data.examples) else "val"
    image = setup.held_out[0].path
    for line in next_commands(setup.run, split, image, beam_size, setup.options["model"].attention):
        say(f"  {line}")
    epochs = setup.options["training"].epochs
    if progress.best_epoch == progress.epoch == epochs:
        say("the last epoch was the best, so more of them may be better still:")
        say(f"  {longer(argv, setup.run, 2 * epochs, distributed.world_size())}")


def draw_heatmaps(setup: TrainingSetup, result: Evaluation) -> Path:
    """Heatmaps of images spread over the val split."""
    directory = setup.run / "heatmaps"
    for number, example in enumerate(spread(setup.held_out, HEATMAPS), start=1):
        hypothesis = result.hypotheses[example.id]
        words = setup.vocabulary.decode(hypothesis.tokens)
        assert hypothesis.attention is not None
        save_heatmap(
            directory / f"{number:02}-{example.path.stem}.png",
            load_image(example.path),
            words,
            hypothesis.attention[: len(words)],
            title=result.texts[example.id],
            offset=setup.model.encoder.offset,
        )
    return directory


if __name__ == "__main__":
    run_command(main)
