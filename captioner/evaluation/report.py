"""The HTML report: scores, training curves, images with captions and maps.

report.html is the template and contains the script that shows the images; this module computes the
values to fill in.

Shapes: T words, (h, w) attention grid.
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

from ..atomic_io import atomic_write
from ..console import progress_bar
from ..data.dataset import Example
from ..data.images import load_image
from ..errors import InputError
from ..metrics.bootstrap import Interval
from ..plots.html import jpeg, thumbnail
from ..plots.overlays import GAMMA, is_dimmed, palette
from ..text.vocabulary import Vocabulary
from .split import Evaluation

MAX_IMAGES = 1000
_SIDE, _QUALITY = 180, 65  # pixels and JPEG quality of a thumbnail
_CURVES = (
    '<h2>Training curves</h2><p class="facts">Values by epoch. The dotted line marks the epoch of '
    'this checkpoint.</p><div class="curves">{}</div>'
)


@dataclass(frozen=True)
class Heading:
    """The part of the page above the images.

    facts: lines of text. intervals: confidence intervals by score. curves: training curves as SVG.
    """

    title: str
    facts: Sequence[str]
    intervals: Mapping[str, Interval]
    curves: Sequence[str] = ()


def write_report(
    path: Path,
    heading: Heading,
    result: Evaluation,
    examples: Sequence[Example],
    vocabulary: Vocabulary,
    offset: float,
    max_images: int = MAX_IMAGES,
) -> None:
    """Write a self-contained HTML page that shows a model's captions of the examples.

    The page shows at most `max_images` images. If there are more, a quarter of the images shown
    have the best scores, a quarter have the worst scores, and the rest are a random sample of the
    others. The images are ranked by CIDEr or, if CIDEr is missing, by the last score. offset:
    `Encoder.offset` of the model's encoder. Missing directories are created, and the file is
    replaced atomically. Raises InputError if it cannot be written.
    """
    scores = result.scores.per_image
    by_id = dict(zip(result.scores.ids, zip(*scores.values(), strict=True), strict=True))
    key = list(scores).index("CIDEr") if "CIDEr" in scores else -1
    ascending = sorted(examples, key=lambda example: by_id[example.id][key])
    shuffle = random.Random(0)
    images = [
        _image_data(example, by_id[example.id], result, vocabulary)
        | {"random": round(shuffle.random(), 6)}
        for example in progress_bar(_select(ascending, max_images), desc="report", unit="image")
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
        atomic_write(path, _fill_template(heading, data))
    except OSError as error:
        raise InputError(
            f"{path} cannot be written: {error.strerror}; choose another directory"
        ) from error


def _select(ascending: Sequence[Example], max_images: int) -> list[Example]:
    """Select at most `max_images` of the examples, which must be sorted by score."""
    if len(ascending) <= max_images:
        return list(ascending)
    quarter = max_images // 4
    middle = ascending[quarter : len(ascending) - quarter]
    sample = random.Random(0).sample(middle, max_images - 2 * quarter)
    return [*ascending[:quarter], *sample, *ascending[len(ascending) - quarter :]]


def _image_data(
    example: Example, scores: Sequence[float], result: Evaluation, vocabulary: Vocabulary
) -> dict[str, Any]:
    """Return an image's data for the page's script.

    jpeg: the thumbnail. dimmed: whether each word is a function word. word_alternatives: for each
    word, pairs of another word and its log-probability. maps: T maps of h x w bytes in base64; 255
    represents `peak`, the caption's maximum attention; grid, peak and maps are missing if there is
    no attention.
    """
    hypothesis = result.hypotheses[example.id]
    words = vocabulary.decode(hypothesis.tokens)
    small = thumbnail(load_image(example.path), _SIDE)
    data: dict[str, Any] = {
        "name": str(example.id),
        "size": small.size,
        "jpeg": jpeg(small, _QUALITY),
        "words": words,
        "dimmed": [is_dimmed(word) for word in words],
        "log_probs": [round(p, 3) for p in hypothesis.log_probs[: len(words)]],
        "references": example.captions,
        "scores": [round(score, 2) if math.isfinite(score) else None for score in scores],
    }
    if hypothesis.alternatives:
        data["word_alternatives"] = [
            [("".join(vocabulary.decode([token])), round(p, 3)) for token, p in alternatives]
            for alternatives in hypothesis.alternatives[: len(words)]
        ]
    if hypothesis.attention is None or not words:
        return data
    attention = hypothesis.attention[: len(words)]  # (T, h, w)
    peak = float(attention.max())
    cells = np.rint(255 * attention / (peak or 1)).astype(np.uint8)
    maps = base64.b64encode(cells.tobytes()).decode("ascii")
    return data | {"grid": cells.shape[1:], "peak": round(peak, 4), "maps": maps}


def _fill_template(heading: Heading, data: Mapping[str, Any]) -> str:
    template = files(__package__).joinpath("report.html").read_text(encoding="utf-8")
    curves = "".join(f"<figure>{svg}</figure>" for svg in heading.curves)
    parts = {
        "title": _escape(heading.title),
        "facts": "".join(f"<li>{_escape(fact)}</li>" for fact in heading.facts),
        "scores": _table_rows(heading.intervals),
        "curves": curves and _CURVES.format(curves),
        # Escape "<", so that "</script>" in a caption cannot end the script element.
        "data": json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", r"\u003c"),
    }
    return re.sub(r"<!--(\w+)-->", lambda match: parts[match[1]], template)


def _table_rows(intervals: Mapping[str, Interval]) -> str:
    """Format one HTML table row per score, with one bar for its value and one for its interval."""
    rows = ""
    for name, interval in intervals.items():
        full = 1000 if interval.high > 100 else 100  # only CIDEr can exceed 100
        left, width = 100 * interval.low / full, 100 * (interval.high - interval.low) / full
        rows += (
            f'<tr><th scope="row">{_escape(name)}<td class="number">{interval.value:.2f}'
            f'<td class="number">{interval.low:.2f} to {interval.high:.2f}<td class="bar">'
            f'<div class="track"><i style="width:{100 * interval.value / full:.2f}%"></i>'
            f'<b style="left:{left:.2f}%;width:{width:.2f}%"></b></div>'
        )
    return rows


def _escape(text: str) -> str:
    """Escape text for HTML; lone surrogates, as in undecodable file names, become "?"."""
    return escape(text.encode("utf-8", "replace").decode("utf-8"))
