"""`captioner index`: embed images, and add them to an index or remove them from it.

Shapes: n images, E dimensions.
"""

import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from ..checkpoints import checkpoint, hub
from ..checkpoints.runs import CHECKPOINTS
from ..console import note, progress_bar
from ..data.image_paths import find_images
from ..data.storage import files as storage
from ..data.storage.location import Location
from ..devices import pick_device
from ..errors import InputError
from ..options import Options, check_at_least, option
from ..prefetch import WORKERS, load_ahead
from ..retrieval import approximate
from ..retrieval.index_files import SKIPPED
from ..retrieval.index_writer import IndexWriter, open_writer

if TYPE_CHECKING:
    from ..data.sources import Source
    from ..linker import Linker
    from ..vision.feature_store import FeatureStore, Runtime
    from .index_rows import ImageRows

BLOCK = 512  # images embedded and written at once; lost if the process is killed


@dataclass(frozen=True)
class IndexOptions(Options):
    """The feature store, batch size, threads, device and approximate search."""

    cache: Path = option(CHECKPOINTS / ".cache", "directory of stored encoder features")
    batch_size: int = option(64, "number of images or texts per batch")
    workers: int = option(WORKERS, "number of threads that prefetch images")
    device: str | None = option(None, "cpu, cuda, cuda:N or mps [cuda if available]")
    approximate: bool = option(False, "also prepare approximate search (extra: approximate)")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "batch_size")
        check_at_least(self, 0, "workers")
        if self.approximate:
            approximate.engine()  # a missing extra shows before images are embedded


@dataclass
class _Change:
    """The changes of a run: rows to keep, and images to embed with their stamps.

    removed: number of images that no longer exist or cannot be accessed. skipped: a record for each
    image without a row.
    """

    kept: list[int] = field(default_factory=list)
    contents: dict[str, str] = field(default_factory=dict)  # path by hash, of images with a row
    new: dict[str, bytes] = field(default_factory=dict)
    removed: int = 0
    skipped: list[dict[str, str]] = field(default_factory=list)


def index_images(path: Path, sources: Sequence[str], output: Path, options: IndexOptions) -> None:
    """Add the images found in the sources to the index `output`, creating it if necessary.

    path: a run, a checkpoint or a repository on the hub. sources: as in `find_images`; "-" reads
    paths from standard input. Images of the index that no longer exist or cannot be accessed are
    removed, and those that have changed are embedded again. Of images with identical content, only
    one has a row. Duplicates and unreadable images are printed and listed in skipped.jsonl; after
    the last image, an InputError reports the number of unreadable ones.
    """
    images = find_images(sources, sys.stdin.buffer if "-" in sources else ())
    local = hub.local(path)
    linker, store, runtime = _load(local, options)
    name = hub.name_of(path)
    size, shape = linker.model.dimensions, linker.region_shape
    with open_writer(output, name, checkpoint.identity(local), size, regions=shape) as writer:
        change = _compare(writer, [_absolute(image) for image in images])
        writer.keep(change.kept)
        added = 0
        with progress_bar(total=len(change.new), unit="image") as bar:
            for block in _blocks(change.new):
                unique = _without_duplicates(block, change)
                embedded, readable = _embed(linker, store, runtime, list(unique), change)
                entries = [_entry(image, change.new[image], unique[image]) for image in readable]
                writer.append(embedded.rows, entries, embedded.regions)
                added += len(readable)
                bar.update(len(block))
        count = finish(writer, change.skipped, options)
    _report(output, count, added, change)


def finish(writer: IndexWriter, skipped: Sequence[Mapping[str, Any]], options: IndexOptions) -> int:
    """Finish writing an index, and prepare approximate search if asked to; return the row count."""
    count = writer.finish(skipped)
    if options.approximate:
        writer.cluster()
    elif writer.lost_clusters:
        note(
            "note: the index was rewritten, so approximate search is no longer possible; pass "
            "--approximate to prepare it again"
        )
    return count


def _load(path: Path, options: IndexOptions) -> "tuple[Linker, FeatureStore, Runtime]":
    from ..linker import Linker
    from ..vision.feature_store import FeatureStore, Runtime

    linker = Linker.from_pretrained(path, options.device)
    encoder = linker.model.encoder
    if encoder is None:
        raise InputError(
            f"images cannot be indexed: {path} was trained with --image-vectors and has no "
            "encoder; train a model without --image-vectors"
        )
    store = FeatureStore(options.cache, encoder, linker.transform)
    runtime = Runtime(pick_device(options.device), options.workers, options.batch_size)
    return linker, store, runtime


def _absolute(image: str) -> str:
    """Return the absolute path of an image, without following symbolic links; URLs are kept."""
    return image if isinstance(storage.parse_location(image), Location) else os.path.abspath(image)


