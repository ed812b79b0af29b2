"""Caption a split and score the captions, or score those of a file: python evaluate.py --help."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from captioner import bootstrap, checkpoint, demo, metrics
from captioner.batches import Pictures
from captioner.caption_files import match, read_caption_file, read_others, read_predictions
from captioner.captioner import Captioner
from captioner.data import CaptionData, Example, split_name
from captioner.decoding_options import DecodingOptions
from captioner.errors import InputError, run_command
from captioner.evaluation import Evaluation, evaluate, judge
from captioner.evaluation_options import SAMPLES, EvaluationOptions, ScoringOptions, parse
from captioner.features import PictureFiles
from captioner.options import to_dict
from captioner.report import Heading, write_report
from captioner.runs import (
    data_source,
    evaluation_folder,
    fingerprint,
    load_data,
    read_log,
    run_of,
    write_whole,
)

References = Mapping[int | str, Sequence[str]]


def main(argv: Sequence[str] | None = None) -> None:
    """Print the scores and write them; raises InputError for users' mistakes."""
    options, scoring, decoding = parse(argv)
    wanted = scoring.wanted  # METEOR without Java fails here, before any work
    if scoring.predictions is None:
        evaluate_checkpoint(options, scoring, decoding, wanted)
    else:
        evaluate_file(options, scoring, wanted)


def evaluate_checkpoint(
    options: EvaluationOptions,
    scoring: ScoringOptions,
    decoding: DecodingOptions,
    wanted: Sequence[str] | None,
) -> None:
    """Caption a split by one checkpoint or several together, and score that."""
    split = split_name(options.split)
    if decoding.num_captions != 1:
        raise InputError("evaluation scores one caption a picture; leave --num-captions at 1")
    if len(options.checkpoint) > 1 and options.output is None:
        raise InputError("several checkpoints share no folder; name one for the files by --output")
    read = [checkpoint.load(path) for path in options.checkpoint]
    data, training = read_data(options, read[0].config)
    examples = data.split(split)
    references = {example.id: example.captions for example in examples}
    others = others_of(scoring, references)
    captioner = Captioner.from_checkpoints(read, options.device, options.precision, options.compile)
    folder = make_folder(options.output or evaluation_folder(read[0].path, split))
    if options.report:
        make_folder(options.report)
    files = PictureFiles([example.path for example in examples], captioner.transform)
    result = evaluate(
        captioner.model,
        captioner.vocabulary,
        examples,
        Pictures(files.load, are_features=False),
        decoding,
        batch_size=options.batch_size,
        workers=options.workers,
        precision=options.precision,
        shapes=demo.read_shapes(data.root, split),
        wanted=wanted,
        training=training,
    )
    models = " + ".join(str(each.path) for each in read)
    print(f"{models} on {data.name}, {split} split, {len(examples)} pictures")
    scores = report(result, references, others, scoring)
    captions = [{"image_id": key, "caption": text} for key, text in result.texts.items()]
    write(folder, {"captions.json": captions, "scores.json": scores})
    print(f"captions and scores: {folder}")
    if options.report:
        heading = Heading(
            f"{data.name}, {split} split, {len(examples)} pictures",
            [
                models,
                f"decoding: {decoded_by(decoding)}",
                *result.describe(references.values()).splitlines()[1:],
            ],
            bootstrap.intervals(result.scores, scoring.bootstrap or SAMPLES),
            read_log(run_of(read[0].path) / "log.jsonl") if len(read) == 1 else (),
        )
        write_page(options.report / "report.html", heading, result, examples, captioner)


def write_page(
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


def decoded_by(decoding: DecodingOptions) -> str:
    """The options of decoding that are set."""
    given = {name: value for name, value in to_dict(decoding).items() if value}
    return ", ".join(f"{name} {value}" for name, value in given.items())


def read_data(
    options: EvaluationOptions, config: dict[str, Any]
) -> tuple[CaptionData, list[str] | None]:
    """The data, and the captions that the model learned from if these are in them."""
    source = data_source(config, options.data, options.format)
    data = load_data(*source, options.cache, config["data"].get("on_error", "stop"))
    if fingerprint(data) == config["data"]["fingerprint"]:
        return data, [text for e in data.examples if e.split == "train" for text in e.captions]
    if options.data is None:
        print("note: pictures, splits or captions have changed since the model was trained")
    return data, None


def evaluate_file(
    options: EvaluationOptions, scoring: ScoringOptions, wanted: Sequence[str] | None
) -> None:
    """Score captions that somebody made, from one file against another."""
    assert scoring.predictions is not None and scoring.references is not None
    captions, references, note = match(
        read_predictions(scoring.predictions),
        read_caption_file(scoring.references),
        scoring.allow_missing,
    )
    others = others_of(scoring, references)
    training: Iterable[str] | None = None
    if scoring.training_captions is not None:
        several = read_caption_file(scoring.training_captions).values()
        training = (text for each in several for text in each)
    folder = options.output and make_folder(options.output)
    result = judge(captions, references, wanted, training)
    print(f"{scoring.predictions} against {scoring.references}, {len(captions)} pictures")
    if note:
        print(note)
    scores = report(result, references, others, scoring)
    if folder:
        write(folder, {"scores.json": scores})
        print(f"scores: {folder}")


def others_of(scoring: ScoringOptions, references: References) -> dict[int | str, str] | None:
    """The captions to compare with, of the same pictures, where some are named."""
    if scoring.compare is None:
        return None
    return read_others(scoring.compare, references, scoring.allow_missing)


def report(
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
        print(f"95 % intervals by {scoring.bootstrap} samples of the pictures:")
        print("\n".join(f"  {name} {each:.2f}" for name, each in found.items()))
        content["intervals"] = {name: asdict(each) for name, each in found.items()}
    if others is not None:
        samples = scoring.bootstrap or SAMPLES
        theirs = metrics.measure(others, references, tuple(result.scores.tallies))
        found = bootstrap.differences(result.scores, theirs, samples)
        print(f"more than {scoring.compare}, 95 % intervals by {samples} paired samples:")
        print("\n".join(f"  {name} {each:+.2f}" for name, each in found.items()))
        content["differences"] = {name: asdict(each) for name, each in found.items()}
    return {**content, "pictures": result.rows}


def make_folder(folder: Path) -> Path:
    """Before the work, not after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {folder} cannot be made a folder: {error.strerror}") from error
    return folder


def write(folder: Path, files: dict[str, Any]) -> None:
    for name, content in files.items():
        write_whole(folder / name, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    run_command(main)
