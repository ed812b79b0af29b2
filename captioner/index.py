"""Index: search the embeddings of many images or texts by vectors and queries."""

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .checkpoints import checkpoint as checkpoints
from .checkpoints import hub
from .errors import InputError, refuse_path
from .linker import Linker
from .options import at_least_one
from .regions import diversity, spatial
from .reranker import Reranker
from .retrieval import approximate as approximate_search
from .retrieval import exact
from .retrieval.index_files import (
    KINDS,
    MANIFEST,
    IndexFiles,
    clusters_path,
    is_index,
    open_files,
)
from .retrieval.painting import Layer, painted_scores
from .retrieval.query import Query, Term, parse
from .retrieval.region_rows import unpack
from .retrieval.reranking import TOP

REGIONS_AT_ONCE = 128  # images; their regions are converted to float32


class Hit(NamedTuple):
    """A search result.

    item: path or URL of an image, or a text. score: its cosine similarity to the query, in [-1, 1],
    or the dot product of its embedding and the query's unit vector if the model was trained with
    `--similarity dot`; after re-ranking, the score of `Reranker`; for a painting, the score of
    `Index.paint`.
    """

    item: str
    score: float

    @property
    def path(self) -> str:
        """The same as `item`, for hits in an index of images."""
        return self.item

    @property
    def text(self) -> str:
        """The same as `item`, for hits in an index of texts."""
        return self.item


