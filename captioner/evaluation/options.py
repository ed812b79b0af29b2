"""Options of evaluation and scoring."""

from dataclasses import dataclass
from pathlib import Path

from ..checkpoints.runs import CHECKPOINTS
from ..data.readers import READERS
from ..metrics.captions import METRICS, chosen
from ..options import check_at_least, option
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
