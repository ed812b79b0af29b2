"""Collections: the indexes that the service searches, and their hits as JSON.

HTTP is left to `search_api`, thumbnails to `thumbnails`, vectors as text to `vectors`.

Shapes: N rows, E dimensions, B image terms.
"""

import json
import os
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..linker import Linker
from ..retrieval import exact
from ..retrieval.index_files import MANIFEST, IndexFiles, open_files
from ..retrieval.query import Query, Term, parse
from .vectors import write_vector

MAX_HITS = 100_000  # that can be requested: more would not fit into the height of a page
UPLOADED = ""  # the text of the term of an uploaded image; no query contains it
Sign = Callable[[int, dict[str, Any]], str]  # the address of the thumbnail of a row


class Damaged(Exception):  # noqa: N818  the service's fault, not the client's
    """The files of an index cannot be read; the message contains their paths."""


@dataclass(frozen=True)
class SearchRequest:
    """What to search a collection for, and which hits to return.

    query: terms as on the command line, whose images are names of images in the collection; empty
    for none. image: the vector (E,) of an uploaded image, which is the first term; None for none.
    Without both, the hits are all rows in order. offset, limit: first hit and number of hits.
    """

    query: str = ""
    image: np.ndarray | None = None
    offset: int = 0
    limit: int = 60


@dataclass(frozen=True)
class Snapshot:
    """The files of an index as they were when they were opened.

    base: beginning of the paths of all images that their names omit. version: changes whenever the
    index is written.
    """

    files: IndexFiles
    base: str
    version: str

    @property
    def kind(self) -> str:
        """What the rows are: "images" or "texts"."""
        return self.files.manifest.kind

    def entry(self, row: int) -> dict[str, Any] | None:
        """Return the line of a row; None if there is no such row."""
        return next(self.files.entries([row])) if row < len(self.files.rows) else None

    def name(self, image: str) -> str:
        """Return the name by which an image is shown and can be used in queries."""
        return image.removeprefix(self.base)


