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
from captioner.checkpoints.runs import claim, write_skipped
from captioner.data.batches import Batch, encode_captions, epoch_order
from captioner.data.dataset import Example
from captioner.data.demo import scenes as demo
from captioner.data.images import load_image
from captioner.decoding.options import DecodingOptions
from captioner.devices import pick_device
from captioner.distributed import say
from captioner.errors import run_command
from captioner.evaluation.scoring import Evaluation, evaluate
from captioner.metrics import captions as metrics
from captioner.metrics.cider_d import CiderD
from captioner.models.captioning.distillation import Lesson, hear, teach
from captioner.models.captioning.self_critical import add_samples
from captioner.plots.heatmaps import save_heatmap
from captioner.plots.samples import Sample, draw_sample, save_samples
from captioner.prefetch import load_ahead, timed
from captioner.text.collate import pad_captions
from captioner.training.config import parse
from captioner.training.hints import longer, next_steps
from captioner.training.logging import Record
from captioner.training.loop import Progress, fit
from captioner.training.optimization import TrainingOptions
from captioner.training.setup import Job, prepare, watched_metrics
from captioner.training.tensorboard import Board, check_tensorboard

HEATMAPS, SAMPLES = 12, 4


def main(argv: Sequence[str] | None = None) -> None:
    """Train, and say how good the best checkpoint is; raises InputError for users' mistakes."""
    options = parse(argv)
    if options["run"].tensorboard:
        check_tensorboard()
    device = pick_device(options["run"].device)
    with distributed.process_group(device):
        job = prepare(options, device)
        with claim(job.run):
            if job.data.problems and distributed.is_first():
                say(f"skipped: {write_skipped(job.run, job.data.problems)}")
            progress = train(job)
            finish(job, progress, sys.argv[1:] if argv is None else argv)


def train(job: Job) -> Progress:
    """Run the training loop over the job's data, and show how it goes."""
    options: TrainingOptions = job.options["training"]
    batches, steps = batches_of(job)

    def save(name: str, training_state: dict[str, Any], scores: dict[str, float]) -> None:
        weights = job.model.state_dict()
        told = [name for name in metrics.SCORES if name in scores]
        signature = metrics.signature([e.captions for e in job.held_out], told)
        config = {**job.config, "scores": scores, "signature": signature}
        checkpoint.save(job.run / name, config, job.vocabulary, weights, training_state)

    state = job.resumed.training_state() if job.resumed else None
    with ExitStack() as stack:
        board = None
        if job.options["run"].tensorboard and distributed.is_first():
            board = stack.enter_context(closing(open_board(job, state)))

        def scores(epoch: int) -> dict[str, float]:
            result = evaluate_held_out(job)
            if distributed.is_first():
                show_samples(job, result, epoch, board, epoch * steps)
            return result.numbers

        return fit(
            job.model,
            batches,
            steps,
            options,
            evaluate=scores,
            watch=next(name for name in metrics.SCORES if name.lower() == options.watch),
            save=save,
            record=Record(job.run, board),
            device=job.device,
            resume=state,
        )


def batches_of(job: Job) -> tuple[Callable[[int, int], Iterable[Batch]], int]:
    """What gives an epoch's batches from a number on, and how many of them an epoch has."""
    options: TrainingOptions = job.options["training"]
    captions = encode_captions(job.training, job.vocabulary)
    ids = [example.id for example in job.training]
    rank, world = distributed.rank(), distributed.world_size()

    def order(epoch: int) -> list[list[int]]:
        tars, window = job.training_pictures.tars, job.training_pictures.window
        seed = options.seed
        return epoch_order(captions, options.batch_size, seed, epoch, world, tars, window)

    steps = len(order(0))

    def batches(epoch: int, first: int) -> Iterable[Batch]:
        mine = [batch[rank::world] for batch in order(epoch)[first:]]
        workers, pin = job.options["data"].workers, job.device.type == "cuda"
        loaded = load_ahead(load, mine, workers, pin=pin)
        loaded = map(completed, timed(loaded), count(epoch * steps + first))
        return map(sample, loaded) if options.self_critical else loaded  # each as its turn comes

    def completed(loaded: tuple[Batch, float], step: int) -> Batch:
        share = step / max(1, options.epochs * steps - 1)
        batch, waited = loaded
        return replace(batch, waited=waited, own_words=share * options.scheduled_sampling)

    if options.self_critical:
        sample = partial(
            add_samples,
            model=job.model,
            reward=CiderD.of(captions, len(job.vocabulary)).to(job.device).score,
            share=options.cross_entropy_share,
            precision=options.precision,
        )
    lessons = lessons_of(job, captions)

    def load(indices: Sequence[int]) -> Batch:
        tokens = pad_captions([captions[i] for i in indices])
        batch = job.training_pictures.batch(indices, [ids[i] for i in indices], tokens)
        return teach(batch, [lessons[i] for i in indices]) if lessons else batch

    return batches, steps


