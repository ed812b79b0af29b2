"""Collections: the indexes that the service searches, and their hits as JSON.

HTTP is handled in `search_api`, reading of lines in `snapshots`, thumbnails in `thumbnails`, and
vectors in URLs in `vectors`.

Shapes: N rows, E dimensions, B image terms.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..errors import InputError
from ..linker import Linker
from ..retrieval import exact
from ..retrieval.index_files import MANIFEST, open_files
from ..retrieval.painting import Layer
from ..retrieval.query import Query, Term, parse
from .labelled_index import LabelledIndex
from .labels import check_words
from .snapshots import Damaged, Snapshot, reading
from .vectors import write_vector

MAX_HITS = 100_000  # that can be requested: more would not fit into the height of a page
MAX_IMAGES = 16  # in a query, because finding each by its name reads all lines of the index
MAX_KNOWN = 200  # labels of the training data in the description of an index
UPLOADED = ""  # the text of the term of an uploaded image; no query contains it
T = TypeVar("T")
Sign = Callable[[int, dict[str, Any]], str]  # the address of the thumbnail of a row


@dataclass(frozen=True)
class SearchRequest:
    """What to search a collection for, and which hits to return.

    query: terms as on the command line, except that image:NAME names an image of the collection;
    may be empty. image: the vector (E,) of an uploaded image, which becomes the first term, or
    None. Without terms and layers, the hits are all rows in order. offset: number of hits to skip.
    limit: maximum number of hits. layers: the layers of a painted search, which is scored as by
    `Index.paint`; empty for other searches.
    """

    query: str = ""
    image: np.ndarray | None = None
    offset: int = 0
    limit: int = 60
    layers: tuple[Layer, ...] = ()


class Collection:
    """An index and the linker that embeds its queries; the index is reread when it changes.

    name: the name in requests. weights: SHA-256 of the linker's weights. Several threads may use a
    Collection at the same time.
    """

    def __init__(self, name: str, directory: Path, linker: Linker, weights: str) -> None:
        """Open an index; raise InputError if it is damaged or was written with other weights."""
        self.name, self.linker, self.weights = name, linker, weights
        self._directory = directory
        self._lock = threading.Lock()
        self._signature, self._snapshot = self._open()

    def snapshot(self) -> Snapshot:
        """Return a snapshot of the current files; raise Damaged if they cannot be read."""
        return self.read(lambda snapshot: snapshot)

    def read(self, work: Callable[[Snapshot], T]) -> T:
        """Call `work` with a snapshot of the current files, and return its result.

        `work` is called a second time if the index was rewritten while its files were being read.
        Raises Damaged if the index cannot be read, and any other exception that `work` raises.
        """
        for attempt in range(2):
            try:
                return work(self._refresh())
            except FileNotFoundError as error:
                if attempt:
                    raise Damaged(str(error)) from error
        raise AssertionError

    def _refresh(self) -> Snapshot:
        with self._lock, reading():
            if _signature(self._directory) != self._signature:
                self._signature, self._snapshot = self._open()
            return self._snapshot

    def _open(self) -> tuple[tuple[int, ...], Snapshot]:
        signature = _signature(self._directory)  # before the files, so that no change is missed
        files = open_files(self._directory)
        if files.manifest.weights != self.weights:
            raise InputError(
                f"{self._directory} was rewritten with another checkpoint; restart the service"
            )
        version = f"{files.manifest.generation}-{len(files.rows)}-{signature[0]:x}"
        return signature, Snapshot(files, version, LabelledIndex(files, self.linker))

    def search(self, request: SearchRequest, sign: Sign) -> dict[str, Any]:
        """Return the hits of a search as JSON; `search_schemas` describes the keys.

        sign: function that returns the URL of a row's thumbnail, given the row and its line.
        Raises InputError for an invalid query, for unknown words, and for a painting if the index
        has no regions; Damaged if the index cannot be read.
        """
        return self.read(lambda snapshot: self._search(snapshot, request, sign))

    def rows(self, rows: Sequence[int], sign: Sign) -> dict[str, Any]:
        """Return rows of the index as hits without scores, as JSON.

        sign: as in `search`. Raises IndexError for a row that does not exist, and Damaged if the
        index cannot be read.
        """

        def describe(snapshot: Snapshot) -> dict[str, Any]:
            if (last := max(rows)) >= len(snapshot.files.rows):
                count = len(snapshot.files.rows)
                raise IndexError(
                    f"row {last} of {self.name} does not exist; it has {count:,} rows, counted "
                    "from 0"
                )
            entries = zip(rows, snapshot.entries(rows), strict=True)
            return {
                "index": self.name,
                "version": snapshot.version,
                "hits": [_hit(snapshot, row, entry, None, sign) for row, entry in entries],
            }

        return self.read(describe)

    def _search(self, snapshot: Snapshot, request: SearchRequest, sign: Sign) -> dict[str, Any]:
        terms = parse(request.query).terms if request.query.strip() else ()
        named = self._find_images(snapshot, terms)
        rows, scores = self._rank(snapshot, terms, named, request)
        entries = snapshot.entries(rows)
        return {
            "index": self.name,
            "kind": snapshot.kind,
            "version": snapshot.version,
            "query": str(Query(terms)) if terms else "",
            "image": None if request.image is None else write_vector(request.image, self.weights),
            "terms": [_describe(snapshot, term, named, sign) for term in terms],
            "total": min(len(snapshot.files.rows), MAX_HITS),
            "rows": len(snapshot.files.rows),
            "offset": request.offset,
            "hits": [
                _hit(snapshot, row, entry, score, sign)
                for row, entry, score in zip(rows, entries, scores, strict=True)
            ],
        }

    def _find_images(self, snapshot: Snapshot, terms: Sequence[Term]) -> dict[str, int]:
        """Return the rows of the images in a query, by name.

        Each name is looked up only once, because a look-up reads all lines. Raises InputError for a
        name that is not in the index, and for more than MAX_IMAGES names.
        """
        names = dict.fromkeys(term.text for term in terms if term.is_image)
        if len(names) > MAX_IMAGES:
            raise InputError(
                f"the query contains {len(names)} images; at most {MAX_IMAGES} are accepted; omit "
                "some of them"
            )
        found = {}
        for name in names:
            row = snapshot.find(name)
            if row is None:
                raise InputError(
                    f"image:{name} is not an image of {self.name}; use the name of a hit, or send "
                    "the image itself"
                )
            found[name] = row
        return found

    def _rank(
        self,
        snapshot: Snapshot,
        terms: Sequence[Term],
        named: Mapping[str, int],
        request: SearchRequest,
    ) -> tuple[list[int], Sequence[float | None]]:
        """Return the rows of the hits and their scores.

        Without terms, an uploaded image and layers, these are rows in order, whose scores are None.
        """
        matrix = snapshot.files.rows
        last = min(request.offset + request.limit, len(matrix), MAX_HITS)
        if not terms and request.image is None and not request.layers:
            rows = list(range(request.offset, last))
            return rows, [None] * len(rows)
        embedded = {name: self._stored_row(matrix, row) for name, row in named.items()}
        if request.image is not None:
            embedded[UPLOADED] = self._uploaded_row(request.image)
            terms = (Term(UPLOADED, is_image=True), *terms)
        query = Query(tuple(terms))

        def embed_images(names: Sequence[str]) -> np.ndarray:
            return np.stack([embedded[name] for name in names])

        if request.layers:
            scores = self._paint(snapshot, request.layers, query, embed_images)
            found = np.argsort(-scores, kind="stable")[:last]
            best = scores[found]
        else:
            vector = self.linker.encode_query(query, embed_images=embed_images)
            try:
                found, best = exact.search(matrix, vector, last)
            except ValueError as error:
                raise Damaged(f"{self._directory}: {error}") from error
        return found[request.offset :].tolist(), best[request.offset :].tolist()

    def _paint(
        self,
        snapshot: Snapshot,
        layers: Sequence[Layer],
        query: Query,
        embed_images: Callable[[Sequence[str]], np.ndarray],
    ) -> np.ndarray:
        """Return the scores (N,) of a painted search."""
        check_regions(self.name, snapshot)
        words = [layer.word for layer in layers]
        words += [term.text for term in query.terms if not term.is_image]
        check_words(self.linker, words)
        scores = snapshot.index.paint_scores(
            layers, query if query.terms else None, embed_images=embed_images
        )
        if not np.isfinite(scores).all():
            raise Damaged(f"{self._directory}: a score is not finite")
        return scores

    def _uploaded_row(self, uploaded: np.ndarray) -> np.ndarray:
        if uploaded.shape != (size := self.linker.model.dimensions,):
            raise InputError(
                f"the image vector has {len(uploaded)} dimensions, but {self.name} has "
                f"{size}; send the image again"
            )
        return uploaded.astype(np.float32)

    def _stored_row(self, matrix: np.ndarray, row: int) -> np.ndarray:
        unit: np.ndarray = matrix[row].astype(np.float32)
        if not np.isfinite(unit).all():
            raise Damaged(f"{self._directory}: row {row} contains values that are not finite")
        return unit


def describe_index(name: str, snapshot: Snapshot) -> dict[str, Any]:
    """Return the description of an index as JSON; `search_schemas` describes the keys."""
    has_regions = snapshot.index.has_regions
    labels = snapshot.index.linker.known_labels.names if has_regions else ()
    return {
        "name": name,
        "kind": snapshot.kind,
        "rows": len(snapshot.files.rows),
        "has_regions": has_regions,
        "labels": list(labels[:MAX_KNOWN]),
    }


def check_regions(name: str, snapshot: Snapshot) -> None:
    """Raise InputError if an index, called `name`, has no region embeddings."""
    if not snapshot.index.has_regions:
        raise InputError(
            f"{name} has no region embeddings; choose an index of images that was written with a "
            "model trained with --system spatial"
        )


def _describe(
    snapshot: Snapshot, term: Term, named: Mapping[str, int], sign: Sign
) -> dict[str, Any]:
    thumbnail = None
    if term.is_image:
        row = named[term.text]
        thumbnail = sign(row, snapshot.entries([row])[0])
    written = str(Query((term,)))
    return {
        "term": written if term.weight < 0 else f"+ {written}",
        "kind": "image" if term.is_image else "text",
        "text": term.text,
        "weight": term.weight,
        "thumbnail": thumbnail,
    }


def _hit(
    snapshot: Snapshot, row: int, entry: dict[str, Any], score: float | None, sign: Sign
) -> dict[str, Any]:
    text = entry.get("text")
    is_text = isinstance(text, str)
    name = "" if is_text else snapshot.name(entry["image"])
    term = Term(text if isinstance(text, str) else name, is_image=not is_text)
    return {
        "row": row,
        "kind": "text" if is_text else "image",
        "name": None if is_text else name,
        "text": text if is_text else None,
        "term": str(Query((term,))),
        "score": None if score is None else round(score, 4),
        "thumbnail": None if is_text else sign(row, entry),
    }


def _signature(directory: Path) -> tuple[int, ...]:
    """Return numbers of the manifest file that change whenever it is written."""
    status = (directory / MANIFEST).stat()
    return status.st_mtime_ns, status.st_ino, status.st_size
