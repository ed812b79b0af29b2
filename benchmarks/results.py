"""Tables and curves of finished runs: python -m benchmarks.results.

It reads the files that train.py and evaluate.py wrote, and draws the curves of docs/results.md.
"""

import argparse
import json
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from benchmarks import measure

COLUMNS = {
    "B-1": "BLEU-1",
    "B-2": "BLEU-2",
    "B-3": "BLEU-3",
    "B-4": "BLEU-4",
    "CIDEr": "CIDEr",
    "ROUGE-L": "ROUGE-L",
    "words": "mean_length",
    "vocabulary": "vocabulary_used",
    "function endings %": "function_endings",
    "distinct %": "distinct",
}


def table(files: Sequence[Path]) -> str:
    """Format one row per scores.json as Markdown, with BLEU with and without brevity penalty."""
    rows = []
    for file in files:
        scores = json.loads(file.read_text())
        values = [scores[key] for key in COLUMNS.values()]
        penalty = scores["brevity_penalty"]
        bare = "/".join(f"{scores[f'BLEU-{n}'] / penalty:.1f}" for n in range(1, 5))
        cells = [f"{v}" if isinstance(v, int) else f"{v:.2f}" for v in values]
        rows.append([str(file.parent), *cells, f"{penalty:.3f}", bare])
    return measure.table(["run", *COLUMNS, "brevity", "B-1..4 without"], rows)


def minutes(log: Path) -> list[tuple[float, dict[str, Any]]]:
    """Return the rows of a log.jsonl, each with its cumulative training and evaluation minutes."""
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    spent = accumulate(row["training_seconds"] + row["evaluation_seconds"] for row in rows)
    return [(seconds / 60, row) for seconds, row in zip(spent, rows, strict=True)]


def plot(logs: Sequence[Path], score: str, file: Path) -> None:
    """Plot the score of the val split against time, with one line per run."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for log in logs:
        points = minutes(log)
        times, values = [time for time, _ in points], [row[score] for _, row in points]
        axes.plot(times, values, marker="o", markersize=3, label=log.parent.name)
    axes.set(xlabel="minutes of training and evaluation", ylabel=f"validation {score}")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "directories", nargs="+", type=Path, help="runs, or directories of evaluations"
    )
    parser.add_argument("--plot", type=Path, help="PNG of the validation score against time")
    parser.add_argument("--score", default="BLEU-4", help="score to plot")
    arguments = parser.parse_args()
    files = [
        file
        for directory in arguments.directories
        for file in sorted(directory.rglob("scores.json"))
    ]
    print(table(files))
    if arguments.plot:
        logs = [directory / "log.jsonl" for directory in arguments.directories]
        plot([log for log in logs if log.is_file()], arguments.score, arguments.plot)


if __name__ == "__main__":
    main()
