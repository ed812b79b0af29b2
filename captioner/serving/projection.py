"""Positions of the rows of an index on a plane, as JSON.

Shapes: N points.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from ..inference.label_projection import LabelPlane, project_labels
from ..plots.projections import Axes2D
from ..retrieval.label_axes import strongest
from ..retrieval.projections import project
from .collections import Collection, check_regions
from .labels import check_words
from .snapshots import Damaged, Snapshot

MAX_POINTS = 20_000
COMPONENTS = ("first principal component", "second principal component")
DIGITS = 5  # of positions, which are numbers near 1


@dataclass(frozen=True)
class ProjectionRequest:
    """What determines the positions of the rows of an index.

    method: "labels", as in `project_labels`, or "pca" for principal components; labels are then
    only groups. diversity: as in `project_labels`. limit: maximum number of points; if there are
    more rows, some are sampled.
    """

    method: str = "labels"
    labels: tuple[str, ...] = ()
    diversity: bool = False
    limit: int = MAX_POINTS


def project_index(collection: Collection, request: ProjectionRequest) -> dict[str, Any]:
    """Return the positions of the rows of a collection; `projection_schemas` describes the keys.

    Raises InputError for unknown words, for a request that contradicts itself, and for labels or
    diversity if the index has no regions; Damaged if the index cannot be read.
    """
    by_labels = request.method == "labels"
    if by_labels and not (request.labels or request.diversity):
        raise InputError(
            "there is nothing to place images by; pass labels, diversity=true or method=pca"
        )
    if request.diversity and (len(set(request.labels)) > 1 or not by_labels):
        raise InputError(
            "diversity can be an axis only with method=labels and at most one label; omit it"
        )
    return collection.read(lambda snapshot: _project(collection, snapshot, request))


def _project(
    collection: Collection, snapshot: Snapshot, request: ProjectionRequest
) -> dict[str, Any]:
    if request.labels or request.diversity:
        check_regions(collection.name, snapshot)
        check_words(collection.linker, request.labels)
    chosen = _sample(len(snapshot.files.rows), request.limit)
    if request.method == "pca":
        plane = _components(snapshot, chosen, request.labels)
    else:
        plane = project_labels(
            snapshot.index, chosen, request.labels, diversity=request.diversity, seed=0
        )
    if not np.isfinite(plane.points).all():
        raise Damaged(f"{collection.name}: a position is not finite")
    x, y = plane.points.T.round(DIGITS).tolist()
    axes, anchors = plane.meaning.names, plane.meaning.anchors
    return {
        "index": collection.name,
        "kind": snapshot.kind,
        "version": snapshot.version,
        "rows": len(snapshot.files.rows),
        "row": chosen.tolist(),
        "x": x,
        "y": y,
        "group": plane.groups.tolist(),
        "labels": list(plane.labels),
        "axes": None if axes is None else list(axes),
        "anchors": None if anchors is None else anchors[1].round(DIGITS).tolist(),
    }


def _components(snapshot: Snapshot, chosen: np.ndarray, labels: Sequence[str]) -> LabelPlane:
    """Place rows by their principal components; labels, if there are any, divide them into groups.

    chosen (N,): numbers of the rows.
    """
    rows = np.asarray(snapshot.files.rows[chosen], np.float32)
    if not np.isfinite(rows).all():
        raise Damaged(f"{snapshot.files.directory}: a row is not finite")
    points = project(rows, "pca")
    names = tuple(dict.fromkeys(labels))
    groups = np.full(len(chosen), -1)
    if names:
        groups = strongest(snapshot.index.label_scores(names)[chosen])
    return LabelPlane(points, groups, names, Axes2D(names=COMPONENTS))


def _sample(count: int, limit: int) -> np.ndarray:
    """Return at most `limit` of the numbers below `count`, always the same, in order."""
    return np.asarray(np.sort(np.random.default_rng(0).permutation(count)[:limit]))
