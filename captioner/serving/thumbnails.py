"""Thumbnails of the images of an index: creating them, and storing them in a directory.

The service sends only thumbnails, never the original files of an index.
"""

import hashlib
import io
import logging
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from PIL import Image

from ..atomic_io import atomic_write, lock_file
from ..data.images import load_reduced
from ..data.storage import files as storage
from ..data.storage.location import Location
from ..errors import InputError

SIDE, QUALITY = 320, 80  # maximum side in pixels, and JPEG quality
KEPT_SHARE = 0.9  # of the limit is kept when thumbnails are deleted, so that this happens rarely

log = logging.getLogger(__name__)


class ThumbnailStore:
    """A directory of JPEG files, stored by key, whose total size is limited to `max_bytes`.

    The oldest files are deleted to make room. Only one process at a time writes to the directory;
    others only read it. An unwritable directory is not an error: nothing is stored.
    """

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self.directory, self.max_bytes = directory, max_bytes
        self._changing = threading.Lock()
        self._total: int | None = None  # bytes of all files; None before the first write
        self._lock: IO[str] | None = None
        self._writable = True

    def read(self, key: str) -> bytes | None:
        """Return a thumbnail; None if it is not stored, or if its file is empty."""
        try:
            return self._path(key).read_bytes() or None
        except OSError:
            return None

    def write(self, key: str, content: bytes) -> None:
        """Store a thumbnail, unless it is larger than the limit or nothing can be written."""
        with self._changing:
            if not self._writable or len(content) > self.max_bytes:
                return
            try:
                if self._total is None and not self._open():
                    return
                assert self._total is not None
                if self._total + len(content) > self.max_bytes:
                    self._make_room(len(content))
                path = self._path(key)
                old = path.stat().st_size if path.exists() else 0
                atomic_write(path, content)
                self._total += len(content) - old
            except OSError as error:
                self._stop(f"{error.strerror or error}")

    def close(self) -> None:
        """Stop writing, and release the directory so that other processes can write to it."""
        with self._changing:
            if self._lock:
                self._lock.close()
            self._lock, self._total, self._writable = None, None, False

    def _open(self) -> bool:
        """Lock the directory, delete leftovers of a killed process and add up the sizes of files.

        Returns False if another process has locked the directory.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        self._lock = (self.directory / ".lock").open("w")
        if not lock_file(self._lock):
            self._lock.close()
            self._lock = None
            self._stop("another process is writing to it")
            return False
        for part in self.directory.glob("*/.*.part"):
            part.unlink(missing_ok=True)
        self._total = sum(size for _, size, _ in self._files())
        if self._total > self.max_bytes:
            self._make_room(0)
        return True

    def _stop(self, reason: str) -> None:
        self._writable = False
        log.warning("thumbnails are not stored in %s: %s", self.directory, reason)

    def _make_room(self, needed: int) -> None:
        """Delete the oldest files to free `needed` bytes.

        At least a tenth of the limit is free afterwards.
        """
        kept = min(KEPT_SHARE * self.max_bytes, self.max_bytes - needed)
        files = sorted(self._files())
        total = sum(size for _, size, _ in files)
        for _, size, path in files:
            if total <= kept:
                break
            path.unlink(missing_ok=True)
            total -= size
        self._total = total

    def _files(self) -> list[tuple[int, int, Path]]:
        """Return the modification time (ns), size (bytes) and path of each file."""
        found = []
        for path in self.directory.glob("??/*.jpg"):
            with suppress(FileNotFoundError):
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_size, path))
        return found

    def _path(self, key: str) -> Path:
        return self.directory / key[:2] / f"{key[2:]}.jpg"


def thumbnail_key(entry: dict[str, Any]) -> str:
    """Return the key of an image's thumbnail, 32 hexadecimal digits, given its line in the index.

    The key changes when the indexed content changes.
    """
    parts = (entry["image"], entry.get("content", ""), entry.get("stamp", ""), SIDE, QUALITY)
    text = "\0".join(map(str, parts))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def get_thumbnail(
    store: ThumbnailStore | None, entry: dict[str, Any], name: str, max_pixels: int
) -> tuple[bytes, bool]:
    """Return the thumbnail of an image, and whether it shows the image as it was indexed.

    store: None stores nothing. name: how error messages refer to the image. max_pixels: maximum
    number of pixels in the image. If the image has changed since it was indexed, its thumbnail is
    not stored. Raises InputError if the image cannot be read; the reason, which may contain paths,
    is only logged.
    """
    key, image = thumbnail_key(entry), entry["image"]
    if store and (stored := store.read(key)) is not None:
        return stored, True
    try:
        content = _encode(load_reduced(image, SIDE, max_pixels))
        unchanged = _is_unchanged(entry)
    except (InputError, OSError) as error:
        log.warning("thumbnail of %s cannot be created: %s", image, error)
        raise InputError(f"{name} cannot be read") from error
    if store and unchanged:
        store.write(key, content)
    return content, unchanged


def _encode(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY, optimize=True)
    return file.getvalue()


def _is_unchanged(entry: dict[str, Any]) -> bool:
    """Return whether an image has the stamp, or else the content, that it had when indexed.

    Images without a stamp in their line of the index count as unchanged.
    """
    if "stamp" not in entry:
        return True
    place = storage.parse_location(entry["image"])
    if hashlib.sha256(storage.stamp(place)).hexdigest()[:32] == entry["stamp"]:
        return True
    if isinstance(place, Location) or storage.container(place) != place:
        content = storage.read(place)
    else:
        content = storage.read_file(place)
    return hashlib.sha256(content).hexdigest()[:32] == entry.get("content")