class Collection:
    """An index with the linker that embeds its queries; reads the index again when it changes.

    name: the name in requests. weights: SHA-256 of the linker's weights. Several threads may use it.
    """

    def __init__(self, name: str, directory: Path, linker: Linker, weights: str) -> None:
        """Open an index; raise InputError if other weights wrote it."""
        self.name, self.linker, self.weights = name, linker, weights
        self._directory = directory
        self._lock = threading.Lock()
        self._signature, self._snapshot = self._read()

    def snapshot(self) -> Snapshot:
        """Return the files as they are now; raise Damaged if they cannot be read."""
        with self._lock:
            try:
                if _signature(self._directory) != self._signature:
                    self._signature, self._snapshot = self._read()
            except (InputError, OSError) as error:
                raise Damaged(str(error)) from error
            return self._snapshot

    def _read(self) -> tuple[tuple[int, ...], Snapshot]:
        signature = _signature(self._directory)  # before the files, so that no change is missed
        files = open_files(self._directory)
        if files.manifest.weights != self.weights:
            raise InputError(
                f"{self._directory} was written again with another checkpoint; restart the service"
            )
        version = f"{files.manifest.generation}-{len(files.rows)}-{signature[0]:x}"
        return signature, Snapshot(files, _common_base(files), version)

    def search(self, request: SearchRequest, sign: Sign) -> dict[str, Any]:
        """Return the hits of a search as JSON; `search_schemas` describes the keys.

        sign: function of a row and its line that returns the address of the row's thumbnail.
        Raises InputError for an invalid query, and Damaged if the index cannot be read.
        """
        for attempt in range(2):
            snapshot = self.snapshot()
            try:
                return self._search(snapshot, request, sign)
            except FileNotFoundError as error:  # the index has just been written again
                if attempt:
                    raise Damaged(str(error)) from error
        raise AssertionError

    def _search(self, snapshot: Snapshot, request: SearchRequest, sign: Sign) -> dict[str, Any]:
        terms = parse(request.query).terms if request.query.strip() else ()
        rows, scores = self._rank(snapshot, terms, request)
        entries = list(snapshot.files.entries(rows))
        return {
            "index": self.name,
            "kind": snapshot.kind,
            "version": snapshot.version,
            "query": str(Query(terms)) if terms else "",
            "image": None if request.image is None else write_vector(request.image, self.weights),
            "terms": [self._term(snapshot, term, sign) for term in terms],
            "total": min(len(snapshot.files.rows), MAX_HITS),
            "rows": len(snapshot.files.rows),
            "offset": request.offset,
            "hits": [
                _hit(snapshot, row, entry, score, sign)
                for row, entry, score in zip(rows, entries, scores, strict=True)
            ],
        }

    def _rank(
        self, snapshot: Snapshot, terms: Sequence[Term], request: SearchRequest
    ) -> tuple[list[int], Sequence[float | None]]:
        """Return the rows of the hits and their cosines; without terms, all rows and no cosines."""
        matrix = snapshot.files.rows
        last = min(request.offset + request.limit, len(matrix), MAX_HITS)
        if not terms and request.image is None:
            rows = list(range(request.offset, last))
            return rows, [None] * len(rows)

        def embed_images(names: Sequence[str]) -> np.ndarray:
            return np.stack([self._image_row(snapshot, name, request.image) for name in names])

        uploaded = () if request.image is None else (Term(UPLOADED, is_image=True),)
        query = Query((*uploaded, *terms))
        vector = self.linker.encode_query(query, embed_images=embed_images)
        if last <= request.offset:
            return [], []
        try:
            found, cosines = exact.search(matrix, vector, last)
        except ValueError as error:
            raise Damaged(f"{self._directory}: {error}") from error
        return found[request.offset :].tolist(), cosines[request.offset :].tolist()

    def _image_row(self, snapshot: Snapshot, name: str, uploaded: np.ndarray | None) -> np.ndarray:
        """Return the unit vector (E,) of an image of the collection or of the uploaded one."""
        if name == UPLOADED:
            assert uploaded is not None
            if uploaded.shape != (size := self.linker.model.dimensions,):
                raise InputError(
                    f"image has {len(uploaded)} dimensions, but {self.name} has {size}; send the "
                    "image again"
                )
            return uploaded.astype(np.float32)
        row = self._row(snapshot, name)
        if row is None:
            raise InputError(
                f"image:{name} is not an image of {self.name}; use the name of a hit, or send the "
                "image itself"
            )
        unit: np.ndarray = snapshot.files.rows[row].astype(np.float32)
        return unit

    def _row(self, snapshot: Snapshot, name: str) -> int | None:
        return None if snapshot.kind == "texts" else snapshot.files.find(snapshot.base + name)

    def _term(self, snapshot: Snapshot, term: Term, sign: Sign) -> dict[str, Any]:
        thumbnail = None
        if term.is_image and (row := self._row(snapshot, term.text)) is not None:
            thumbnail = sign(row, snapshot.entry(row) or {})
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
    """Return numbers that change whenever the manifest is written."""
    status = (directory / MANIFEST).stat()
    return status.st_mtime_ns, status.st_ino, status.st_size


def _common_base(files: IndexFiles) -> str:
    """Return the longest directory that contains all images, or the working directory if it does.

    It ends with a slash, or is empty. Lines are not parsed, because a million takes seconds.
    """
    if not len(files.rows) or "image" not in next(files.entries([0])):
        return ""
    end = int(files.starts[len(files.rows)])
    with files.lines.open("rb") as file:
        content = file.read(end)
    images: list[bytes] = re.findall(rb'"image": "((?:[^"\\]|\\.)*)"', content)
    first, last = min(images, default=b""), max(images, default=b"")
    same = 0
    while first[same : same + 1] == last[same : same + 1] != b"":
        same += 1
    base: str = json.loads(b'"' + first[: first.rfind(b"/", 0, same) + 1] + b'"')
    here = os.path.join(os.getcwd(), "")
    return here if base.startswith(here) else base
