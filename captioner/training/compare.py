"""Train a regression on each kind of text vectors, and compare the models on search queries."""

import importlib.util
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoints.runs import run_directory
from ..data.dataset import CaptionData, Example
from ..data.inspection import drop_corrupt_images
from ..data.readers import load_data
from ..evaluation.inputs import make_directory, open_features, write_json
from ..evaluation.options import EvaluationOptions
from ..linker import Linker
from ..retrieval.query_sets import read_queries
from ..tasks.linking.queries import QueryScores, score_queries
from ..tasks.linking.regression_task import REGRESSION, plain_name
from ..tasks.linking.task import idle_sizes
from ..text.options import FITTED, WITHOUT_EXTRA
from .compare_options import CompareOptions
from .config import TrainConfig
from .run import run_training

COLUMNS = {  # of the table: titles of numbers of `QueryScores`
    "P@5": "P@5",
    "P@5_simple": "one word",
    "P@5_complex": "several words",
    "MAP": "MAP",
    "P@5_negated": "A - B",
    "P@5_negated_alone": "A alone",
}


@dataclass(frozen=True)
class ComparedModel:
    """The scores of one kind of text vectors on one data set.

    images: number of images searched. seconds: wall-clock time of the whole training run, from
    reading the data to the last evaluation; None if the run already existed.
    """

    text_vectors: str
    trained_on: str
    tested_on: str
    images: int
    run: Path
    seconds: float | None
    scores: QueryScores


def compare(options: CompareOptions, training: Mapping[str, Any]) -> list[ComparedModel]:
    """Train and compare the models: print a Markdown table, write a JSON file and return the rows.

    training: options of `TrainConfig.from_options` for --system regression, without system,
    text_vectors, run and resume, which are set here. Each model searches the val and test images of
    the data that it was trained on, and those of `test_data`. An interrupted run is resumed, and a
    complete one is not trained again. Raises InputError for user errors, most of them before any
    image is read.
    """
    sources = options.text_vectors or _available()
    configs = {source: _config(source, options.prefix, training) for source in sources}
    for config in configs.values():
        REGRESSION.check_inputs(config)
    queries = None if options.queries is None else read_queries(options.queries)
    make_directory(options.output.parent, "--output")
    first = next(iter(configs.values()))
    databases = _read_databases(options, first)
    rows = []
    for number, (source, config) in enumerate(configs.items(), start=1):
        print(f"text vectors {number} of {len(configs)}: {source}", flush=True)
        exists = run_directory(config.run.run or "").exists()
        started = time.perf_counter()
        result = run_training(config)
        seconds = None if exists else time.perf_counter() - started
        for name, examples in databases:
            scores = _search(result.linker, examples, config, queries)
            own = databases[0][0]
            row = (source, own, name, len(examples), result.run, seconds, scores)
            rows.append(ComparedModel(*row))
    _write(options.output, rows)
    print(f"\n{format_table(rows)}\n\n{_describe(rows)}\nscores: {options.output}")
    return rows


def _available() -> tuple[str, ...]:
    """Return the kinds of text vectors that can be fitted with the installed extras."""
    if importlib.util.find_spec("gensim") is not None:
        return FITTED
    print(
        "note: word2vec, fastText, doc2vec and LDA need gensim and are left out; run pip install "
        "'captioner[link]' to include them"
    )
    return WITHOUT_EXTRA


def _config(source: str, prefix: str, training: Mapping[str, Any]) -> TrainConfig:
    """Return the config of the run for `source`, without options that have no effect on it."""
    training = {n: value for n, value in training.items() if n not in idle_sizes((source,))}
    return TrainConfig.from_options(
        system=REGRESSION.name,
        text_vectors=(source,),
        run=f"{prefix}-{plain_name(source)}",
        resume="auto",
        **training,
    )


def _read_databases(
    options: CompareOptions, config: TrainConfig
) -> list[tuple[str, list[Example]]]:
    """Return the name of each data set to search, and its examples outside the train split.

    The first is the data set that the models are trained on.
    """
    data = config.data
    sources = [(data.data, data.format)]
    if options.test_data is not None:
        sources.append((options.test_data, options.test_format))
    databases = []
    for path, format in sources:
        read = load_data(path, format, data.cache, data.on_error)
        clean, _ = drop_corrupt_images(
            read, ("val", "test"), data.on_error, data.cache, data.workers
        )
        databases.append((read.name, _outside_training(clean)))
    return databases


def _outside_training(data: CaptionData) -> list[Example]:
    return [example for example in data.examples if example.split != "train"]


def _search(
    linker: Linker, examples: Sequence[Example], config: TrainConfig, queries: Sequence[str] | None
) -> QueryScores:
    encoder = linker.model.encoder
    assert encoder is not None
    options = EvaluationOptions(cache=config.data.cache, workers=config.data.workers)
    images = open_features(encoder, linker.transform, examples, options, "pooled")
    rows = linker.encode_source(images, len(examples))
    return score_queries(linker, rows, examples, queries)


def format_table(rows: Sequence[ComparedModel]) -> str:
    """Return a Markdown table with a row for each kind of text vectors and data set."""
    several = len({row.tested_on for row in rows}) > 1
    titles = ["text vectors", *(["searched"] if several else []), *COLUMNS.values(), "seconds"]
    lines = [f"| {' | '.join(titles)} |", f"|{' --- |' * (1 + several)}{' ---: |' * 7}"]
    for row in rows:
        numbers = row.scores.numbers
        cells = [f"`{row.text_vectors}`", *([row.tested_on] if several else [])]
        cells += [f"{numbers[name]:.2f}" if name in numbers else "-" for name in COLUMNS]
        cells.append("-" if row.seconds is None else f"{row.seconds:.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _describe(rows: Sequence[ComparedModel]) -> str:
    """Return lines with the number of images and queries of each data set, and omitted queries."""
    lines = []
    for name in dict.fromkeys(row.tested_on for row in rows):
        row = next(each for each in rows if each.tested_on == name)
        chance = row.scores.numbers.get("chance")
        by_chance = "" if chance is None else f"; P@5 by chance {chance:.2f}"
        count = len(row.scores.queries)
        lines.append(
            f"{name}: {row.images} images outside the train split, {count} queries{by_chance}"
        )
        if row.scores.left_out:
            lines.append(f"queries left out: {', '.join(row.scores.left_out)}")
    return "\n".join(lines)


def _write(path: Path, rows: Sequence[ComparedModel]) -> None:
    content = [
        {
            "text_vectors": row.text_vectors,
            "trained_on": row.trained_on,
            "tested_on": row.tested_on,
            "images": row.images,
            "run": str(row.run),
            "seconds": None if row.seconds is None else round(row.seconds, 1),
            **row.scores.content,
        }
        for row in rows
    ]
    write_json(path, content)
