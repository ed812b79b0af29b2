"""Drawings of points on a plane, coloured by group, with a legend.

`retrieval.projections` computes the points.

Shapes: N points, G groups.
"""

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..atomic_io import atomic_write
from ..errors import InputError
from .overlays import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The colours of Okabe and Ito (2008), which colour-blind readers can tell apart, some of them
# darker, so that all have a contrast of at least 3 with white. Every group has its own marker, for
# prints in grey and for groups of the same colour.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#c76b9f", "#b58900", "#3a94cf", "#333333", "#7a3b12")
GROUP_COLORS = tuple(tuple(bytes.fromhex(color[1:])) for color in _COLORS)  # (red, green, blue)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "<", "*", ">", "h")
MAX_GROUPS = len(_MARKERS)
_NO_GROUP = {"color": "#a0a0a0", "marker": ".", "zorder": 1}
_SIZE = (9.0, 5.6)  # inches
_DPI = 120
_LEGEND_WIDTH = 26  # characters of a line
_TITLE_WIDTH = 100  # characters
_LEGEND: dict[str, Any] = {  # to the right of the axes, where it covers no point
    "loc": "upper left",
    "bbox_to_anchor": (1.02, 1),
    "borderpad": 0,
    "borderaxespad": 0,
    "fontsize": 9.5,
    "frameon": False,
    "handletextpad": 0.4,
    "labelspacing": 0.4,
    "scatterpoints": 1,
}


@dataclass(frozen=True)
class Axes2D:
    """The meaning of a plane: two named axes, named anchors among which points lie, or neither.

    names: names of the horizontal and the vertical axis, which have ticks from 0 to 1. anchors:
    names and positions (A, 2) of A anchors.
    """

    names: tuple[str, str] | None = None
    anchors: tuple[Sequence[str], np.ndarray] | None = None


def draw_projection(
    path: Path,
    points: np.ndarray,
    groups: np.ndarray,
    labels: Sequence[str],
    title: str,
    meaning: Axes2D | None = None,
) -> None:
    """Write a PNG of points (N, 2), each in its group's colour and marker, with a legend.

    groups (N,): index of each point's label, or -1 for grey points, which the legend calls "other".
    labels: the groups' names in the legend's order, at most MAX_GROUPS; the legend also shows the
    size of each group. Axes that `meaning` names have ticks; otherwise both axes have the same
    scale. A long title is truncated. The PNG is replaced atomically. Raises InputError if the
    shapes do not match, if a point is not finite, if an index is out of range, or if there are too
    many groups.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    _check(points, groups, labels)
    with rc_context({"text.color": INK, "axes.edgecolor": "#c8c8c8"}):
        figure = Figure(figsize=_SIZE, dpi=_DPI)
        axes = figure.add_axes((0.02, 0.03, 0.64, 0.88))
        _draw_groups(axes, points, groups, labels)
        axes.set_aspect("equal", adjustable="datalim")
        _describe_axes(axes, meaning or Axes2D())
        shown = title if len(title) <= _TITLE_WIDTH else f"{title[: _TITLE_WIDTH - 4]} ..."
        axes.set_title(shown, fontsize=11, loc="left", pad=10, parse_math=False)
        content = io.BytesIO()
        figure.savefig(content, format="png", facecolor="white")
    atomic_write(path, content.getvalue())


def _describe_axes(axes: "Axes", meaning: Axes2D) -> None:
    """Label the axes; without names, hide their ticks, and write the names of any anchors."""
    if meaning.names is None:
        axes.set(xticks=[], yticks=[])
    else:
        axes.set_aspect("auto")
        axes.set_position((0.07, 0.1, 0.59, 0.81))
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.set_xlabel(meaning.names[0], parse_math=False)
        axes.set_ylabel(meaning.names[1], parse_math=False)
    if meaning.anchors is not None:
        for name, (x, y) in zip(*meaning.anchors, strict=True):
            axes.text(
                *(1.12 * x, 1.12 * y),
                name,
                ha="center",
                va="center",
                fontweight="bold",
                parse_math=False,
            )
        axes.set_aspect("equal", adjustable="box")
        axes.set(xlim=(-1.3, 1.3), ylim=(-1.25, 1.25))


def _check(points: np.ndarray, groups: np.ndarray, labels: Sequence[str]) -> None:
    if points.ndim != 2 or points.shape[1] != 2 or groups.shape != points.shape[:1]:
        raise InputError(
            f"points must be (N, 2) and groups (N,), got {points.shape} and {groups.shape}"
        )
    if not np.isfinite(points).all():
        raise InputError("points must be finite, got NaN or infinity")
    if len(labels) > MAX_GROUPS:
        raise InputError(
            f"at most {MAX_GROUPS} groups can be distinguished, got {len(labels)}; merge some of "
            "them"
        )
    if len(groups) and not -1 <= groups.min() <= groups.max() < len(labels):
        raise InputError(
            f"groups must be between -1 and {len(labels) - 1}, got {groups.min()} to {groups.max()}"
        )


def _draw_groups(
    axes: "Axes", points: np.ndarray, groups: np.ndarray, labels: Sequence[str]
) -> None:
    """Draw the groups in order, each above the previous ones and the grey points, and a legend."""
    area = float(np.clip(24_000 / max(1, len(points)), 12, 36))  # of a marker, square points
    handles, texts = [], []
    for group in [*range(len(labels)), -1]:
        chosen = points[groups == group]
        if group == -1 and not len(chosen):
            continue
        style: Any = _NO_GROUP
        if group >= 0:
            style = {"color": _COLORS[group % len(_COLORS)], "marker": _MARKERS[group], "zorder": 2}
        handles.append(
            axes.scatter(chosen[:, 0], chosen[:, 1], s=area, alpha=0.8, linewidths=0, **style)
        )
        name = "other" if group == -1 else labels[group]
        texts.append(f"{_wrapped(name)} ({len(chosen):,})")
    legend: Any = axes.legend(handles, list(map(str, range(len(texts)))), **_LEGEND)
    for handle, text, written in zip(legend.legend_handles, legend.get_texts(), texts, strict=True):
        handle.set(sizes=[40], alpha=1)
        # Set afterwards, because matplotlib drops labels that begin with an underscore.
        text.set(text=written, parse_math=False)


def _wrapped(name: str) -> str:
    """Break a name into at most two lines of the legend."""
    lines = textwrap.wrap(
        name, _LEGEND_WIDTH, max_lines=2, placeholder=" ...", break_on_hyphens=False
    )
    return "\n".join(lines) or "(empty)"
