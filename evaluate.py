"""Caption a split and score the captions, or score those of a file: python evaluate.py --help."""

from collections.abc import Sequence

from captioner.errors import run_command
from captioner.evaluation.evaluate import evaluate_checkpoint, evaluate_file
from captioner.evaluation.options import parse


def main(argv: Sequence[str] | None = None) -> None:
    """Print the scores and write them; raises InputError for users' mistakes."""
    options, runtime, scoring, decoding = parse(argv)
    if scoring.predictions is None:
        evaluate_checkpoint(options, runtime, scoring, decoding)
    else:
        evaluate_file(options, scoring)


if __name__ == "__main__":
    run_command(main)
