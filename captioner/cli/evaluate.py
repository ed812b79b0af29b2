"""Caption a split and score the captions, or score captions from files.

evaluate.py calls this module.
"""

import argparse
from collections.abc import Collection, Sequence

from ..decoding.options import DecodingOptions
from ..devices import RuntimeOptions
from ..errors import InputError
from ..evaluation.evaluate import evaluate_checkpoint, evaluate_file
from ..evaluation.options import EvaluationOptions, ScoringOptions
from ..options import add_options, from_arguments, given_flags

EXAMPLE = """python evaluate.py --checkpoint checkpoints/RUN --split test
python evaluate.py --predictions captions.json --references references.json"""
GROUPS: dict[str, type] = {
    "evaluation": EvaluationOptions,
    "runtime": RuntimeOptions,
    "scoring": ScoringOptions,
    "decoding": DecodingOptions,
}
FILE_FLAGS = {"references", "allow_missing", "training_captions"}  # need --predictions
SHARED_FLAGS = {"predictions", "metrics", "bootstrap", "compare", "output"}  # need neither


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for title, group in GROUPS.items():
        add_options(parser, group, title)


def main(argv: Sequence[str] | None = None) -> None:
    """Run evaluate.py; raises InputError for a user's mistake."""
    run(parse(argv))


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The parsed flags; raises InputError for flags that have no effect."""
    parser = argparse.ArgumentParser(
        description="Caption a split and score the captions, or score captions from a file.",
        epilog="Without --output, files are written to evaluation-SPLIT in the run's directory; "
        "several checkpoints need --output, and nothing is written for captions from a file.",
    )
    add_arguments(parser)
    arguments = parser.parse_args(argv)
    if (arguments.checkpoint is None) == (arguments.predictions is None):
        parser.error(
            "either --checkpoint is required, for example checkpoints/demo-attention, "
            "or --predictions"
        )
    check_combination(given_flags(parser, argv), from_arguments(ScoringOptions, arguments))
    return arguments


def check_combination(given: Collection[str], scoring: ScoringOptions) -> None:
    """Raise InputError if a given flag has no effect together with the others."""
    if scoring.predictions is None:
        idle, needed = FILE_FLAGS & set(given), "--predictions"
    else:
        if scoring.references is None:
            raise InputError("--predictions needs --references, the file to score against")
        idle, needed = set(given) - FILE_FLAGS - SHARED_FLAGS, "--checkpoint"
    if idle:
        raise InputError(f"--{min(idle).replace('_', '-')} needs {needed}")


def run(arguments: argparse.Namespace) -> None:
    options = from_arguments(EvaluationOptions, arguments)
    scoring = from_arguments(ScoringOptions, arguments)
    if scoring.predictions is not None:
        evaluate_file(options, scoring)
        return
    runtime = from_arguments(RuntimeOptions, arguments)
    decoding = from_arguments(DecodingOptions, arguments)
    evaluate_checkpoint(options, runtime, scoring, decoding)
