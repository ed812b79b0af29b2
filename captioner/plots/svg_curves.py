"""The curves of a training, from the rows of its log, as SVG that stands in a page.

E epochs.
"""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 240, 130, 64, 10, 10, 20
_NOT_DRAWN = ("epoch", "step", "words_per_second", "waiting_share", "memory_mb", "gpu_memory_mb")


def curves(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A figure in HTML for each number of the log's rows, one row an epoch; times are left out."""
    names = dict.fromkeys(name for row in rows for name in row)
    drawn = []
    for name in names:
        if name in _NOT_DRAWN or name.endswith("_seconds"):
            continue
        points = [(row["epoch"], row[name]) for row in rows if name in row and "epoch" in row]
        points = [(x, y) for x, y in points if _is_number(x) and _is_number(y)]
        if points:
            drawn.append(_figure(name, points))
    return drawn


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _figure(name: str, points: Sequence[tuple[float, float]]) -> str:
    """One curve over the epochs, the least and the greatest value at its left."""
    (first, last), (low, high) = ((min(axis), max(axis)) for axis in zip(*points, strict=True))
    inner = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - first) / (last - first) if last > first else 0.5
        up = (y - low) / (high - low) if high > low else 0.5
        return _LEFT + across * inner[0], _TOP + (1 - up) * inner[1]

    places = [place(*point) for point in points]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"><title>epoch {epoch:g}: {value:.6g}</title>'
        "</circle>"
        for (x, y), (epoch, value) in zip(places, points, strict=True)
    )
    floor = _HEIGHT - _BOTTOM
    labels: list[tuple[float, float, str, str]] = [
        (_LEFT - 5, place(first, y)[1] + 3, "end", f"{y:.4g}") for y in sorted({low, high})
    ]
    labels += [(place(x, low)[0], _HEIGHT - 5, "middle", f"{x:g}") for x in sorted({first, last})]
    text = "".join(
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{label}</text>'
        for x, y, anchor, label in labels
    )
    said = escape(name)
    return (
        f"<figure><figcaption><span>{said}</span><b>{points[-1][1]:.4g}</b></figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{said} by epoch">'
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{floor}" y2="{floor}"/>'
        f'<path d="{path}"/>{dots}{text}</svg></figure>'
    )