def lessons_of(job: Job, captions: Sequence[list[list[int]]]) -> list[Lesson] | None:
    """What the teacher, if there is one, says of the training captions."""
    if job.teacher is None:
        return None
    precision, workers = job.options["training"].precision, job.options["data"].workers
    return hear(job.teacher, job.training_pictures, captions, precision, workers)


def open_board(job: Job, state: dict[str, Any] | None) -> Board:
    """TensorBoard's files in the run's folder; `state` is that of the run that goes on."""
    progress: dict[str, Any] = state["progress"] if state else {"step": 0, "history": []}
    return Board(job.run / "tensorboard", progress["step"], progress["history"])


def evaluate_held_out(job: Job) -> Evaluation:
    """Caption and score the val split with the model as it is now."""
    return evaluate(
        job.model,
        job.vocabulary,
        job.held_out,
        job.held_out_pictures,
        DecodingOptions(beam_size=job.options["training"].beam_size),
        workers=job.options["data"].workers,
        shapes=demo.read_shapes(job.data.root, "val"),
        wanted=watched_metrics(job.options["training"].watch),
    )


def show_samples(job: Job, result: Evaluation, epoch: int, board: Board | None, step: int) -> None:
    """Print what the model says of a few pictures, and draw it with where it looked."""
    samples: list[tuple[str, Sample]] = []
    say(f"epoch {epoch} writes")
    for example in spread(job.held_out, SAMPLES):
        hypothesis, text = result.hypotheses[example.id], result.texts[example.id]
        words = job.vocabulary.decode(hypothesis.tokens)
        maps = hypothesis.attention
        image, reference = load_image(example.path), example.captions[0]
        maps = None if maps is None else maps[: len(words)]
        samples.append((example.path.name, Sample(image, words, text, reference, maps)))
        say(f"  {example.path.name}: {text}")
    path, offset = job.run / "samples" / f"epoch-{epoch:02}.png", job.model.encoder.offset
    save_samples(path, [sample for _, sample in samples], offset)
    if board:
        for number, (name, sample) in enumerate(samples, start=1):
            board.picture(f"samples/{number}-{name}", draw_sample(sample, offset), step)


def spread(examples: Sequence[Example], number: int) -> Sequence[Example]:
    """So many of the examples, from all over them."""
    return examples[:: max(1, len(examples) // number)][:number]


def finish(job: Job, progress: Progress, argv: Sequence[str]) -> None:
    """Score the best checkpoint, draw where it looked, and say what to do next."""
    job.model.load_state_dict(checkpoint.load(job.run / "best").weights)
    result = evaluate_held_out(job)
    if not distributed.is_first():
        return
    beam_size = job.options["training"].beam_size
    say(f"best epoch: {progress.best_epoch}; val split, beam size {beam_size}")
    say(result.describe([example.captions for example in job.held_out]))
    if job.options["model"].attention:
        folder = draw_heatmaps(job, result)
        say(f"heatmaps: {folder}")
    say("next:")
    split = "test" if any(e.split == "test" for e in job.data.examples) else "val"
    picture = job.held_out[0].path
    for line in next_steps(job.run, split, picture, beam_size, job.options["model"].attention):
        say(f"  {line}")
    epochs = job.options["training"].epochs
    if progress.best_epoch == progress.epoch == epochs:
        say("the last epoch was the best, so more of them may be better still:")
        say(f"  {longer(argv, job.run, 2 * epochs, distributed.world_size())}")


def draw_heatmaps(job: Job, result: Evaluation) -> Path:
    """Heatmaps of pictures spread over the val split."""
    folder = job.run / "heatmaps"
    for number, example in enumerate(spread(job.held_out, HEATMAPS), start=1):
        hypothesis = result.hypotheses[example.id]
        words = job.vocabulary.decode(hypothesis.tokens)
        assert hypothesis.attention is not None
        save_heatmap(
            folder / f"{number:02}-{example.path.stem}.png",
            load_image(example.path),
            words,
            hypothesis.attention[: len(words)],
            title=result.texts[example.id],
            offset=job.model.encoder.offset,
        )
    return folder


if __name__ == "__main__":
    run_command(main)
