"""Caption a split and score the captions, or score those of a file: python evaluate.py --help."""

from collections.abc import Iterable, Sequence

from captioner.data.caption_files import match, read_caption_file, read_predictions
from captioner.errors import run_command
from captioner.evaluation.evaluate import (
    evaluate_checkpoint,
    make_directory,
    others_of,
    show_scores,
    write,
)
from captioner.evaluation.options import EvaluationOptions, ScoringOptions, parse
from captioner.evaluation.scoring import judge


def main(argv: Sequence[str] | None = None) -> None:
    """Print the scores and write them; raises InputError for users' mistakes."""
    options, scoring, decoding = parse(argv)
    if scoring.predictions is None:
        evaluate_checkpoint(options, scoring, decoding)
    else:
        evaluate_file(options, scoring)


def evaluate_file(options: EvaluationOptions, scoring: ScoringOptions) -> None:
    """Score captions that somebody made, from one file against another."""
    assert scoring.predictions is not None and scoring.references is not None
    wanted = scoring.wanted  # METEOR without Java fails here, before any work
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
    directory = options.output and make_directory(options.output)
    result = judge(captions, references, wanted, training)
    print(f"{scoring.predictions} against {scoring.references}, {len(captions)} images")
    if note:
        print(note)
    scores = show_scores(result, references, others, scoring)
    if directory:
        write(directory, {"scores.json": scores})
        print(f"scores: {directory}")


if __name__ == "__main__":
    run_command(main)