class Index:
    """The embeddings of images or of texts, stored in a directory that `captioner index` wrote.

    Create one with `open`. An Index is a snapshot: open the directory again to include later
    changes. Several threads may search the same Index at the same time.
    """

    def __new__(cls, *args: Any, **_: Any) -> "Index":
        refuse_path(cls, args, "open")
        return super().__new__(cls)

    def __init__(
        self,
        files: IndexFiles,
        linker: Linker | Path,
        device: str | None,
        clusters: approximate_search.Clusters | None = None,
    ) -> None:
        """Wrap the files of an index; `open` is the usual way to create an Index."""
        self._files, self._linker, self._device = files, linker, device
        self._clusters = clusters

    @classmethod
    def open(
        cls,
        directory: str | Path,
        linker: Linker | str | Path | None = None,
        *,
        device: str | None = None,
        approximate: bool = False,
    ) -> "Index":
        """Open an index; the rows stay on disk and are read when they are searched.

        linker: the Linker that embeds queries, or the path of its checkpoint; None uses the
        checkpoint recorded in the index. A checkpoint is loaded on `device` for the first query
        that is not a vector. approximate: whether `search` compares a query only with rows of the
        nearest clusters, which `captioner index` writes with `--approximate`; this is faster for
        millions of rows, but some hits may be missing. Raises InputError if the directory is not
        an index, if it is damaged or truncated, if the embeddings of `linker` have a different
        number of dimensions or, for an approximate search, if there are no clusters or the extra
        `approximate` is not installed.
        """
        files = open_files(Path(directory))
        clusters = _read_clusters(files) if approximate else None
        size = files.manifest.dimensions
        if not isinstance(linker, Linker):
            return cls(files, Path(linker or files.manifest.checkpoint), device, clusters)
        if linker.model.dimensions != size:
            raise InputError(
                f"{directory} has {size} dimensions, but the linker has {linker.model.dimensions}; "
                f"use the checkpoint {files.manifest.checkpoint}"
            )
        return cls(files, linker, device, clusters)

    def __repr__(self) -> str:
        """Return the directory, the number of images or texts, and the number of dimensions."""
        size = self._files.manifest.dimensions
        return f"Index({self._files.directory}: {len(self):,} {self.kind}, {size} dimensions)"

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
        """Return the paths, URLs or texts of the given rows; other rows are not read.

        rows: row numbers from 0 to N - 1, in any order. Raises InputError for any other number.
        """
        chosen = [operator.index(row) for row in rows]
        for row in chosen:
            if not 0 <= row < len(self):
                raise InputError(
                    f"{self._files.directory} has {len(self):,} rows, counted from 0; got row {row}"
                )
        return [entry[KINDS[self.kind]] for entry in self._files.entries(chosen)]

    @property
    def checkpoint(self) -> str:
        """The path or hub repository of the checkpoint that embedded the rows."""
        return self._files.manifest.checkpoint

    @property
    def linker(self) -> Linker:
        """The linker that embeds queries; loaded on first use.

        Raises InputError if the checkpoint is missing, damaged, or not the one that was used to
        write the index.
        """
        if isinstance(self._linker, Path):
            path = hub.local(self._linker)
            if not path.exists():
                raise InputError(
                    f"{path}, the checkpoint that embeds the queries of {self._files.directory}, "
                    "does not exist; pass the new location of the checkpoint"
                )
            if checkpoints.identity(path) != self._files.manifest.weights:
                raise InputError(
                    f"{self._files.directory} was not written with the weights of {path}; "
                    "pass the checkpoint that was used to write it, or write the index again"
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
        """Return the `top` items with the highest scores for the query, best first; see `Hit`.

        query: as in `Linker.encode_query`, or a vector (E,) as an array or a list, which is scaled
        to norm 1. Items with equal scores are in the order of the rows. The search is exact
        unless the index was opened with `approximate`. reranker: scores the best max(`top`,
        `rerank_top`) items again, and determines the order and the scores of the result; the query
        must then be a single text for an index of images, and a single image for an index of texts.
        Raises InputError for an invalid query or vector, for a `top` or `rerank_top` that is not an
        integer of at least 1, for damaged rows, for an image to re-rank that cannot be read, and,
        unless the query is a vector, as `linker` does.
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
            if self._clusters is None:
                rows, scores = exact.search(self.rows, vector, top)
            else:
                rows, scores = self._clusters.search(self.rows, vector, top)
        except ValueError as error:
            raise InputError(
                f"{self._files.directory} is damaged: {error}; delete it and run captioner index "
                "again"
            ) from error
        return list(map(Hit, self.items(rows.tolist()), scores.tolist()))

    def _only_term(self, query: Any) -> Term:
        """Return the only term of a query; raise InputError if its results cannot be re-ranked."""
        parsed = parse(query) if isinstance(query, str) else query
        wanted = "a single phrase" if self.kind == "images" else "a single image"
        terms = parsed.terms if isinstance(parsed, Query) else ()
        if len(terms) != 1 or terms[0].weight < 0 or terms[0].is_image == (self.kind == "images"):
            given = parsed if isinstance(parsed, Query) else "a vector"
            raise InputError(
                f"re-ranking an index of {self.kind} needs {wanted} as the query, got {given}; "
                "change the query, or search without re-ranking"
            )
        return terms[0]

    def label_scores(self, labels: str | Sequence[str]) -> np.ndarray:
        """Return the probability that each image shows each label, (N, L), float32.

        labels: as in `Linker.labels`. Raises InputError for unknown words, and for an index of
        texts or of a model that is not spatial.
        """
        labels = [labels] if isinstance(labels, str) else list(labels)
        scores = [np.empty((0, len(labels)), np.float32)]
        for logits in self.label_logits(labels):
            with torch.inference_mode():
                reduced = spatial(self.linker.model).score_logits(logits)
            scores.append(reduced.sigmoid().cpu().numpy())
        return np.concatenate(scores)

    def label_maps(self, labels: str | Sequence[str]) -> Iterator[np.ndarray]:
        """Yield label maps (n, L, h, w), float32, in [0, 1], of successive blocks of images.

        Arguments and errors are as in `label_scores`.
        """
        for logits in self.label_logits(labels):
            yield logits.sigmoid().cpu().numpy()

    def label_logits(self, labels: str | Sequence[str]) -> Iterator[Tensor]:
        """Yield the logits (n, L, h, w) of the maps of labels, for blocks of images in order.

        They are on the linker's device. Arguments and errors are as in `label_scores`.
        """
        linker = self.linker
        model = spatial(linker.model)
        vectors = torch.from_numpy(linker.encode_texts(labels)).to(linker.device)
        for regions in self._regions():
            with torch.inference_mode():
                logits = model.map_logits(regions, vectors)
            yield logits

    def diversity(self) -> np.ndarray:
        """Return the variance of each image's region embeddings (N,), in [0, 1].

        It is 0 if all regions of the image have the same embedding. Raises InputError for an index
        of texts or of a model that is not spatial.
        """
        blocks = [diversity(regions).cpu().numpy() for regions in self._regions()]
        return np.concatenate([np.empty(0, np.float32), *blocks])

    def paint(
        self, layers: Sequence[Layer], query: str | Query | None = None, top: int = 10
    ) -> list[Hit]:
        """Return the `top` images that match a painting best, best first.

        Scores and errors are as in `paint_scores`. Raises InputError, too, for a `top` that is not
        an integer of at least 1.
        """
        top = at_least_one(top, "top")
        scores = self.paint_scores(layers, query)
        order = np.argsort(-scores, kind="stable")[:top]
        return list(map(Hit, self.items(order.tolist()), scores[order].tolist()))

    def paint_scores(
        self,
        layers: Sequence[Layer],
        query: str | Query | None = None,
        *,
        embed_images: Callable[[Sequence[str]], np.ndarray] | None = None,
    ) -> np.ndarray:
        """Return how well each image fits a painting, (N,), float64.

        The score of an image is that of `painted_scores`; a query, if any, adds weight * value for
        each of its terms. The value of a text term is the probability that the image shows the
        text, as in `label_scores`; the value of an image term is its cosine similarity to the
        image. embed_images: as in `Linker.encode_query`. Raises InputError for an empty painting,
        unknown words or an invalid query, and for an index of texts or of a model that is not
        spatial.
        """
        if not layers:
            raise InputError("nothing is painted; paint at least one word")
        encoder = spatial(self.linker.model).encoder
        blocks = self.label_maps([layer.word for layer in layers])
        parts = [painted_scores(maps, layers, encoder.offset) for maps in blocks]
        scores: np.ndarray = np.concatenate([np.empty(0), *parts])
        if query is None:
            return scores
        parsed = parse(query) if isinstance(query, str) else query
        scores += self._query_scores(parsed, embed_images or self.linker.encode_images)
        return scores

    def _query_scores(
        self, query: Query, embed_images: Callable[[Sequence[str]], np.ndarray]
    ) -> np.ndarray:
        """Return each image's weighted sum (N,) of the values of a query's terms."""
        texts = [term for term in query.terms if not term.is_image]
        scores = np.zeros(len(self))
        if texts:
            labels = self.label_scores([term.text for term in texts])
            scores += labels @ np.array([term.weight for term in texts])
        for term in query.terms:
            if term.is_image:
                (row,) = embed_images([term.text])
                scores += term.weight * (np.asarray(self.rows, np.float32) @ row)
        return scores

    def _regions(self) -> Iterator[Tensor]:
        """Yield the region embeddings (n, K, E, h, w) of blocks of images, on the linker's device.

        Raises InputError if the index has none: it contains texts, or its model is not spatial.
        """
        files, shape = self._files, self._files.manifest.region_shape
        if files.regions is None or shape is None:
            raise InputError(
                f"{files.directory} has no region embeddings; write an index of images with a "
                "model trained with --system spatial"
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


def _read_clusters(files: IndexFiles) -> approximate_search.Clusters:
    path = clusters_path(files.directory, files.manifest)
    if not path.exists():
        raise InputError(
            f"{files.directory} is not prepared for approximate search; run captioner index "
            "with --approximate, or search exactly"
        )
    return approximate_search.read(path, files.manifest.dimensions)


def find_last_index(directory: Path) -> Path:
    """Return the most recently written index in a directory; raise InputError if there is none."""
    found = [path for path in directory.iterdir() if path.is_dir() and is_index(path)]
    if not found:
        where = "the working directory" if directory == Path() else directory
        raise InputError(f"no index found in {where}; pass one, or write one with captioner index")
    return max(found, key=lambda path: (path / MANIFEST).stat().st_mtime)
