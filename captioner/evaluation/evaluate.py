"""Evaluating as people ask for it: what is read, printed and written, and the page.

evaluate.py and `captioner report` call it; how a split is captioned and scored is evaluation.py's.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..atomic_io import atomic_write
from ..captioner import Captioner
from ..checkpoints import checkpoint, hub
from ..checkpoints.checkpoint import Checkpoint
from ..checkpoints.runs import evaluation_directory, read_log, run_of
from ..data.batches import Source
from ..data.caption_files import match, read_caption_file, read_others, read_predictions
from ..data.dataset import CaptionData, Example, fingerprint, some, split_name
from ..data.demo import scenes as demo
from ..data.image_check import drop_corrupt_images
from ..data.readers import load_data
from ..data.storage import tar as shards
from ..decoding.hypothesis import Hypothesis
from ..decoding.options import DecodingOptions
from ..devices import RuntimeOptions
from ..errors import InputError
from ..metrics import bootstrap
from ..metrics import captions as metrics
from ..vision.feature_cache import ImageSource
from .options import SAMPLES, EvaluationOptions, ScoringOptions
from .report import Heading, write_report
from .scoring import Evaluation, assess, caption_all, judge, texts_of

CAPTIONS, SCORES = "captions.json", "scores.json"
References = Mapping[int | str, Sequence[str]]


def evaluate_checkpoint(
    options: EvaluationOptions,
    runtime: RuntimeOptions,
    scoring: ScoringOptions,
    decoding: DecodingOptions,
) -> None:
    """Caption a split by one checkpoint or several together, and score that."""
    split = split_name(options.split)
    wanted = scoring.wanted  # METEOR without Java fails here, before any work
    if decoding.num_captions != 1:
        raise InputError("evaluation scores one caption an image; leave --num-captions at 1")
    read = _read_checkpoints(options)
    data, training = _read_data(options, read[0].config, split)
    examples = data.split(split)
    references = {example.id: example.captions for example in examples}
    others = others_of(scoring, references)
    captioner = Captioner.from_checkpoints(
        read, runtime.device, runtime.precision, runtime.compile
    )
    directory = make_directory(options.output or evaluation_directory(read[0].path, split))
    if options.report:
        make_directory(options.report)
    hypotheses = _write_captions(directory, captioner, examples, options, decoding)
    try:
        result = assess(
            captioner.model,
            hypotheses,
            captioner.vocabulary,
            examples,
            shapes=demo.read_shapes(data.root, split),
            wanted=wanted,
            training=training,
        )
    except InputError as error:  # METEOR's Java may die
        raise InputError(f"{error}; the captions are in {directory / CAPTIONS}") from error
    title = f"{data.name}, {split} split, {len(examples)} images"
    print(f"{_names(read)} on {title}")
    scores = show_scores(result, references, others, scoring)
    write(directory, {SCORES: scores})
    print(f"captions and scores: {directory}")
    if options.report:
        heading = _heading(title, read, result, references, scoring, decoding)
        _write_page(options.report / "report.html", heading, result, examples, captioner)


def evaluate_file(options: EvaluationOptions, scoring: ScoringOptions) -> None:
    """Score the captions of one file against the references of another."""
    assert scoring.predictions is not None
    assert scoring.references is not None
    wanted = scoring.wanted  # raises InputError if METEOR is asked for without Java
    captions, references, note = match(
        read_predictions(scoring.predictions),
        read_caption_file(scoring.references),
        scoring.allow_missing,
    )
    baseline = others_of(scoring, references)
    training: Iterable[str] | None = None
    if scoring.training_captions is not None:
        captions_by_image = read_caption_file(scoring.training_captions).values()
        training = (text for texts in captions_by_image for text in texts)
    directory = options.output and make_directory(options.output)
    result = judge(captions, references, wanted, training)
    print(f"{scoring.predictions} against {scoring.references}, {len(captions)} images")
    if note:
        print(note)
    scores = show_scores(result, references, baseline, scoring)
    if directory:
        write(directory, {"scores.json": scores})
        print(f"scores: {directory}")


def _read_checkpoints(options: EvaluationOptions) -> list[Checkpoint]:
    """Those asked for; raises InputError where the files of what they say would have no directory."""
    if len(options.checkpoint) > 1 and options.output is None:
        raise InputError(
            "several checkpoints share no directory; name one for the files by --output"
        )
    places = [hub.local(path) for path in options.checkpoint]
    if places != list(options.checkpoint) and options.output is None:
        raise InputError(
            "a model of the hub has no directory here; name one for the files by --output"
        )
    return [checkpoint.load(place) for place in places]


def _write_captions(
    directory: Path,
    captioner: Captioner,
    examples: Sequence[Example],
    options: EvaluationOptions,
    decoding: DecodingOptions,
) -> dict[int | str, Hypothesis]:
    """Caption the examples, and write that before anything can go wrong in scoring."""
    files = ImageSource([example.path for example in examples], captioner.transform)
    hypotheses = caption_all(
        captioner.model,
        examples,
        Source(files.load, are_features=False),
        decoding,
        batch_size=options.batch_size,
        workers=options.workers,
        precision=captioner.precision,
    )
    texts = texts_of(hypotheses, captioner.vocabulary)
    (directory / SCORES).unlink(missing_ok=True)  # of other captions
    write(directory, {CAPTIONS: [{"image_id": id, "caption": text} for id, text in texts.items()]})
    return hypotheses


def show_scores(
    result: Evaluation,
    references: References,
    others: dict[int | str, str] | None,
    scoring: ScoringOptions,
) -> dict[str, Any]:
    """Print what the captions got; returns what scores.json holds."""
    print(result.describe(references.values()))
    content: dict[str, Any] = result.numbers
    if scoring.bootstrap:
        found = bootstrap.intervals(result.scores, scoring.bootstrap)
        print(f"95 % intervals by {scoring.bootstrap} samples of the images:")
        print("\n".join(f"  {name} {each:.2f}" for name, each in found.items()))
        content["intervals"] = {name: asdict(each) for name, each in found.items()}
    if others is not None:
        samples = scoring.bootstrap or SAMPLES
        theirs = metrics.measure(others, references, tuple(result.scores.tallies))
        found = bootstrap.differences(result.scores, theirs, samples)
        print(f"more than {scoring.compare}, 95 % intervals by {samples} paired samples:")
        print("\n".join(f"  {name} {each:+.2f}" for name, each in found.items()))
        content["differences"] = {name: asdict(each) for name, each in found.items()}
    return {**content, "images": result.rows}


def others_of(scoring: ScoringOptions, references: References) -> dict[int | str, str] | None:
    """The captions to compare with, of the same images, where some are named."""
    if scoring.compare is None:
        return None
    return read_others(scoring.compare, references, scoring.allow_missing)


def make_directory(directory: Path) -> Path:
    """Before the work, not after it."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"--output {directory} cannot be made a directory: {error.strerror}"
        ) from error
    return directory


