"""`captioner evaluate` and evaluate.py: score a checkpoint or a caption file."""

import argparse
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from ..decoding.options import DecodingOptions
from ..devices import RuntimeOptions
from ..errors import InputError
from ..evaluation.options import EvaluationOptions, ScoringOptions
from ..option_files import read_option_file
from ..options import add_options
from . import add_config

T = TypeVar("T")
EXAMPLE = """captioner evaluate --checkpoint checkpoints/RUN --split test
captioner evaluate --predictions captions.json --references references.json"""
NOTE = (
    "Without --output, a checkpoint's results are written to evaluation-SPLIT in its run, "
    "and the scores of a file are only printed. Several checkpoints require --output."
)
GROUPS: dict[str, type] = {
    "evaluation": EvaluationOptions,
    "runtime": RuntimeOptions,
    "scoring": ScoringOptions,
    "decoding": DecodingOptions,
}
FILE_FLAGS = {"references", "allow_missing", "training_captions"}  # require --predictions
SHARED_FLAGS = {"predictions", "metrics", "bootstrap", "compare", "output"}  # valid in both modes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of all groups; flags that are not given are None in the parsed arguments."""
    parser.usage = f"{parser.prog} [option...]"
    for title, group in GROUPS.items():
        add_options(parser, group, title)
    add_config(parser, "TOML file of options; flags override them")
    parser.set_defaults(wrong_usage=parser.error)


def run(arguments: argparse.Namespace) -> None:
    """Run the evaluation; raise InputError for user errors."""
    options, runtime, scoring, decoding = read_options(arguments)
    from ..evaluation.evaluate import evaluate_checkpoint, evaluate_file

    if scoring.predictions is not None:
        evaluate_file(options, scoring)
    else:
        evaluate_checkpoint(options, runtime, scoring, decoding)


def read_options(
    arguments: argparse.Namespace,
) -> tuple[EvaluationOptions, RuntimeOptions, ScoringOptions, DecodingOptions]:
    """Build the options from the parsed flags; raise InputError for flags that have no effect."""
    given = _given(arguments)
    if ("checkpoint" in given) == ("predictions" in given):
        arguments.wrong_usage(
            "pass either --checkpoint, for example checkpoints/demo-attention, or --predictions"
        )
    options = (
        _build(EvaluationOptions, given),
        _build(RuntimeOptions, given),
        _build(ScoringOptions, given),
        _build(DecodingOptions, given),
    )
    check_combination(given, options[2])
    return options


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the options of --config, overridden by those on the command line."""
    values = {} if arguments.config is None else read_option_file(arguments.config, GROUPS)
    names = {field.name for group in GROUPS.values() for field in fields(group)}
    flags = {name: getattr(arguments, name, None) for name in names}
    return values | {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in flags.items()
        if value is not None
    }


def _build(group: type[T], values: Mapping[str, Any]) -> T:
    names = [field.name for field in fields(group)]  # type: ignore[arg-type]
    return group(**{name: values[name] for name in names if name in values})


def check_combination(given: Collection[str], scoring: ScoringOptions) -> None:
    """Raise InputError if a given flag has no effect in combination with the others."""
    if scoring.predictions is None:
        idle, needed = FILE_FLAGS & set(given), "--predictions"
    else:
        if scoring.references is None:
            raise InputError("--predictions needs --references, the file to score against")
        idle, needed = set(given) - FILE_FLAGS - SHARED_FLAGS, "--checkpoint"
    if idle:
        raise InputError(f"--{min(idle).replace('_', '-')} needs {needed}")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line of evaluate.py."""
    parser = argparse.ArgumentParser(
        description="Caption a split and score the captions, or score captions from a file.",
        epilog=NOTE,
    )
    add_arguments(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run evaluate.py; raise InputError for user errors."""
    run(parse(argv))
