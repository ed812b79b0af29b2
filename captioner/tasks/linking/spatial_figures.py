"""Figures at the end of a spatial run: label maps of a few images, and a plane of all images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...data.dataset import Example
from ...data.images import load_image
from ...data.sources import Source
from ...linker import Linker
from ...plots.heatmaps import LABEL, save_heatmap
from ...plots.projections import Axes2D, draw_projection
from ...retrieval.label_axes import anchors, label_points, strongest
from ...text.content_words import families

SHOWN = 4  # likely labels per image
ANCHORS = 6


def draw_maps(
    directory: Path, linker: Linker, images: Source, examples: Sequence[Example], count: int
) -> Path:
    """Draw the label maps of up to `count` evenly spaced images, and return the directory.

    Each figure shows the most likely seen labels, the most likely held-out label, if any, and the
    least likely label, whose map should stay dark, with their scores. images: a source whose i-th
    item belongs to the i-th example.
    """
    labels, encoder = linker.known_labels, linker.model.encoder
    assert encoder is not None
    names = np.array(labels.names)
    scores = linker.label_source(images, len(examples), labels.names).scores
    step = max(1, len(examples) // count)
    for number, i in enumerate(range(0, len(examples), step)[:count], start=1):
        order = np.argsort(-scores[i], kind="stable")
        seen, held_out = order[order < len(labels.seen)], order[order >= len(labels.seen)]
        chosen = np.concatenate([seen[:SHOWN], held_out[:1], order[-1:]])
        image = load_image(examples[i].path)
        save_heatmap(
            directory / f"{number:02}-{Path(examples[i].path.name).stem}.png",
            image,
            [f"{names[j]} {scores[i, j]:.2f}" for j in chosen],
            linker.label_maps([image], names[chosen].tolist())[0],
            title=f"{examples[i].captions[0]} (label {len(seen[:SHOWN]) + 1} is held out)"
            if len(held_out)
            else examples[i].captions[0],
            offset=encoder.offset,
            scale=LABEL,
        )
    return directory


def draw_plane(path: Path, linker: Linker, images: Source, examples: Sequence[Example]) -> Path:
    """Draw all images as points on a plane of up to ANCHORS frequent labels; return the path.

    The seen labels that are the most frequent in training are used, of related words one each.
    """
    names = [family[0] for family in families(linker.known_labels.seen)[:ANCHORS]]
    scores = linker.label_source(images, len(examples), names).scores
    points, places = label_points(scores), anchors(len(names))
    meaning = Axes2D(anchors=(names, places)) if len(names) > 2 else Axes2D()
    title = f"{len(examples):,} images, placed by their scores for labels"
    draw_projection(path, points, strongest(scores), names, title, meaning)
    return path
