"""`captioner compare`: compare text vectors by training an image search with each."""

import argparse
from typing import Any

from ..options import add_options, from_named, option_names
from ..tasks.linking.regression_task import REGRESSION
from ..training.compare_options import CompareOptions
from ..training.config import defaults_of, option_groups

EXAMPLE = """captioner compare --data DIR --encoder mobilenet_v2 --encoder-weights FILE
captioner compare --data DIR --text-vectors word2vec-tf-idf lda --test-data DIR2 --queries FILE"""
NOTE = (
    "Trains --system regression once for each kind of text vectors, searches the images of the val "
    "and test splits, and prints a table of P@5 and MAP. Run the same command again to continue an "
    "interrupted comparison."
)
# Options of training that are the same for all runs, or that the comparison sets.
HIDDEN = {
    *("text_vectors", "image_vectors", "run", "resume", "start_from", "tensorboard", "logger")
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = f"{parser.prog} [option...]"
    add_options(parser, CompareOptions, "comparison")
    defaults = defaults_of(REGRESSION, "")
    for title, group in option_groups(REGRESSION).items():
        add_options(parser, group, title, REGRESSION.hidden | HIDDEN, defaults)
    parser.set_defaults(**dict.fromkeys(vars(parser.parse_args([])), None))


def run(arguments: argparse.Namespace) -> None:
    groups = option_groups(REGRESSION).values()
    names = {name for group in groups for name in option_names(group)} - HIDDEN
    given = {name: getattr(arguments, name, None) for name in names}
    training = {name: value for name, value in given.items() if value is not None}
    options = from_named(CompareOptions, _given(arguments))
    from ..training.compare import compare

    compare(options, training)


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the comparison options that were passed."""
    values = {name: getattr(arguments, name, None) for name in option_names(CompareOptions)}
    return {name: value for name, value in values.items() if value is not None}
