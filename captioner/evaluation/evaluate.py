"""Evaluate captioning checkpoints and caption files; print and save the scores."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..captioner import Captioner
from ..checkpoints.checkpoint import Checkpoint
from ..checkpoints.runs import evaluation_directory, read_log, run_of
from ..data.caption_files import (
    match,
    read_caption_file,
    read_comparison_captions,
    read_predictions,
)
from ..data.dataset import Example, split_name
from ..data.demo import dataset as demo
from ..data.sources import ImageSource, Source
from ..decoding.decode import DecodeSettings
from ..decoding.hypothesis import Hypothesis
from ..decoding.options import DecodingOptions
from ..devices import pick_device
from ..errors import InputError
from ..metrics.bootstrap import Interval, differences, intervals
from ..metrics.captions import SCORES, compute_scores
from ..metrics.spice import find_java_8
from ..plots.curves import curves_svg
from ..vision.options import EncoderOptions
from .inputs import SCORES_FILE, load_split, make_directory, open_features, write_json
from .optional_scores import clip_scores, load_clip, spice_score
from .options import SAMPLES, EvaluationOptions, EvaluationRequest, ScoringOptions
from .report import Heading, write_report
from .split import (
    Evaluation,
    ScoringSettings,
    caption_split,
    caption_texts,
    measure_pointing,
    score_captions,
    score_hypotheses,
)

CAPTIONS_FILE = "captions.json"
References = Mapping[int | str, Sequence[str]]


def evaluate_checkpoints(checkpoints: Sequence[Checkpoint], request: EvaluationRequest) -> None:
    """Caption a split with one checkpoint or an ensemble, and score the captions.

    Prints the scores, and writes the captions, the scores and, if requested, a report. Raises
    InputError for user errors.
    """
    options, runtime, scoring = request.evaluation, request.runtime, request.scoring
    split = split_name(options.split)
    metrics = scoring.selected_metrics  # raises before any work if METEOR lacks Java
    if request.decoding.num_captions != 1:
        raise InputError(
            f"num_captions must be 1 for evaluation, got {request.decoding.num_captions}; "
            "omit --num-captions"
        )
    pick_device(runtime.device)  # raises InputError before images are decoded
    if scoring.spice:
        find_java_8()
    clip = load_clip(scoring.clip, runtime.device) if scoring.clip else None
    data, training_captions = load_split(options, checkpoints[0].config, split)
    examples = data.split(split)
    references = {example.id: example.captions for example in examples}
    baseline = _read_baseline(scoring, references)
    captioner = Captioner.from_checkpoints(
        checkpoints, runtime.device, runtime.precision, runtime.compile
    )
    tokenizer = scoring.chosen_tokenizer or captioner.vocabulary.tokenizer
    tokenizer.split("a")  # raises InputError before any work if its function is not available
    directory = options.output or evaluation_directory(checkpoints[0].path, split)
    make_directory(directory, "--output")
    if options.report:
        make_directory(options.report, "--report")
    settings = DecodeSettings(
        request.decoding, options.batch_size, options.workers, runtime.precision
    )
    images = _open_images(captioner, examples, options)
    hypotheses = _write_captions(directory, captioner, examples, images, settings)
    try:
        result = score_hypotheses(
            captioner.vocabulary,
            examples,
            hypotheses,
            ScoringSettings(metrics, training_captions, tokenizer),
        )
    except InputError as error:  # METEOR's Java program may fail
        raise InputError(f"{error}; the captions are in {directory / CAPTIONS_FILE}") from error
    shapes = demo.read_shapes(data.root, split)
    result = measure_pointing(result, captioner.model, captioner.vocabulary, shapes)
    title = f"{data.name}, {split} split, {len(examples)} images"
    print(f"{_paths(checkpoints)} on {title}")
    content = _print_scores(result, references, baseline, scoring)
    more = clip_scores(clip, examples, result.texts) if clip else {}
    more |= spice_score(examples, result.texts) if scoring.spice else {}
    if more:
        print("  ".join(f"{name} {value:.2f}" for name, value in more.items()))
    write_json(directory / SCORES_FILE, {**content, **more})
    print(f"captions and scores: {directory}")
    if options.report:
        heading = _heading(title, checkpoints, result, scoring, request.decoding)
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
    notes: list[str] = []
    captions, references, note = match(
        read_predictions(scoring.predictions),
        read_caption_file(scoring.references, notes),
        scoring.allow_missing,
    )
    baseline = _read_baseline(scoring, references)
    training_captions: list[str] | None = None
    if scoring.training_captions is not None:
        by_image = read_caption_file(scoring.training_captions)
        training_captions = [text for texts in by_image.values() for text in texts]
    if options.output:
        make_directory(options.output, "--output")
    settings = ScoringSettings(metrics, training_captions, scoring.chosen_tokenizer)
    result = score_captions(captions, references, settings)
    print(f"{scoring.predictions} against {scoring.references}, {len(captions)} images")
    for line in filter(None, [note, *(f"note: {each}" for each in notes)]):
        print(line)
    scores = _print_scores(result, references, baseline, scoring)
    if options.output:
        write_json(options.output / SCORES_FILE, scores)
        print(f"scores: {options.output}")


def _open_images(
    captioner: Captioner, examples: Sequence[Example], options: EvaluationOptions
) -> Source:
    """Return stored features for a single model with a frozen encoder, and images otherwise."""
    names = ("encoder", "encoder_weights", "fine_tune_encoder")
    config: Any = captioner.config  # None for an ensemble
    if config is None or EncoderOptions(*(config["encoder"].get(name) for name in names)).trains:
        return ImageSource([example.path for example in examples], captioner.transform)
    return open_features(captioner.model.encoder, captioner.transform, examples, options)


def _read_baseline(scoring: ScoringOptions, references: References) -> dict[int | str, str] | None:
    """Read the captions to compare with; return None without --compare."""
    if scoring.compare is None:
        return None
    return read_comparison_captions(scoring.compare, references, scoring.allow_missing)


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
    write_json(directory / CAPTIONS_FILE, rows)
    return hypotheses


def _print_scores(
    result: Evaluation,
    references: References,
    baseline: dict[int | str, str] | None,
    scoring: ScoringOptions,
) -> dict[str, Any]:
    """Print the scores and return the contents of scores.json."""
    print(result.describe())
    content: dict[str, Any] = result.numbers
    if scoring.bootstrap:
        found = intervals(result.scores, scoring.bootstrap)
        print(
            f"95 % confidence intervals from {scoring.bootstrap} bootstrap samples of the images:"
        )
        content["intervals"] = _print_intervals(found, "")
    if baseline is not None:
        samples = scoring.bootstrap or SAMPLES
        scores = result.scores
        baseline_scores = compute_scores(
            baseline, references, tuple(scores.statistics), scores.tokenizer
        )
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


def _heading(
    title: str,
    checkpoints: Sequence[Checkpoint],
    result: Evaluation,
    scoring: ScoringOptions,
    decoding: DecodingOptions,
) -> Heading:
    """Build the report's heading; an ensemble has no training curves."""
    facts = [
        _paths(checkpoints),
        f"decoding: {decoding.describe()}",
        *result.describe().splitlines()[1:],
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
