"""The flags of evaluate.py, and what does not go together."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..checkpoints.runs import CHECKPOINTS
from ..data.readers import READERS
from ..decoding.options import DecodingOptions
from ..devices import PRECISIONS
from ..errors import InputError
from ..metrics.captions import METRICS, chosen
from ..options import add_options, check_at_least, from_arguments, given_flags, option
from ..prefetch import WORKERS

SAMPLES = 1000  # of a comparison, unless --bootstrap says otherwise


@dataclass(frozen=True)
class EvaluationOptions:
    """What to caption, with which model, or whose captions to score; where the answers go."""

    checkpoint: tuple[Path, ...] = option(None, "run or checkpoint; several caption together")
    split: str = option("val", "train, val (or dev) or test")
    data: Path | None = option(None, "data directory or file [the first checkpoint's]")
    format: str | None = option(None, "force the layout of the data", choices=tuple(READERS))
    output: Path | None = option(None, "directory of the files [evaluation-SPLIT in the run]")
    report: Path | None = option(
        None, "directory for report.html: scores, curves, images with maps, in one page"
    )
    batch_size: int = option(64, "images captioned at once")
    workers: int = option(WORKERS, "threads that load ahead")
    cache: Path = option(CHECKPOINTS / ".cache", "directory of the demo images")
    device: str | None = option(None, "cpu, cuda or cuda:N [cuda where there is one]")
    precision: str = option("float32", "auto: bfloat16 where it is faster", choices=PRECISIONS)
    compile: bool = option(False, "fuse the steps of decoding with torch.compile")

    def __post_init__(self) -> None:
        check_at_least(self, 1, "batch_size")
        check_at_least(self, 0, "workers")


@dataclass(frozen=True)
class ScoringOptions:
    """Whose captions to score if not a checkpoint's, by what, and how sure that is."""

    predictions: Path | None = option(
        None, "file of captions to score in place of a checkpoint's: .json (COCO), .jsonl or .csv"
    )
    references: Path | None = option(None, "file of their references: .json (COCO), .jsonl or .csv")
    allow_missing: bool = option(False, "score what has both caption and references")
    training_captions: Path | None = option(
        None, "such a file of the captions learned from, to tell how many are novel"
    )
    metrics: str | None = option(None, f"some of {','.join(METRICS)} [all]")
    bootstrap: int = option(0, "samples for 95 percent intervals")
    compare: Path | None = option(None, "other captions of the same images: what is the gain?")

    def __post_init__(self) -> None:
        check_at_least(self, 0, "bootstrap")

    @property
    def wanted(self) -> tuple[str, ...] | None:
        """The metrics asked for, None for all that can be had."""
        if self.metrics is None:
            return None
        return chosen([name.strip() for name in self.metrics.split(",")])


def parse(
    argv: Sequence[str] | None,
) -> tuple[EvaluationOptions, ScoringOptions, DecodingOptions]:
    """The three groups of flags; raises InputError for flags that would do nothing."""
    parser = argparse.ArgumentParser(
        description="Caption a split and score the captions, or score captions from a file.",
        epilog="Without --output the files go to evaluation-SPLIT in the directory of the run; "
        "several checkpoints need --output, and captions from a file are scored without files.",
    )
    add_options(parser, EvaluationOptions, "evaluation")
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
    return from_arguments(EvaluationOptions, arguments), scoring, decoding


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
