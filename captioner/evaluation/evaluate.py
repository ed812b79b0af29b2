"""Evaluate checkpoints and caption files; print and save the scores."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..atomic_io import atomic_write
from ..captioner import Captioner
from ..checkpoints import checkpoint, hub
from ..checkpoints.checkpoint import Checkpoint
from ..checkpoints.runs import evaluation_directory, read_log, run_of
from ..data.caption_files import (
    match,
    read_caption_file,
    read_comparison_captions,
    read_predictions,
)
from ..data.dataset import CaptionData, Example, fingerprint, problem_lines, split_name
from ..data.demo import dataset as demo
from ..data.inspection import drop_corrupt_images
from ..data.readers import load_data
from ..data.sources import ImageSource, Source
from ..data.storage import files as storage
from ..data.storage.location import Location
from ..decoding.decode import DecodeSettings
from ..decoding.hypothesis import Hypothesis
from ..decoding.options import DecodingOptions
from ..devices import RuntimeOptions, pick_device
from ..errors import InputError
from ..metrics.bootstrap import Interval, differences, intervals
from ..metrics.captions import SCORES, compute_scores
from ..plots.curves import curves_svg
from ..vision.feature_store import FeatureStore, Runtime
from ..vision.options import EncoderOptions
from .options import SAMPLES, EvaluationOptions, ScoringOptions
from .report import Heading, write_report
from .split import (
    Evaluation,
    ScoringSettings,
    caption_split,
    caption_texts,
    score_captions,
    score_hypotheses,
)

CAPTIONS_FILE, SCORES_FILE = "captions.json", "scores.json"
References = Mapping[int | str, Sequence[str]]


def evaluate_checkpoint(
    options: EvaluationOptions,
    runtime: RuntimeOptions,
    scoring: ScoringOptions,
    decoding: DecodingOptions,
) -> None:
    """Caption a split with one checkpoint or an ensemble, and score the captions.

    Prints the scores, and writes the captions, the scores and, if requested, a report. Raises
    InputError for user errors.
    """
    split = split_name(options.split)
    metrics = scoring.selected_metrics  # raises before any work if METEOR lacks Java
    if decoding.num_captions != 1:
        raise InputError(
            f"num_captions must be 1 for evaluation, got {decoding.num_captions}; "
            "omit --num-captions"
        )
    pick_device(runtime.device)  # raises InputError before images are decoded
    checkpoints = _load_checkpoints(options)
    data, training_captions = _load_data(options, checkpoints[0].config, split)
    examples = data.split(split)
    references = {example.id: example.captions for example in examples}
    baseline = _read_baseline(scoring, references)
    captioner = Captioner.from_checkpoints(
        checkpoints, runtime.device, runtime.precision, runtime.compile
    )
    directory = options.output or evaluation_directory(checkpoints[0].path, split)
    _make_directory(directory, "--output")
    if options.report:
        _make_directory(options.report, "--report")
    settings = DecodeSettings(decoding, options.batch_size, options.workers, runtime.precision)
    images = _open_images(captioner, examples, options)
    hypotheses = _write_captions(directory, captioner, examples, images, settings)
    shapes = demo.read_shapes(data.root, split)
    scoring_settings = ScoringSettings(metrics, training_captions, shapes)
    try:
        result = score_hypotheses(
            captioner.model, captioner.vocabulary, examples, hypotheses, scoring_settings
        )
    except InputError as error:  # METEOR's Java program may fail
        raise InputError(f"{error}; the captions are in {directory / CAPTIONS_FILE}") from error
    title = f"{data.name}, {split} split, {len(examples)} images"
    print(f"{_paths(checkpoints)} on {title}")
    _write_json(directory / SCORES_FILE, _print_scores(result, references, baseline, scoring))
    print(f"captions and scores: {directory}")
    if options.report:
        heading = _heading(title, checkpoints, result, references, scoring, decoding)
        path, offset = options.report / "report.html", captioner.model.encoder.offset
        write_report(path, heading, result, examples, captioner.vocabulary, offset)
        print(f"report: {path}")


def evaluate_file(options: EvaluationOptions, scoring: ScoringOptions) -> None:
    """Score the captions in one file against the references in another.

    Prints the scores, and writes them if an output directory is given. Raises InputError for user
    errors.
    """
    assert scoring.predictions is not None
    assert scoring.references is not None
    metrics = scoring.selected_metrics  # raises before any work if METEOR lacks Java
    captions, references, note = match(
        read_predictions(scoring.predictions),
        read_caption_file(scoring.references),
        scoring.allow_missing,
    )
    baseline = _read_baseline(scoring, references)
    training_captions: list[str] | None = None
    if scoring.training_captions is not None:
        by_image = read_caption_file(scoring.training_captions)
        training_captions = [text for texts in by_image.values() for text in texts]
    if options.output:
        _make_directory(options.output, "--output")
    result = score_captions(captions, references, ScoringSettings(metrics, training_captions))
    print(f"{scoring.predictions} against {scoring.references}, {len(captions)} images")
    if note:
        print(note)
    scores = _print_scores(result, references, baseline, scoring)
    if options.output:
        _write_json(options.output / SCORES_FILE, scores)
        print(f"scores: {options.output}")


def data_source(
    config: Mapping[str, Any], data: Path | None, format: str | None
) -> tuple[Path | Location | None, str | None]:
    """Return the path and format of the data; the default is the checkpoint's training data.

    A path of None means the demo data. Raises InputError if the training data no longer exists.
    """
    if data is not None:
        return data, format
    if format is not None:
        raise InputError("--format needs --data")
    trained_on = config["data"]
    if trained_on["path"] is None:
        return None, None
    place = storage.parse_location(trained_on["path"])
    if not storage.is_pattern(place) and not storage.exists(place):
        raise InputError(
            f"training data {place} no longer exists; pass --data with its new location"
        )
    return place, trained_on["format"]


def _load_checkpoints(options: EvaluationOptions) -> list[Checkpoint]:
    """Load the checkpoints; raise InputError if there is no default directory for the results."""
    if len(options.checkpoint) > 1 and options.output is None:
        raise InputError(
            "several checkpoints have no common run directory; pass --output with a directory "
            "for the results"
        )
    paths = [hub.local(path) for path in options.checkpoint]
    if paths != list(options.checkpoint) and options.output is None:
        raise InputError(
            "a checkpoint from the hub has no run directory; pass --output with a directory for "
            "the results"
        )
    return [checkpoint.load(path) for path in paths]


def _load_data(
    options: EvaluationOptions, config: Mapping[str, Any], split: str
) -> tuple[CaptionData, list[str] | None]:
    """Load the data and, if the data contains them, the captions that the model was trained on.

    Corrupt images in the split are handled as in training.
    """
    path, format = data_source(config, options.data, options.format)
    on_error = config["data"].get("on_error", "stop")
    complete = load_data(path, format, options.cache, on_error)
    memo = _writable(options.cache)
    data, _ = drop_corrupt_images(complete, (split,), on_error, memo, options.workers)
    for line in problem_lines(data.problems[len(complete.problems) :]):
        print(f"skipped: {line}")
    if fingerprint(complete) == config["data"]["fingerprint"]:
        left_out = config["data"].get("left_out", ())
        training = [e for e in complete.examples if e.split == "train" and e.id not in left_out]
        return data, [text for example in training for text in example.captions]
    if options.data is None:
        print("note: images, splits or captions have changed since the model was trained")
    return data, None


def _read_baseline(scoring: ScoringOptions, references: References) -> dict[int | str, str] | None:
    """Read the captions to compare with; return None without --compare."""
    if scoring.compare is None:
        return None
    return read_comparison_captions(scoring.compare, references, scoring.allow_missing)


def _make_directory(directory: Path, flag: str) -> None:
    """Create an output directory; called before any work so that errors show early."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{flag} {directory} cannot be created: {error.strerror}; choose another directory"
        ) from error


