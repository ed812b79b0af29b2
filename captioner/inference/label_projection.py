"""Images of an index on a plane: one or two labels or the diversity as axes, or labels as anchors.

Shapes: N images, L labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..plots.projections import MAX_GROUPS, Axes2D
from ..retrieval.label_axes import anchors, label_points, strongest

if TYPE_CHECKING:
    from ..index import Index

DIVERSITY, SPREAD = "diversity of regions", "random"


@dataclass(frozen=True)
class LabelPlane:
    """Images or texts on a plane, with groups by label.

    points (N, 2): their positions. groups (N,): index of the label with the highest score,
    or -1 if no score is at least 0.5 or there are no labels. labels: names of the groups. meaning:
    the axes or anchors.
    """

    points: np.ndarray
    groups: np.ndarray
    labels: tuple[str, ...]
    meaning: Axes2D


def project_labels(
    index: "Index", chosen: np.ndarray, labels: Sequence[str], *, diversity: bool, seed: int
) -> LabelPlane:
    """Place images of an index on a plane of labels.

    chosen (N,): rows of the images. A single label is the horizontal axis; the vertical axis is
    then the diversity of an image's regions or, without `diversity`, a random number. Two labels
    are the axes. Three or more are anchors on a circle (see `label_points`). diversity: whether the
    diversity is an axis; without labels, it is the horizontal axis, and the vertical one is random.
    Without `diversity`, there must be labels. Raises InputError for more than MAX_GROUPS labels,
    for several labels with `diversity`, and as `Index.label_scores` and `Index.diversity` do.
    """
    names = tuple(dict.fromkeys(labels))
    if len(names) > MAX_GROUPS:
        raise InputError(f"at most {MAX_GROUPS} labels can be drawn, got {len(names)}; pass fewer")
    if diversity and len(names) > 1:
        raise InputError(
            f"--diversity can be combined with only one label, got {len(names)}; pass one label"
        )
    other = index.diversity()[chosen] if diversity else None
    if not names:
        assert other is not None
        points = label_points(other[:, None], seed=seed)
        return LabelPlane(points, np.full(len(points), -1), (), Axes2D(names=(DIVERSITY, SPREAD)))
    scores = index.label_scores(names)[chosen]
    points = label_points(scores, other, seed)
    return LabelPlane(points, strongest(scores), names, _meaning(names, diversity=diversity))


def _meaning(names: Sequence[str], *, diversity: bool) -> Axes2D:
    match len(names):
        case 1:
            return Axes2D(names=(names[0], DIVERSITY if diversity else SPREAD))
        case 2:
            return Axes2D(names=(names[0], names[1]))
        case count:
            return Axes2D(anchors=(names, anchors(count)))


def describe_plane(plane: LabelPlane) -> str:
    """Describe the axes or anchors, for the title of a figure."""
    if plane.meaning.names is not None:
        return f"{plane.meaning.names[0]} to the right, {plane.meaning.names[1]} upwards"
    return f"among {', '.join(plane.labels)}, clockwise from the top"