def write(directory: Path, files: dict[str, Any]) -> None:
    """Write values by the names of their files, as JSON."""
    for name, content in files.items():
        atomic_write(directory / name, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _read_data(
    options: EvaluationOptions, config: dict[str, Any], split: str
) -> tuple[CaptionData, list[str] | None]:
    """The data, and the captions that the model learned from if these are in them.

    Images of the split that cannot be decoded are treated as the training treated such.
    """
    source = data_source(config, options.data, options.format)
    on_error = config["data"].get("on_error", "stop")
    whole = load_data(*source, options.cache, on_error)
    data, _ = drop_corrupt_images(whole, (split,), on_error, None, options.workers)
    for line in some(data.problems[len(whole.problems) :]):
        print(f"skipped: {line}")
    if fingerprint(whole) == config["data"]["fingerprint"]:
        without = config["data"].get("left_out", ())
        learned = [e for e in whole.examples if e.split == "train" and e.id not in without]
        return data, [text for example in learned for text in example.captions]
    if options.data is None:
        print("note: images, splits or captions have changed since the model was trained")
    return data, None


def data_source(
    config: dict[str, Any], data: Path | None, format: str | None
) -> tuple[Path | None, str | None]:
    """Where the data is: as asked, or where the checkpoint was trained (None: the demo)."""
    if data is not None:
        return data, format
    if format is not None:
        raise InputError("--format needs --data")
    trained_on = config["data"]
    if trained_on["path"] is None:
        return None, None
    place = shards.place(trained_on["path"])
    if not place.exists() and not shards.is_pattern(place):
        raise InputError(f"{place}, where the model was trained, is gone; use --data")
    return place, trained_on["format"]


def _heading(
    title: str,
    read: Sequence[Checkpoint],
    result: Evaluation,
    references: References,
    scoring: ScoringOptions,
    decoding: DecodingOptions,
) -> Heading:
    """What stands above the images of the page; of several checkpoints no curves."""
    return Heading(
        title,
        [
            _names(read),
            f"decoding: {decoding.describe()}",
            *result.describe(references.values()).splitlines()[1:],
        ],
        bootstrap.intervals(result.scores, scoring.bootstrap or SAMPLES),
        read_log(run_of(read[0].path) / "log.jsonl") if len(read) == 1 else (),
    )


def _names(read: Sequence[Checkpoint]) -> str:
    return " + ".join(str(each.path) for each in read)


def _write_page(
    path: Path,
    heading: Heading,
    result: Evaluation,
    examples: Sequence[Example],
    captioner: Captioner,
) -> None:
    """The report, and where it is."""
    offset = captioner.model.encoder.offset
    write_report(path, heading, result, examples, captioner.vocabulary, offset)
    print(f"report: {path}")
