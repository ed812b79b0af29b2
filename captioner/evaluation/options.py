"""Options of an evaluation: what to caption and how to score it.

This module imports no torch, so that --help is fast.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..checkpoints.runs import CHECKPOINTS
from ..data.readers import READERS
from ..decoding.options import DecodingOptions
from ..devices import RuntimeOptions
from ..errors import InputError
from ..metrics.captions import METRICS, select_metrics
from ..options import add_options, check_at_least, from_arguments, given_flags, option
from ..prefetch import WORKERS

SAMPLES = 1000  # bootstrap samples of a comparison or report if --bootstrap is not given


@dataclass(frozen=True)
class EvaluationOptions:
    """What to caption, with which checkpoints, and where to write the results."""

    checkpoint: tuple[Path, ...] = option(None, "run or checkpoint; several decode as an ensemble")
    split: str = option("val", "train, val (or dev) or test")
    data: Path | None = option(None, "data directory or file [the first checkpoint's]")
    format: str | None = option(None, "layout of the data [detected]", choices=tuple(READERS))
    output: Path | None = option(None, "output directory [evaluation-SPLIT in the run]")
    report: Path | None = option(
        None, "directory for report.html: scores, curves and images with maps in one page"
    )
    batch_size: int = option(64, "images per batch")
    workers: int = option(WORKERS, "threads that load images ahead")
    cache: Path = option(CHECKPOINTS / ".cache", "cache directory of the demo images")

    def __post_init__(self) -> None:
        check_at_least(self, 1, "batch_size")
        check_at_least(self, 0, "workers")


@dataclass(frozen=True)
class ScoringOptions:
    """Captions to score other than a checkpoint's, metrics, and confidence intervals."""

    predictions: Path | None = option(
        None, "file of captions to score instead of a checkpoint's: .json (COCO), .jsonl or .csv"
    )
    references: Path | None = option(None, "file of references: .json (COCO), .jsonl or .csv")
    allow_missing: bool = option(False, "score only images that have both a caption and references")
    training_captions: Path | None = option(
        None, "file of the training captions, to count novel captions"
    )
    metrics: str | None = option(None, f"comma-separated: {','.join(METRICS)} [all]")
    bootstrap: int = option(0, "bootstrap samples for 95 percent intervals")
    compare: Path | None = option(None, "file of other captions of the same images to compare with")

    def __post_init__(self) -> None:
        check_at_least(self, 0, "bootstrap")

    @property
    def selected_metrics(self) -> tuple[str, ...] | None:
        """The metrics asked for, None for all available; raises InputError as `select_metrics`."""
        if self.metrics is None:
            return None
        return select_metrics([name.strip() for name in self.metrics.split(",")])


def parse(
    argv: Sequence[str] | None,
) -> tuple[EvaluationOptions, RuntimeOptions, ScoringOptions, DecodingOptions]:
    """The four groups of flags; raises InputError for flags that would do nothing."""
    parser = argparse.ArgumentParser(
        description="Caption a split and score the captions, or score captions from a file.",
        epilog="Without --output the files go to evaluation-SPLIT in the directory of the run; "
        "several checkpoints need --output, and captions from a file are scored without files.",
    )
    add_options(parser, EvaluationOptions, "evaluation")
    add_options(parser, RuntimeOptions, "runtime")
    add_options(parser, ScoringOptions, "scoring")
    add_options(parser, DecodingOptions, "decoding")
    arguments = parser.parse_args(argv)
    if (arguments.checkpoint is None) == (arguments.predictions is None):
        parser.error(
            "either --checkpoint is required, for example checkpoints/demo-attention, "
            "or --predictions"
        )
    given = given_flags(parser, argv)
    scoring = from_arguments(ScoringOptions, arguments)
    _refuse_idle_flags(given, scoring)
    decoding = from_arguments(DecodingOptions, arguments)
    runtime = from_arguments(RuntimeOptions, arguments)
    return from_arguments(EvaluationOptions, arguments), runtime, scoring, decoding


def _refuse_idle_flags(given: set[str], scoring: ScoringOptions) -> None:
    of_files = {"references", "allow_missing", "training_captions"}
    idle = given & of_files
    if scoring.predictions is not None:
        if scoring.references is None:
            raise InputError("--predictions needs --references, the file to score them against")
        of_both = {"predictions", "metrics", "bootstrap", "compare", "output"}
        idle = given - of_files - of_both
    if idle:
        other = "--predictions" if scoring.predictions is None else "--checkpoint"
        name = sorted(idle)[0].replace("_", "-")
        raise InputError(f"--{name} needs {other}")
