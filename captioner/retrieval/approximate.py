"""Approximate search: only the rows of the clusters nearest to a query are compared with it.

`exact` is the default; this module is for many millions of rows. faiss, the extra `approximate`,
groups the rows into clusters and selects candidates by compressed copies of the rows, whose dot
products are then computed exactly.

Shapes: N rows, M of which are in clusters, E dimensions.
"""

from pathlib import Path
from typing import Any

import numpy as np

from ..atomic_io import atomic_write
from ..errors import InputError

BLOCK = 65536  # rows converted to float32 and added at once
ROWS_PER_CLUSTER = 40  # rows for each cluster that k-means sees; faiss warns of fewer than 39
PROBES = 64  # clusters searched for a query
CANDIDATES = 10  # rows compared exactly, as a multiple of the results
FEWEST_CANDIDATES = 100


class Clusters:
    """The clusters of the first M rows of an index; create them with `build` or `read`."""

    def __init__(self, index: Any) -> None:
        self._index = index

    def __len__(self) -> int:
        """Return the number of rows M in clusters."""
        return int(self._index.ntotal)

    def write(self, path: Path) -> None:
        """Write the clusters to a file, replacing any existing one."""
        atomic_write(path, engine().serialize_index(self._index).tobytes(), sync=True)

    def search(
        self, rows: np.ndarray, vector: np.ndarray, top: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the indices of up to `top` rows with large dot products, and these products.

        rows (N, E): those from which the clusters were built, possibly with more after them, which
        are all compared with the query. vector (E,): float32. The results and the errors are those
        of `exact.search`, but some rows may be missing. Several threads may search at the same
        time.
        """
        from . import exact  # imports torch, which writing an index may not have needed so far

        faiss = engine()
        faiss.omp_set_num_threads(1)  # of the calling thread; a query is too short for several
        count = min(len(self), max(CANDIDATES * top, FEWEST_CANDIDATES))
        found = np.empty(0, np.int64)
        if count:
            found = self._index.search(vector[None], count)[1][0]
        candidates = np.concatenate([np.sort(found[found >= 0]), np.arange(len(self), len(rows))])
        order, products = exact.search(rows[candidates], vector, top)
        return candidates[order], products


def build(rows: np.ndarray) -> Clusters:
    """Group rows (N, E) into min(4 * sqrt(N), N / ROWS_PER_CLUSTER) clusters, but at least one.

    The result is the same for the same rows. Raises InputError if the extra `approximate` is not
    installed.
    """
    faiss = engine()
    count, size = rows.shape
    clusters = max(1, min(int(4 * count**0.5), count // ROWS_PER_CLUSTER))
    quantizer = faiss.IndexFlatIP(size)
    inner = faiss.METRIC_INNER_PRODUCT
    kind = faiss.ScalarQuantizer.QT_8bit
    index = faiss.IndexIVFScalarQuantizer(quantizer, size, clusters, kind, inner)
    index.nprobe = PROBES
    index.cp.min_points_per_centroid = 1  # an index of a few rows has one cluster
    if count:
        chosen = np.random.default_rng(0).permutation(count)[: ROWS_PER_CLUSTER * clusters]
        index.train(rows[np.sort(chosen)].astype(np.float32))
    for first in range(0, count, BLOCK):
        index.add(rows[first : first + BLOCK].astype(np.float32))
    return Clusters(index)


def read(path: Path, dimensions: int) -> Clusters:
    """Read clusters of rows with `dimensions` (E) values.

    Raises InputError if the extra `approximate` is not installed, or if the file is damaged.
    """
    faiss = engine()
    try:
        index = faiss.read_index(str(path))
        if index.d != dimensions:
            raise ValueError(f"its rows have {index.d} dimensions, expected {dimensions}")
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"{path} is damaged: {error}; delete it and run captioner index --approximate again"
        ) from error
    return Clusters(index)


def engine() -> Any:
    """Return the module faiss; raise InputError if the extra `approximate` is not installed."""
    try:
        import faiss
    except ImportError as error:
        raise InputError(
            "approximate search needs faiss; run pip install 'captioner[approximate]'"
        ) from error
    return faiss
