"""Curves of a training log, as a PNG file or as SVG for an HTML page.

A log is a sequence of rows, one per epoch. Missing and non-finite values leave gaps in the lines.
"""

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..atomic_io import atomic_write
from .overlays import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# All colours have a contrast of at least 3 with white and with the report's dark background. Lines
# in the same panel also differ in lightness or dashes, for colour-blind readers.
_WATCHED = "#d55e00"
_LINES: dict[str, tuple[str, str]] = {
    "loss": ("#0072b2", "-"),
    "cross_entropy": ("#cc79a7", "--"),
    "learning_rate": ("#808080", "-"),
    "reward": ("#cc79a7", "-"),
    "BLEU-1": ("#5598d2", ":"),
    "BLEU-2": ("#448bc8", "--"),
    "BLEU-3": ("#337ebf", "-."),
    "BLEU-4": ("#2171b5", "-"),
    "METEOR": ("#cc79a7", "-"),
    "ROUGE-L": ("#009e73", "-"),
    "CIDEr": ("#8c6d31", "-"),
    "distinct": ("#0072b2", "-"),
    "novelty": ("#009e73", "-."),
    "function_endings": ("#cc79a7", "--"),
}
_GROUPS: dict[str, tuple[str, ...]] = {  # by panel title
    "loss per word": ("loss", "cross_entropy"),
    "learning rate at the end of the epoch": ("learning_rate",),
    "other scores": ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L"),
    "CIDEr": ("CIDEr",),
    "captions, %": ("distinct", "novelty", "function_endings"),
    "reward": ("reward",),
}
_LEGEND: dict[str, Any] = {  # above the axes, where it covers no line
    "loc": "lower left",
    "bbox_to_anchor": (0, 1.02),
    "borderpad": 0,
    "borderaxespad": 0,
    "fontsize": 7,
    "frameon": False,
    "handlelength": 1.2,
    "handletextpad": 0.3,
    "columnspacing": 0.6,
}
_STYLE: Any = {  # Any, because matplotlib types the keys as literals
    **dict.fromkeys(("text.color", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    "svg.fonttype": "none",  # text in the page's font, not outlines
}
_MAX_MARKERS = 30  # per line; more would make the SVG large and the lines hard to see


@dataclass(frozen=True)
class _Panel:
    """One set of axes: title, E epochs, and the values (E,) of each line, NaN if missing."""

    title: str
    epochs: list[float]
    lines: dict[str, list[float]]


def draw_curves(path: Path, rows: Sequence[Mapping[str, Any]], watch: str, best_epoch: int) -> None:
    """Write a PNG with a log's losses, scores and learning rate.

    watch: name of the score that gets its own panel. best_epoch: epoch marked by a line in every
    panel; 0 for none. The PNG is replaced atomically. Drawing takes about 0.25 s on one core.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    panels = _panels(rows, watch)
    lines = -(-len(panels) // 3)
    with rc_context(_STYLE):
        figure = Figure(figsize=(12, 0.4 + 3 * lines), dpi=100)
        spacing = {"hspace": 0.38, "wspace": 0.15}
        all_axes = figure.subplots(lines, 3, squeeze=False, gridspec_kw=spacing).flat
        figure.subplots_adjust(left=0.04, right=0.99, bottom=0.12 / lines, top=1 - 0.32 / lines)
        for axes, panel in zip(all_axes, panels, strict=False):
            _draw_panel(axes, panel, watch, best_epoch)
        for axes in list(all_axes)[len(panels) :]:
            axes.axis("off")
        heading = _heading(path.parent.name, rows, watch, best_epoch)
        figure.suptitle(heading, x=0.04, y=0.985, ha="left", parse_math=False)
        content = io.BytesIO()
        figure.savefig(content, format="png", facecolor="white")
    atomic_write(path, content.getvalue())


def curves_svg(rows: Sequence[Mapping[str, Any]], watch: str, best_epoch: int) -> list[str]:
    """Draw each panel of `draw_curves` as an SVG element for a page; an empty log has no panels.

    Lines keep their colours; everything else uses the page's text colour and font. The elements
    contain no scripts and no external references, and are identical for identical logs.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    elements = []
    for panel in _panels(rows, watch):
        style: Any = {**_STYLE, "svg.hashsalt": panel.title}  # ids differ between panels
        with rc_context(style):
            figure = Figure(figsize=(4, 2.9))
            axes = figure.subplots()
            figure.subplots_adjust(left=0.12, right=0.98, bottom=0.09, top=0.83)
            _draw_panel(axes, panel, watch, best_epoch)
            content = io.StringIO()
            no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
            figure.savefig(content, format="svg", transparent=True, metadata=no_metadata)
        elements.append(_as_element(content.getvalue(), panel))
    return elements


def _panels(rows: Sequence[Mapping[str, Any]], watch: str) -> list[_Panel]:
    """Return the non-empty panels of a log; the panel of the watched score comes second."""
    rows = [row for row in rows if math.isfinite(_number(row.get("epoch")))]
    epochs = [_number(row["epoch"]) for row in rows]
    loss, *others = _GROUPS.items()
    panels = []
    for title, names in (loss, (f"validation {watch}", (watch,)), *others):
        lines = {
            name: [_number(row.get(name)) for row in rows]
            for name in names
            if name != watch or title.startswith("validation")
        }
        lines = {name: values for name, values in lines.items() if any(map(math.isfinite, values))}
        if lines:
            panels.append(_Panel(title, epochs, lines))
    return panels


def _number(value: object) -> float:
    """Return the value if it is a finite number, otherwise NaN."""
    return value if isinstance(value, int | float) and math.isfinite(value) else math.nan


def _heading(run: str, rows: Sequence[Mapping[str, Any]], watch: str, best_epoch: int) -> str:
    epochs = f"{len(rows)} epoch{'s' * (len(rows) > 1)}"
    best = next((row for row in rows if row["epoch"] == best_epoch), None)
    score = f"; best: epoch {best_epoch}, {watch} {best[watch]:.2f}" if best else ""
    return f"{run}: {epochs}{score}"


def _draw_panel(axes: "Axes", panel: _Panel, watch: str, best_epoch: int) -> None:
    from matplotlib.ticker import MaxNLocator

    epochs = panel.epochs
    marker = "o" if len(epochs) <= _MAX_MARKERS else ""
    for name, values in panel.lines.items():
        color, dashes = (_WATCHED, "-") if name == watch else _LINES[name]
        axes.plot(
            epochs,
            values,
            color=color,
            linestyle=dashes,
            linewidth=2.5 if name == watch else 1.5,
            marker=marker,
            markersize=4,
            label=name.replace("_", " "),
            clip_on=False,  # nothing exceeds the axes, and clip paths need url() in SVG
        )
        if name == watch and best_epoch in epochs:
            best = values[epochs.index(best_epoch)]
            axes.plot([best_epoch], [best], "o", ms=11, mfc="none", mec=INK, mew=1.5, clip_on=False)
    if best_epoch in epochs:
        axes.axvline(best_epoch, color=INK, linestyle=":", linewidth=1, clip_on=False)
    axes.set_title(panel.title, fontsize=11, loc="left", pad=18, parse_math=False)
    axes.ticklabel_format(axis="y", scilimits=(-2, 4))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    axes.set_xlim(epochs[0] - 0.3, epochs[-1] + 0.3)
    axes.grid(axis="y", color=INK, alpha=0.12, clip_on=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    if len(panel.lines) > 1:
        axes.legend(ncols=len(panel.lines), **_LEGEND)


def _as_element(file: str, panel: _Panel) -> str:
    """Turn matplotlib's SVG file into an element of an HTML page.

    Removes the XML declaration, which HTML does not allow; the style, which would apply to the
    whole page; and the ids of groups, which (unlike the ids of markers) are the same in every file.
    """
    _, attributes, content = re.split(r"<svg([^>]*)>", file, maxsplit=1)
    view = re.search(r'viewBox="[^"]*"', attributes)
    assert view
    content = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", content, flags=re.DOTALL)
    content = re.sub(r'<g id="[^"]*">', "<g>", content)
    content = re.sub(r' transform="rotate\(-0 [^"]*"', "", content)
    content = re.sub(r"font-family: [^;]*; ", "", content).replace(INK, "currentColor")
    content = re.sub(r">\s+<", "><", re.sub(r"\s+", " ", content))
    return f'<svg role="img" {view[0]}><title>{escape(_summary(panel))}</title>{content.strip()}'


def _summary(panel: _Panel) -> str:
    """Describe the last values in words, for screen readers and as a tooltip."""
    last = (f"{name.replace('_', ' ')} {values[-1]:.4g}" for name, values in panel.lines.items())
    return f"{panel.title}; last epoch: {', '.join(last)}"
