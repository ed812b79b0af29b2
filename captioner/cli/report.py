"""`captioner report`: evaluate a captioning model and write an HTML report."""

import argparse
from dataclasses import replace

from ..checkpoints import checkpoint, hub
from ..checkpoints.runs import evaluation_directory
from ..data.dataset import split_name
from ..decoding.options import DecodingOptions
from ..devices import RuntimeOptions
from ..evaluation.options import EvaluationOptions, EvaluationRequest, ScoringOptions
from ..options import add_options, from_arguments
from . import add_checkpoints

EXAMPLE = """captioner report checkpoints/RUN
captioner report checkpoints/RUN --split test --beam-size 5 --output DIR"""
# Options without a flag, because they have no effect here or are rarely changed.
OMITTED = {"checkpoint", "report", "workers", "cache", "predictions", "references"}
OMITTED |= {"allow_missing", "training_captions", "compare", "num_captions"}
OMITTED |= {"queries", "concepts", "failures", "masks", "threshold"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = f"{parser.prog} CHECKPOINT... [option...]"
    add_checkpoints(parser)
    add_options(parser, EvaluationOptions, "evaluation", without=OMITTED)
    add_options(parser, ScoringOptions, "scoring", without=OMITTED)
    add_options(parser, DecodingOptions, "decoding", without=OMITTED)
    add_options(parser, RuntimeOptions, "runtime")


def run(arguments: argparse.Namespace) -> None:
    from ..evaluation.evaluate import evaluate_checkpoints
    from ..evaluation.inputs import load_checkpoints

    options = from_arguments(EvaluationOptions, arguments)
    first, split = checkpoint.find(hub.local(options.checkpoint[0])), split_name(options.split)
    request = EvaluationRequest(
        replace(options, report=options.output or evaluation_directory(first, split)),
        from_arguments(RuntimeOptions, arguments),
        from_arguments(ScoringOptions, arguments),
        from_arguments(DecodingOptions, arguments),
    )
    evaluate_checkpoints(load_checkpoints(options), request)