def _compare(writer: IndexWriter, given: Sequence[str]) -> _Change:
    """Compare the index with the files; an indexed image that has changed is treated as new."""
    change = _Change()
    for row, entry in enumerate(writer.entries()):
        image = entry["image"]
        stamp = _stamp(image)
        if stamp is not None and _hex(stamp) == entry["stamp"]:
            change.kept.append(row)
            change.contents[entry["content"]] = image
        elif stamp is not None:
            change.new[image] = stamp
        else:
            change.removed += 1
    lost = [entry["image"] for entry in writer.recovered if _stamp(entry["image"]) is not None]
    indexed = set(change.contents.values())
    for image in [*lost, *given]:
        if image not in indexed:
            change.new.setdefault(image, _stamp(image) or b"")
    return change


def _stamp(image: str) -> bytes | None:
    """Return the stamp of an image; None if the file is missing or cannot be accessed."""
    try:
        return storage.stamp(storage.parse_location(image))
    except (OSError, InputError):
        return None


def _hex(stamp: bytes) -> str:
    return hashlib.sha256(stamp).hexdigest()[:32]


def _blocks(images: Iterable[str]) -> Iterator[list[str]]:
    listed = list(images)
    for first in range(0, len(listed), BLOCK):
        yield listed[first : first + BLOCK]


def _without_duplicates(images: Sequence[str], change: _Change) -> dict[str, str]:
    """Return the content hash of each image whose content has no row yet; report the others.

    The hash is an empty string if the image cannot be read.
    """
    unique = {}
    for image in images:
        content = _content(image)
        if content in change.contents:
            first = change.contents[content]
            change.skipped.append({"image": image, "duplicate_of": first})
            note(f"{image!r}: same content as {first!r}")
            continue
        if content:
            change.contents[content] = image
        unique[image] = content
    return unique


def _content(image: str) -> str:
    """Return a hash of the file's content; an empty string if it cannot be read."""
    place = storage.parse_location(image)
    try:
        if isinstance(place, Location) or storage.container(place) != place:
            return hashlib.sha256(storage.read(place)).hexdigest()[:32]
        if not os.path.isfile(place):  # a pipe would block
            return ""
        with place.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:32]
    except (OSError, InputError):
        return ""


def _embed(
    linker: "Linker",
    store: "FeatureStore",
    runtime: "Runtime",
    images: list[str],
    change: _Change,
) -> "tuple[ImageRows, list[str]]":
    """Return the rows of the readable images, and the readable images; report the others.

    The feature store writes a segment completely or not at all, so the images are checked one by
    one only if an error occurs.
    """

    def embed(readable: Sequence[str]) -> "ImageRows":
        from ..data.sources import ImageSource
        from .index_rows import embed_for_index

        places = [storage.parse_location(image) for image in readable]
        files = ImageSource(places, linker.transform)
        features: Source = files
        if readable:
            features = store.open_files(files, runtime, linker.model.features)
        return embed_for_index(linker, features, len(readable), runtime.batch_size)

    try:
        return embed(images), images
    except (InputError, OSError):
        checked = load_ahead(_reading_error, images, runtime.workers)
        errors = {image: e for image, e in zip(images, checked, strict=True) if e}
        if not errors:  # of the store, not of an image
            raise
    for image, message in errors.items():
        change.skipped.append({"image": image, "error": message})
        tqdm.write(message, file=sys.stderr)
    readable = [image for image in images if image not in errors]
    return embed(readable), readable


def _reading_error(image: str) -> str:
    """Return why an image cannot be read; an empty string if it can be read."""
    from ..data.images import load_image

    try:
        load_image(image)
    except InputError as error:
        return str(error)
    return ""


def _entry(image: str, stamp: bytes, content: str) -> dict[str, Any]:
    place = storage.parse_location(image)
    in_tar = storage.container(place) != place
    size = storage.size(place) if in_tar else os.path.getsize(image)
    return {"image": image, "size": size, "stamp": _hex(stamp), "content": content}


def _report(output: Path, count: int, added: int, change: _Change) -> None:
    """Print the changes; raise InputError if an image could not be read."""
    print(
        f"index: {output}, {count:,} images: {added:,} embedded, {len(change.kept):,} unchanged, "
        f"{change.removed:,} removed"
    )
    failed = sum("error" in each for each in change.skipped)
    listed = f"listed in {output / SKIPPED}"
    if duplicates := len(change.skipped) - failed:
        print(f"duplicates: {duplicates:,}, {listed}")
    if failed:
        total = len(change.kept) + len(change.new)
        raise InputError(
            f"{failed:,} of {total:,} images could not be indexed; {output / SKIPPED} lists them "
            "and the reasons"
        )
