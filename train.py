"""Train a captioning model: python train.py --help."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch

from captioner import checkpoint, demo, distributed, metrics
from captioner.batches import (
    Batch,
    Pictures,
    encode_captions,
    epoch_order,
    pad_captions,
)
from captioner.captioning import CaptioningModel, build_model, standardize_maps
from captioner.cider import CiderD
from captioner.data import CaptionData, Example
from captioner.decoding_options import DecodingOptions
from captioner.devices import pick_device
from captioner.encoders import EncoderOptions, build_encoder
from captioner.errors import run_command
from captioner.evaluation import Evaluation, evaluate
from captioner.features import PictureFiles, cached_features
from captioner.heatmaps import save_heatmap
from captioner.images import Transform, load_image
from captioner.loading import load_ahead, timed
from captioner.optimization import TrainingOptions
from captioner.recipe import DataOptions, parse
from captioner.runs import (
    claim,
    describe,
    load_data,
    open_run,
    open_source,
    run_folder,
    take_weights,
    write_skipped,
)
from captioner.self_critical import add_samples
from captioner.text import Vocabulary, split_words
from captioner.training import Progress, fit
from captioner.watching import Record

HEATMAPS = 12


@dataclass(frozen=True)
class Job:
    """All that training works with, once the options have been turned into things."""

    options: dict[str, Any]
    device: torch.device
    run: Path
    data: CaptionData
    config: dict[str, Any]
    vocabulary: Vocabulary
    model: CaptioningModel
    training: list[Example]
    held_out: list[Example]
    training_pictures: Pictures
    held_out_pictures: Pictures
    resumed: checkpoint.Checkpoint | None


def main(argv: Sequence[str] | None = None) -> None:
    """Train, and say how good the best checkpoint is; raises InputError for users' mistakes."""
    options = parse(argv)
    device = pick_device(options["run"].device)
    with distributed.process_group(device):
        job = prepare(options, device)
        with claim(job.run):
            if job.data.problems and distributed.is_first():
                say(f"skipped: {write_skipped(job.run, job.data.problems)}")
            progress = train(job)
            finish(job, progress)


def prepare(options: dict[str, Any], device: torch.device) -> Job:
    """Read the data, build vocabulary, encoder and model, and compute features if it is frozen."""
    name = options["run"].run
    named = None if name is None else run_folder(name)
    metrics.chosen(watched_metrics(options["training"].watch))  # before any work
    chosen: DataOptions = options["data"]
    data = load_data(chosen.data, chosen.format, chosen.cache, chosen.on_error)
    training, held_out = data.split("train"), data.split("val")
    transform = Transform(options["encoder"].image_size)
    config = describe(options, data, transform)
    run = named or run_folder(f"{data.name}-{options['model'].name}")
    start_from = options["run"].start_from
    resumed = open_run(run, options["run"].resume, config)
    source = open_source(start_from, config) if start_from and not resumed else resumed
    say(data.summary())
    vocabulary = source.vocabulary if source else build_vocabulary(training, options["data"])
    model = make_model(options, len(vocabulary), source).to(device)

    def pictures(examples: list[Example]) -> Pictures:
        files = PictureFiles([example.path for example in examples], transform)
        return open_pictures(model, files, options["data"], device)

    training_pictures = pictures(training)
    if source is None:
        standardize_maps(model, training_pictures, len(training))
    return Job(
        options,
        device,
        run,
        data,
        config,
        vocabulary,
        model,
        training,
        held_out,
        training_pictures,
        pictures(held_out),
        resumed,
    )


def build_vocabulary(training: Sequence[Example], options: DataOptions) -> Vocabulary:
    """The words of the training captions."""
    captions = (split_words(text) for example in training for text in example.captions)
    return Vocabulary.build(captions, options.min_count)


def make_model(
    options: dict[str, Any], vocabulary_size: int, source: checkpoint.Checkpoint | None
) -> CaptioningModel:
    """The model that the options describe, with the weights of `source` where there is one."""
    chosen: EncoderOptions = options["encoder"]
    torch.manual_seed(options["training"].seed)
    encoder = build_encoder(
        chosen.encoder,
        chosen.encoder_weights,
        fine_tune_from=chosen.fine_tune_encoder,
        pretrained=options["run"].start_from is not None,
    )
    model = build_model(encoder, vocabulary_size, options["model"])
    if source:
        take_weights(model, source)
    if encoder.frozen and not encoder.pretrained:
        say(f"note: {chosen.encoder} is frozen with random weights; see --encoder-weights")
    say(
        f"{options['model'].name} with {'frozen' if encoder.frozen else 'trained'} "
        f"{chosen.encoder}, {vocabulary_size} words, "
        f"{sum(p.numel() for p in model.parameters() if p.requires_grad):,} trained parameters"
    )
    return model


def open_pictures(
    model: CaptioningModel,
    files: PictureFiles,
    options: DataOptions,
    device: torch.device,
) -> Pictures:
    """Feature maps from the cache for a frozen encoder, else the pictures themselves."""
    if not model.encoder.frozen:
        return Pictures(files.load, are_features=False)

    def cache() -> Pictures:
        features = cached_features(
            options.cache, model.encoder, files, device=device, workers=options.workers
        )
        return Pictures(features.load, are_features=True)

    if distributed.is_first():
        cache()
    distributed.barrier()
    return cache()


def train(job: Job) -> Progress:
    """Run the training loop over the job's data."""
    options: TrainingOptions = job.options["training"]
    captions = encode_captions(job.training, job.vocabulary)
    ids = [example.id for example in job.training]
    rank, world = distributed.rank(), distributed.world_size()

    def order(epoch: int) -> list[list[int]]:
        return epoch_order(captions, options.batch_size, options.seed, epoch, world)

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
            cider=CiderD.of(captions, len(job.vocabulary)).to(job.device),
            share=options.cross_entropy_share,
            precision=options.precision,
        )

    def load(indices: Sequence[int]) -> Batch:
        tokens = pad_captions([captions[i] for i in indices])
        return job.training_pictures.batch(indices, [ids[i] for i in indices], tokens)

    def save(name: str, training_state: dict[str, Any], scores: dict[str, float]) -> None:
        weights = job.model.state_dict()
        config = {**job.config, "scores": scores}
        checkpoint.save(job.run / name, config, job.vocabulary, weights, training_state)

    return fit(
        job.model,
        batches,
        steps,
        options,
        evaluate=lambda: evaluate_held_out(job).numbers,
        watch=next(name for name in metrics.SCORES if name.lower() == options.watch),
        save=save,
        record=Record(job.run),
        device=job.device,
        resume=job.resumed.training_state() if job.resumed else None,
    )


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


def watched_metrics(watch: str) -> tuple[str, ...]:
    """What every epoch is scored by: METEOR, whose Java takes its time, only if it is watched."""
    return (*metrics.WITHOUT_JAVA, *(["meteor"] if watch == "meteor" else []))


def finish(job: Job, progress: Progress) -> None:
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
    say(f"next: python -m captioner caption PICTURE --checkpoint {job.run}")


def draw_heatmaps(job: Job, result: Evaluation) -> Path:
    """Heatmaps of pictures spread over the val split."""
    folder = job.run / "heatmaps"
    chosen = job.held_out[:: max(1, len(job.held_out) // HEATMAPS)][:HEATMAPS]
    for number, example in enumerate(chosen, start=1):
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


def say(text: str) -> None:
    """Print for people; one process of several does."""
    if distributed.is_first():
        print(text, flush=True)


if __name__ == "__main__":
    run_command(main)
