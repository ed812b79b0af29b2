"""Evaluation options: what to caption and how to score the captions.

This module does not import torch, so that --help is fast.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..checkpoints.runs import CHECKPOINTS
from ..data.readers import READERS
from ..decoding.options import DecodingOptions
from ..devices import RuntimeOptions
from ..errors import InputError
from ..metrics.captions import METRICS, select_metrics
from ..options import check_at_least, option
from ..prefetch import WORKERS
from ..retrieval.reranking import RerankOptions
from ..text.tokenizer import Tokenizer, get_tokenizer

SAMPLES = 1000  # bootstrap samples for a comparison or report if --bootstrap is not given


@dataclass(frozen=True)
class EvaluationOptions:
    """The checkpoints to evaluate, the data, and where to write the results."""

    checkpoint: tuple[Path, ...] = option(None, "run or checkpoint; several form an ensemble")
    split: str = option("val", "split: train, val (or dev) or test")
    data: Path | None = option(None, "data directory or file [the first checkpoint's]")
    format: str | None = option(None, "layout of the data [detected]", choices=tuple(READERS))
    output: Path | None = option(None, "output directory [evaluation-SPLIT in the run]")
    report: Path | None = option(
        None, "directory for report.html, a page with scores, curves, images and attention maps"
    )
    queries: Path | None = option(
        None, "text file of search queries to score, one per line [standard queries]"
    )
    concepts: Path | None = option(
        None, "directory of concept annotations in MIRFlickr's layout, scored by MAP"
    )
    failures: Path | None = option(
        None, "output HTML page of the irrelevant images among the first five of each query"
    )
    masks: Path | None = option(
        None, "spatial models: directory in Pascal VOC's layout, whose masks are scored"
    )
    threshold: float = option(0.8, "spatial models: map value below which a pixel is background")
    refine: bool = option(True, "spatial models: let masks follow the edges of the image")
    ranked_images: int | None = option(
        None,
        "m-CNN: number of evenly spaced images; each is scored with the captions of all of them; "
        "0: all [200]",
    )
    batch_size: int = option(64, "number of images per batch")
    workers: int = option(WORKERS, "number of threads that prefetch images")
    cache: Path = option(CHECKPOINTS / ".cache", "cache directory for features and demo images")

    def __post_init__(self) -> None:
        check_at_least(self, 1, "batch_size")
        check_at_least(self, 0, "workers", "ranked_images")
        if not 0 <= self.threshold <= 1:
            raise InputError(f"threshold must be from 0 to 1, got {self.threshold}")


@dataclass(frozen=True)
class ScoringOptions:
    """Caption files to score, metrics and confidence intervals."""

    predictions: Path | None = option(
        None, "caption file to score instead of a checkpoint: .json, .jsonl, .csv or .tsv"
    )
    references: Path | None = option(None, "reference file: .json, .jsonl, .csv or .tsv")
    allow_missing: bool = option(False, "score only images that have both a caption and references")
    training_captions: Path | None = option(
        None, "file of training captions, used to compute novelty"
    )
    metrics: str | None = option(
        None, f"comma-separated metrics: {','.join(METRICS)} [all; meteor needs Java]"
    )
    tokenizer: str | Callable[[str], Sequence[str]] | None = option(
        None, "tokenizer: words, characters or module:function [the model's, or words]"
    )
    clip: Path | None = option(None, "saved CLIP or SigLIP model: also compute CLIPScore")
    spice: bool = option(False, "also compute SPICE; needs Java 8")
    bootstrap: int = option(0, "number of bootstrap samples for 95 %% intervals")
    compare: Path | None = option(None, "file of captions of the same images, to compare with")

    def __post_init__(self) -> None:
        check_at_least(self, 0, "bootstrap")

    @property
    def chosen_tokenizer(self) -> Tokenizer | None:
        """The requested tokenizer; None for the default. Raises the errors of `get_tokenizer`."""
        return None if self.tokenizer is None else get_tokenizer(self.tokenizer)

    @property
    def selected_metrics(self) -> tuple[str, ...] | None:
        """The requested metrics; None for all available ones.

        Raises the errors of `select_metrics`.
        """
        if self.metrics is None:
            return None
        return select_metrics([name.strip() for name in self.metrics.split(",")])


@dataclass(frozen=True)
class EvaluationRequest:
    """All options for evaluating checkpoints."""

    evaluation: EvaluationOptions
    runtime: RuntimeOptions
    scoring: ScoringOptions
    decoding: DecodingOptions
    reranking: RerankOptions = RerankOptions()
