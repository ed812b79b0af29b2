"""Index: search the embeddings of many images or texts by vectors and queries."""

import operator
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .checkpoints import checkpoint as checkpoints
from .checkpoints import hub
from .errors import InputError
from .linker import Linker
from .models.linking.spatial import SpatialEmbedding
from .options import at_least_one
from .regions import diversity, spatial
from .reranker import Reranker
from .retrieval import exact
from .retrieval.index_files import KINDS, MANIFEST, IndexFiles, is_index, open_files
from .retrieval.painting import Layer, painted_scores
from .retrieval.query import Query, Term, parse
from .retrieval.region_rows import unpack
from .retrieval.reranking import TOP

REGIONS_AT_ONCE = 128  # images; their regions are converted to float32


class Hit(NamedTuple):
    """A search result.

    item: path or URL of an image, or a text. score: its cosine similarity to the query, in [-1, 1].
    """

    item: str
    score: float

    @property
    def path(self) -> str:
        """The item of a hit in an index of images."""
        return self.item

    @property
    def text(self) -> str:
        """The item of a hit in an index of texts."""
        return self.item


class Index:
    """The embeddings of images or of texts, stored in a directory that `captioner index` wrote.

    Create one with `open`. An Index is a snapshot: open the directory again to see images or texts
    that were added or removed since. Several threads may search the same Index at the same time.
    """

    def __init__(self, files: IndexFiles, linker: Linker | Path, device: str | None) -> None:
        """Wrap the files of an index; `open` is the usual way to create an Index."""
        self._files, self._linker, self._device = files, linker, device

    @classmethod
    def open(
        cls,
        directory: str | Path,
        linker: Linker | str | Path | None = None,
        *,
        device: str | None = None,
    ) -> "Index":
        """Open an index; the rows stay on disk and are read when they are searched.

        linker: the Linker that embeds queries, or the path of its checkpoint; None uses the
        checkpoint recorded in the index. A checkpoint is loaded on `device` for the first query
        that is not a vector. Raises InputError if the directory is not an index, if it is damaged
        or truncated, or if the embeddings of `linker` have a different number of dimensions.
        """
        files = open_files(Path(directory))
        size = files.manifest.dimensions
        if not isinstance(linker, Linker):
            return cls(files, Path(linker or files.manifest.checkpoint), device)
        if linker.model.dimensions != size:
            raise InputError(
                f"{directory} has {size} dimensions, but the linker has {linker.model.dimensions}; "
                f"use the checkpoint {files.manifest.checkpoint}"
            )
        return cls(files, linker, device)

    def __len__(self) -> int:
        """Return the number of images or texts N."""
        return len(self._files.rows)

    @property
    def rows(self) -> np.ndarray:
        """The embeddings (N, E), float16, memory-mapped from the file."""
        return self._files.rows

    @property
    def kind(self) -> str:
        """What the index contains: "images" or "texts"."""
        return self._files.manifest.kind

    @property
    def paths(self) -> list[str]:
        """The paths or URLs of all images, in the order of the rows.

        Raises InputError for an index of texts.
        """
        return self._all("images", "paths")

    @property
    def texts(self) -> list[str]:
        """All texts, in the order of the rows; raises InputError for an index of images."""
        return self._all("texts", "texts")

    def _all(self, kind: str, name: str) -> list[str]:
        if self.kind != kind:
            raise InputError(
                f"{self._files.directory} contains {self.kind}, so it has no {name}; open an index "
                f"of {kind}"
            )
        return self.items(range(len(self)))

    def items(self, rows: Iterable[int]) -> list[str]:
        """Return the paths, URLs or texts of some rows; the others are not read.

        rows: from 0 to N - 1, in any order; InputError is raised for others.
        """
        chosen = [operator.index(row) for row in rows]
        for row in chosen:
            if not 0 <= row < len(self):
                raise InputError(f"{self._files.directory} has {len(self):,} rows, got row {row}")
        return [entry[KINDS[self.kind]] for entry in self._files.entries(chosen)]

    @property
    def checkpoint(self) -> str:
        """The path, or repository on the hub, of the checkpoint that embedded the rows."""
        return self._files.manifest.checkpoint

    @property
    def linker(self) -> Linker:
        """The linker that embeds queries; loaded on first use.

        Raises InputError if the checkpoint is missing or has changed since the index was written.
        """
        if isinstance(self._linker, Path):
            path = hub.local(self._linker)
            if not path.exists():
                raise InputError(
                    f"{path}, the checkpoint of {self._files.directory}, does not exist; pass its "
                    "new location as the checkpoint"
                )
            if checkpoints.identity(path) != self._files.manifest.weights:
                raise InputError(
                    f"{self._files.directory} was not written with the weights of {path}; "
                    "pass the checkpoint that it was written with, or write another index"
                )
            self._linker = Linker.from_pretrained(path, self._device)
        return self._linker

    def search(
        self,
        query: str | Query | np.ndarray | Sequence[float],
        top: int = 10,
        *,
        reranker: Reranker | None = None,
        rerank_top: int = TOP,
    ) -> list[Hit]:
        """Return the `top` items with the highest cosine similarity to the query, best first.

        query: as in `Linker.encode_query`, or a vector (E,) as an array or a list, which is scaled
        to norm 1. Items with equal scores are in the order of the rows. The search is exact.
        reranker: scores the first `rerank_top` items again, or the first `top` if `top` is larger;
        the query must then be a text if the index contains images, and an image if it contains
        texts. Raises InputError for an invalid query or vector, for a `top` that is
        not an integer of at least 1, and for damaged rows.
        """
        top, rerank_top = at_least_one(top, "top"), at_least_one(rerank_top, "rerank_top")
        if reranker is not None:
            term = self._only_term(query)
            hits = self.search(Query((term,)), max(top, rerank_top))
            if not hits:
                return hits
            items, cosines = [hit.item for hit in hits], [hit.score for hit in hits]
            if self.kind == "images":
                scores = reranker.score_images(term.text, items, cosines)
            else:
                scores = reranker.score_texts(term.text, items, cosines)
            order = np.argsort(-scores, kind="stable")[:top]
            return [Hit(items[i], float(scores[i])) for i in order]
        if not isinstance(query, str | Query):
            vector = self._unit_vector(np.asarray(query))
        else:
            vector = self.linker.encode_query(query)
        try:
            rows, scores = exact.search(self.rows, vector, top)
        except ValueError as error:
            raise InputError(
                f"{self._files.directory} is damaged: {error}; delete it and run captioner index "
                "again"
            ) from error
        return list(map(Hit, self.items(rows.tolist()), scores.tolist()))

    def _only_term(self, query: Any) -> Term:
        """Return the term of a query that can be re-ranked: a text for images, else an image."""
        parsed = parse(query) if isinstance(query, str) else query
        wanted = "a phrase" if self.kind == "images" else "an image"
        terms = parsed.terms if isinstance(parsed, Query) else ()
        if len(terms) != 1 or terms[0].weight < 0 or terms[0].is_image == (self.kind == "images"):
            given = parsed if isinstance(parsed, Query) else "a vector"
            raise InputError(
                f"re-ranking an index of {self.kind} needs {wanted} as the query, got {given}"
            )
        return terms[0]

    def label_scores(self, labels: str | Sequence[str]) -> np.ndarray:
        """Return how likely each image shows each label, (N, L), in [0, 1], float32.

        labels: as in `Linker.labels`. Raises InputError for unknown words, and for an index of a
        model that is not spatial.
        """
        vectors = self._label_vectors(labels)
        model = spatial(self.linker.model)
        scores = [
            model.score_logits(logits).sigmoid().cpu().numpy()
            for logits in self._map_logits(model, vectors)
        ]
        return np.concatenate([np.empty((0, len(vectors)), np.float32), *scores])

    def label_maps(self, labels: str | Sequence[str]) -> Iterator[np.ndarray]:
        """Yield the maps (n, L, h, w) of labels in [0, 1], float32, for blocks of images in order.

        Arguments and errors are as in `label_scores`.
        """
        vectors = self._label_vectors(labels)
        for logits in self._map_logits(spatial(self.linker.model), vectors):
            yield logits.sigmoid().cpu().numpy()

    def diversity(self) -> np.ndarray:
        """Return how much the regions of each image differ, (N,), in [0, 1].

        Raises InputError for an index of a model that is not spatial.
        """
        blocks = [diversity(regions).cpu().numpy() for regions in self._regions()]
        return np.concatenate([np.empty(0, np.float32), *blocks])

    def paint(
        self, layers: Sequence[Layer], query: str | Query | None = None, top: int = 10
    ) -> list[Hit]:
        """Return the `top` images that fit a painting best, the best first.

        The score of an image is that of `painted_scores`, plus the score of the query, if any: the
        sum over its terms of weight * value, where the value of a text is the probability that the
        image shows it, as in `label_scores`, and that of an image is its cosine. Raises InputError
        for an empty painting, unknown words, an invalid query, and for an index of a model that is
        not spatial.
        """
        top = at_least_one(top, "top")
        if not layers:
            raise InputError("nothing is painted; paint at least one word")
        encoder = spatial(self.linker.model).encoder
        blocks = self.label_maps([layer.word for layer in layers])
        parts = [painted_scores(maps, layers, encoder.offset) for maps in blocks]
        scores = np.concatenate([np.empty(0), *parts])
        if query is not None:
            scores = scores + self._query_scores(parse(query) if isinstance(query, str) else query)
        order = np.argsort(-scores, kind="stable")[:top]
        return list(map(Hit, self.items(order.tolist()), scores[order].tolist()))

    def _query_scores(self, query: Query) -> np.ndarray:
        """Return the scores (N,) of a query's terms, as in `paint`."""
        texts = [term for term in query.terms if not term.is_image]
        scores = np.zeros(len(self))
        if texts:
            labels = self.label_scores([term.text for term in texts])
            scores += labels @ np.array([term.weight for term in texts])
        for term in query.terms:
            if term.is_image:
                (row,) = self.linker.encode_images([term.text])
                scores += term.weight * (np.asarray(self.rows, np.float32) @ row)
        return scores

    def _label_vectors(self, labels: str | Sequence[str]) -> Tensor:
        linker = self.linker
        spatial(linker.model)
        return torch.from_numpy(linker.encode_texts(labels)).to(linker.device)

    def _map_logits(self, model: SpatialEmbedding, vectors: Tensor) -> Iterator[Tensor]:
        for regions in self._regions():
            with torch.inference_mode():
                yield model.map_logits(regions, vectors)

    def _regions(self) -> Iterator[Tensor]:
        """Yield the region embeddings (n, K, E, h, w) of blocks of images, on the linker's device.

        Raises InputError if the index has none.
        """
        files, shape = self._files, self._files.manifest.region_shape
        if files.regions is None or shape is None:
            raise InputError(
                f"{files.directory} has no region embeddings; write an index with a model trained "
                "with --system spatial"
            )
        device = self.linker.device
        for first in range(0, len(files.regions), REGIONS_AT_ONCE):
            yield unpack(files.regions[first : first + REGIONS_AT_ONCE], shape).to(device)

    def _unit_vector(self, vector: np.ndarray) -> np.ndarray:
        size = self.rows.shape[1]
        if vector.shape != (size,) or vector.dtype.kind not in "fiu":
            raise InputError(
                f"a query vector must be numeric with shape ({size},), got {vector.dtype} "
                f"{vector.shape}"
            )
        wide = vector.astype(np.float64)
        norm = np.linalg.norm(wide)
        if not 0 < norm < np.inf:
            raise InputError(f"a query vector must be finite and not zero, got norm {norm}")
        unit: np.ndarray = (wide / norm).astype(np.float32)
        return unit


def find_last_index(directory: Path) -> Path:
    """Return the most recently written index in a directory; raise InputError if there is none."""
    found = [path for path in directory.iterdir() if path.is_dir() and is_index(path)]
    if not found:
        where = "the working directory" if directory == Path() else directory
        raise InputError(f"no index found in {where}; pass one, or write one with captioner index")
    return max(found, key=lambda path: (path / MANIFEST).stat().st_mtime)