def _writable(cache: Path) -> Path | None:
    """Return the cache directory, created if necessary; None if it is not writable."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return cache if os.access(cache, os.W_OK) else None


def _open_images(
    captioner: Captioner, examples: Sequence[Example], options: EvaluationOptions
) -> Source:
    """Return stored features for a single model with a frozen encoder, and images otherwise.

    If features cannot be stored, for example because the disk is full, the images are returned.
    """
    files = ImageSource([example.path for example in examples], captioner.transform)
    names = ("encoder", "encoder_weights", "fine_tune_encoder")
    if captioner.config is None:  # an ensemble
        return files
    if EncoderOptions(*(captioner.config["encoder"].get(name) for name in names)).trains:
        return files
    store = FeatureStore(options.cache, captioner.model.encoder, captioner.transform)
    try:
        return store.open_files(files, Runtime(captioner.device, options.workers))
    except InputError as error:
        print(f"note: features are not stored: {error}")
        return files


def _write_captions(
    directory: Path,
    captioner: Captioner,
    examples: Sequence[Example],
    images: Source,
    settings: DecodeSettings,
) -> dict[int | str, Hypothesis]:
    """Caption the examples; write the captions before scoring, because scoring may fail."""
    hypotheses = caption_split(captioner.model, examples, images, settings)
    texts = caption_texts(hypotheses, captioner.vocabulary)
    (directory / SCORES_FILE).unlink(missing_ok=True)  # scores of the previous captions
    rows = [{"image_id": id, "caption": text} for id, text in texts.items()]
    _write_json(directory / CAPTIONS_FILE, rows)
    return hypotheses


def _print_scores(
    result: Evaluation,
    references: References,
    baseline: dict[int | str, str] | None,
    scoring: ScoringOptions,
) -> dict[str, Any]:
    """Print the scores and return the contents of scores.json."""
    print(result.describe(references.values()))
    content: dict[str, Any] = result.numbers
    if scoring.bootstrap:
        found = intervals(result.scores, scoring.bootstrap)
        print(
            f"95 % confidence intervals from {scoring.bootstrap} bootstrap samples of the images:"
        )
        content["intervals"] = _print_intervals(found, "")
    if baseline is not None:
        samples = scoring.bootstrap or SAMPLES
        baseline_scores = compute_scores(baseline, references, tuple(result.scores.statistics))
        found = differences(result.scores, baseline_scores, samples)
        print(
            f"difference from {scoring.compare}, "
            f"95 % confidence intervals from {samples} paired bootstrap samples:"
        )
        content["differences"] = _print_intervals(found, "+")
    return {**content, "images": result.rows}


def _print_intervals(found: Mapping[str, Interval], sign: str) -> dict[str, dict[str, float]]:
    """Print one line per score and return the intervals in a form that JSON can store."""
    for name, interval in found.items():
        print(f"  {name} {interval:{sign}.2f}")
    return {name: asdict(interval) for name, interval in found.items()}


def _write_json(path: Path, content: Any) -> None:
    atomic_write(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _heading(
    title: str,
    checkpoints: Sequence[Checkpoint],
    result: Evaluation,
    references: References,
    scoring: ScoringOptions,
    decoding: DecodingOptions,
) -> Heading:
    """Build the report's heading; an ensemble has no training curves."""
    facts = [
        _paths(checkpoints),
        f"decoding: {decoding.describe()}",
        *result.describe(references.values()).splitlines()[1:],
    ]
    sampled = intervals(result.scores, scoring.bootstrap or SAMPLES)
    curves = _curves(checkpoints[0]) if len(checkpoints) == 1 else []
    return Heading(title, facts, sampled, curves)


def _curves(read: Checkpoint) -> list[str]:
    """Draw the training curves of a checkpoint's run and mark the checkpoint's epoch."""
    rows = read_log(run_of(read.path) / "log.jsonl")
    watched = read.config.get("training", {}).get("watch")
    watch = next((name for name in SCORES if name.lower() == watched), "BLEU-4")
    score = read.config.get("scores", {}).get(watch)
    epoch = 0
    for row in rows if score is not None else ():
        logged = row.get(watch)
        if isinstance(logged, int | float) and math.isclose(logged, score, abs_tol=1e-5):
            epoch = row.get("epoch", 0)
    return curves_svg(rows, watch, epoch)


def _paths(checkpoints: Sequence[Checkpoint]) -> str:
    return " + ".join(str(each.path) for each in checkpoints)
