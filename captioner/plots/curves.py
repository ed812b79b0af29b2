"""The curves of a training as one image to glance at, from the rows of its log; the report's
curves are report_curves.py's.

E epochs.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..atomic_io import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WATCHED = "#d55e00"
_COLORS = {  # no two that those who see few colours could mistake, and orders of BLEU by depth
    "loss": "#0072b2",
    "cross_entropy": "#56b4e9",
    "learning_rate": "#555555",
    "reward": "#cc79a7",
    "BLEU-1": "#9ecae1",
    "BLEU-2": "#6baed6",
    "BLEU-3": "#3182bd",
    "BLEU-4": "#08519c",
    "METEOR": "#cc79a7",
    "ROUGE-L": "#009e73",
    "CIDEr": "#8c6d31",
    "distinct": "#0072b2",
    "novelty": "#009e73",
    "function_endings": "#cc79a7",
}
_LEGEND: dict[str, Any] = {  # above the axes, where it hides no line
    "loc": "lower left",
    "bbox_to_anchor": (0, 1.02),
    "borderpad": 0,
    "borderaxespad": 0,
    "fontsize": 7,
    "frameon": False,
    "handlelength": 0.9,
    "handletextpad": 0.4,
    "columnspacing": 0.8,
}
_SCORE = "validation score"
_PANELS: dict[str, Sequence[str]] = {  # what may share an axis
    "loss per word": ("loss", "cross_entropy"),
    _SCORE: (),  # the watched one alone
    "learning rate, where the epoch ended": ("learning_rate",),
    "other scores": ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L"),
    "CIDEr": ("CIDEr",),
    "captions, %": ("distinct", "novelty", "function_endings"),
    "reward": ("reward",),
}


def draw_curves(path: Path, rows: Sequence[Mapping[str, Any]], watch: str, best_epoch: int) -> None:
    """Write a PNG of what a log's rows hold, one row an epoch: loss, scores, learning rate.

    watch: the score that has a panel of its own. best_epoch: a line marks it in all panels; 0 for
    none. The file appears whole or not at all. Takes a quarter of a second of a core.
    """
    from matplotlib.figure import Figure

    there = {name for row in rows for name in row} - {watch}
    panels = {title: [n for n in names if n in there] for title, names in _PANELS.items()}
    panels[_SCORE] = [watch]
    panels = {title: names for title, names in panels.items() if names}
    lines = -(-len(panels) // 3)
    figure = Figure(figsize=(12, 0.4 + 3 * lines), dpi=100)
    axes = figure.subplots(lines, 3, squeeze=False, gridspec_kw={"hspace": 0.38, "wspace": 0.15})
    figure.subplots_adjust(left=0.04, right=0.99, bottom=0.12 / lines, top=1 - 0.32 / lines)
    for each, (title, names) in zip(axes.flat, panels.items(), strict=False):
        title = f"validation {watch}" if title == _SCORE else title
        _panel(each, title, rows, names, watch, best_epoch)
    for each in axes.flat[len(panels) :]:
        each.axis("off")
    epochs = f"{len(rows)} epoch{'s' * (len(rows) > 1)}"
    best = next((row for row in rows if row["epoch"] == best_epoch), None)
    said = f"; best: epoch {best_epoch}, {watch} {best[watch]:.2f}" if best else ""
    figure.suptitle(
        f"{path.parent.name}: {epochs}{said}", x=0.04, y=0.985, ha="left", parse_math=False
    )
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", facecolor="white")
    atomic_write(path, drawn.getvalue())


def _panel(
    axes: "Axes",
    title: str,
    rows: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    watch: str,
    best_epoch: int,
) -> None:
    from matplotlib.ticker import MaxNLocator

    epochs = [row["epoch"] for row in rows]
    for name in names:
        color, width = (_WATCHED, 2.5) if name == watch else (_COLORS[name], 1.5)
        values = [row.get(name, float("nan")) for row in rows]
        values = [float("nan") if value is None else value for value in values]
        label = name.replace("_", " ")
        axes.plot(epochs, values, color=color, linewidth=width, marker="o", ms=4, label=label)
        if name == watch and best_epoch in epochs:
            best = values[epochs.index(best_epoch)]
            axes.plot([best_epoch], [best], "o", ms=11, mfc="none", mec="black", mew=1.5)
    if best_epoch:
        axes.axvline(best_epoch, color="black", linestyle=":", linewidth=1)
    axes.set_title(title, fontsize=11, loc="left", pad=18)
    axes.ticklabel_format(axis="y", scilimits=(-2, 4))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    axes.set_xlim(epochs[0] - 0.3, epochs[-1] + 0.3)
    axes.grid(axis="y", color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    if len(names) > 1:
        axes.legend(ncols=len(names), **_LEGEND)
