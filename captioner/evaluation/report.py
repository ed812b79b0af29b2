"""An evaluation as one page: scores, curves, and the images with what was said of them and why.

report.html is the page with places to fill, and the script that shows the images; what to fill
them with is here. Shapes: `T` words, `h, w` the attention grid.
"""

import base64
import json
import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..atomic_io import atomic_write
from ..data.dataset import Example
from ..data.images import load_image
from ..errors import InputError
from ..metrics.bootstrap import Interval
from ..plots.html import jpeg, thumbnail
from ..plots.overlays import GAMMA, is_dimmed, palette
from ..plots.svg_curves import curves
from ..text.vocabulary import Vocabulary
from .scoring import Evaluation

MOST = 1000  # images in a page
_SIDE, _QUALITY = 180, 65  # of a thumbnail


@dataclass(frozen=True)
class Heading:
    """What stands above the images: a title, lines of text, intervals by score, a log's rows."""

    title: str
    facts: Sequence[str]
    intervals: Mapping[str, Interval]
    log: Sequence[Mapping[str, Any]] = ()


def write_report(
    path: Path,
    heading: Heading,
    result: Evaluation,
    examples: Sequence[Example],
    vocabulary: Vocabulary,
    offset: float,
) -> None:
    """Write the page about captions that a model made of the examples; directories are made.

    Of more than `MOST` images a quarter of these are the best, a quarter the worst by CIDEr (or
    the last score there is), and the others drawn from the rest. offset: `Encoder.offset`. The
    file needs no other, and appears whole or not at all.
    """
    scores = result.scores.per_image
    each = dict(zip(result.scores.ids, zip(*scores.values(), strict=True), strict=True))
    decisive = list(scores).index("CIDEr") if "CIDEr" in scores else -1
    order = sorted(examples, key=lambda example: each[example.id][decisive])
    lots = random.Random(0)
    images = [
        _image(example, each[example.id], result, vocabulary) | {"lot": round(lots.random(), 6)}
        for example in tqdm(_choose(order), desc="report", unit="image", leave=False)
    ]
    data = {
        "scores": list(scores),
        "offset": offset,
        "gamma": GAMMA,
        "palette": np.rint(255 * palette()).astype(np.uint8).tobytes().hex(),
        "images": images,
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, _fill(heading, data))
    except OSError as error:
        raise InputError(f"{str(path)!r}: cannot be written: {error}") from error


def _choose(order: Sequence[Example]) -> list[Example]:
    """At most `MOST` of the examples, which are in the order of their scores."""
    if len(order) <= MOST:
        return list(order)
    quarter = MOST // 4
    middle = order[quarter : len(order) - quarter]
    drawn = random.Random(0).sample(middle, MOST - 2 * quarter)
    return [*order[:quarter], *drawn, *order[len(order) - quarter :]]


def _image(
    example: Example, scores: Sequence[float], result: Evaluation, vocabulary: Vocabulary
) -> dict[str, Any]:
    """What the page's script is told of an image; maps are bytes, 255 the caption's strongest."""
    hypothesis = result.hypotheses[example.id]
    words = vocabulary.decode(hypothesis.tokens)
    small = thumbnail(load_image(example.path), _SIDE)
    told: dict[str, Any] = {
        "name": str(example.id),
        "size": small.size,
        "jpeg": jpeg(small, _QUALITY),
        "words": words,
        "function_words": [is_dimmed(word) for word in words],
        "shares": [round(math.exp(each), 3) for each in hypothesis.log_probs[: len(words)]],
        "references": example.captions,
        "scores": [round(each, 2) if math.isfinite(each) else None for each in scores],
    }
    if hypothesis.alternatives:
        told["instead"] = [
            [("".join(vocabulary.decode([token])), round(math.exp(p), 3)) for token, p in others]
            for others in hypothesis.alternatives[: len(words)]
        ]
    if hypothesis.attention is None or not words:
        return told
    attention = hypothesis.attention[: len(words)]  # (T, h, w)
    peak = float(attention.max())
    cells = np.rint(255 * attention / (peak or 1)).astype(np.uint8)
    maps = base64.b64encode(cells.tobytes()).decode("ascii")
    return told | {"grid": cells.shape[1:], "peak": round(peak, 4), "maps": maps}


def _fill(heading: Heading, data: Mapping[str, Any]) -> str:
    template = files(__package__).joinpath("report.html").read_text(encoding="utf-8")
    drawn = "".join(curves(heading.log))
    parts = {
        "title": _text(heading.title),
        "facts": "".join(f"<li>{_text(fact)}</li>" for fact in heading.facts),
        "scores": _rows(heading.intervals),
        "curves": drawn
        and f'<h2>Training, by epoch; the last value in bold</h2><div class="curves">{drawn}</div>',
        # no "<" in a script, or "</script>" in a caption would end it
        "data": json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", r"\u003c"),
    }
    return re.sub(r"<!--(\w+)-->", lambda place: parts[place[1]], template)


def _rows(intervals: Mapping[str, Interval]) -> str:
    """A row of the table for each score, with a bar, and on it the interval."""
    rows = ""
    for name, each in intervals.items():
        full = 1000 if each.high > 100 else 100  # which only CIDEr may exceed
        left, wide = 100 * each.low / full, 100 * (each.high - each.low) / full
        rows += (
            f'<tr><th scope="row">{_text(name)}<td class="number">{each.value:.2f}'
            f'<td class="number">{each.low:.2f} to {each.high:.2f}<td class="bar">'
            f'<div class="track"><i style="width:{100 * each.value / full:.2f}%"></i>'
            f'<b style="left:{left:.2f}%;width:{wide:.2f}%"></b></div>'
        )
    return rows


def _text(text: str) -> str:
    """Text as it stands in HTML; what is no Unicode, as in odd names of files, becomes "?"."""
    return escape(text.encode("utf-8", "replace").decode("utf-8"))
