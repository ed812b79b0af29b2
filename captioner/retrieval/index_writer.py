"""Writing indexes so that little work is lost if the process is killed.

Rows are appended first, then their lines. To remove rows, the files of the next generation are
written before the manifest refers to them, so that readers always find complete files. The files of
the previous generation are deleted only when the new manifest is on disk.
`index_files` describes the files.

Shapes: N rows, E dimensions.
"""

import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ..atomic_io import atomic_write, lock_file
from ..errors import InputError
from . import approximate
from .index_files import (
    HEADER,
    KINDS,
    MANIFEST,
    RECOVERED,
    SKIPPED,
    WITH_REGIONS,
    IndexFiles,
    Manifest,
    RegionShape,
    clusters_path,
    count_rows,
    is_index,
    lines_path,
    open_generation,
    parse_line,
    read_manifest,
    regions_path,
    rows_path,
)
from .line_file import LineFile

BLOCK = 4096  # rows copied at once
PATTERNS = (  # files of all generations
    "rows-*.npy",
    "images-*.jsonl",
    "texts-*.jsonl",
    "regions-*.bin",
    "clusters-*.faiss",
)


class IndexWriter:
    """An index that is open for writing; use `open_writer` to create one.

    manifest: manifest of the index. recovered: lines whose rows were lost since the last complete
    run, because a process was killed or a disk was damaged. The index no longer contains these
    lines, except those that an unfinished run has appended again.
    """

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        self.directory, self.manifest = directory, manifest
        self._write_manifest(manifest.rows)
        if not rows_path(directory, manifest).exists():
            atomic_write(rows_path(directory, manifest), _header(0, manifest.dimensions))
        self._remove_other_generations()
        self.recovered = self._recover()
        self.lost_clusters = False  # whether `keep` has removed the clusters

    def entries(self) -> Iterator[dict[str, Any]]:
        """Yield the lines of all rows, which are read on demand."""
        files = open_generation(self.directory, replace(self.manifest, rows=0))
        return files.entries(range(len(files.rows)))

    def keep(
        self,
        indices: Sequence[int],
        changes: Mapping[int, Mapping[str, Any]] = MappingProxyType({}),
    ) -> None:
        """Keep the rows at `indices`, which must be in ascending order, and remove all others.

        changes: for some of the kept rows, by row before the removal, values to update in its line.
        Clusters for approximate search are lost unless all rows are kept without changes.
        """
        files = open_generation(self.directory, replace(self.manifest, rows=0))
        if len(indices) == len(files.rows) and not changes:
            return
        self.lost_clusters = self.has_clusters
        new = replace(self.manifest, generation=self.manifest.generation + 1)
        header = _header(0, new.dimensions)
        atomic_write(rows_path(self.directory, new), header, sync=True)
        if new.regions:
            atomic_write(regions_path(self.directory, new), b"", sync=True)
        atomic_write(lines_path(self.directory, new), b"", sync=True)
        kept = np.asarray(indices, np.int64)
        for first in range(0, len(kept), BLOCK):
            block = kept[first : first + BLOCK].tolist()
            entries = zip(block, files.entries(block), strict=True)
            changed = ({**entry, **changes.get(row, {})} for row, entry in entries)
            regions = None if files.regions is None else files.regions[block]
            self._append(new, files.rows[block], changed, regions)
        del files  # Windows cannot delete files that are mapped
        self.manifest = new
        self._write_manifest(len(kept))
        self._remove_other_generations()

    def append(
        self,
        rows: np.ndarray,
        entries: Iterable[Mapping[str, Any]],
        regions: np.ndarray | None = None,
    ) -> None:
        """Add rows (n, E) and their lines; both are on disk when this method returns.

        regions (n, R), uint8: packed region embeddings, if the manifest has a shape for them.
        """
        self._append(self.manifest, rows.astype(np.float16), entries, regions)

    def finish(self, skipped: Sequence[Mapping[str, Any]]) -> int:
        """Complete a run: write the row count and the skipped images or texts; return the count.

        The list of lost lines is deleted.
        """
        count = len(LineFile(lines_path(self.directory, self.manifest)))
        with rows_path(self.directory, self.manifest).open("r+b") as file:
            file.write(_header(count, self.manifest.dimensions))
        lines = "".join(json.dumps(each) + "\n" for each in skipped)
        atomic_write(self.directory / SKIPPED, lines)
        self._write_manifest(count)
        (self.directory / RECOVERED).unlink(missing_ok=True)
        return count

    @property
    def has_clusters(self) -> bool:
        """Whether the index has clusters for approximate search, at least of its first rows."""
        return clusters_path(self.directory, self.manifest).exists()

    def cluster(self) -> None:
        """Group all rows into clusters for approximate search, unless they are already grouped.

        Raises InputError if the extra `approximate` is not installed.
        """
        path = clusters_path(self.directory, self.manifest)
        rows = open_generation(self.directory, self.manifest).rows
        if self.has_clusters:
            with suppress(InputError):  # damaged clusters are written again
                if len(approximate.read(path, rows.shape[1])) == len(rows):
                    return
        approximate.build(rows).write(path)

    def _append(
        self,
        manifest: Manifest,
        rows: np.ndarray,
        entries: Iterable[Mapping[str, Any]],
        regions: np.ndarray | None,
    ) -> None:
        lines = "".join(json.dumps(entry) + "\n" for entry in entries)
        contents = [(rows_path(self.directory, manifest), rows.tobytes())]
        if manifest.regions:
            assert regions is not None
            contents.append((regions_path(self.directory, manifest), regions.tobytes()))
        contents.append((lines_path(self.directory, manifest), lines.encode("ascii")))
        for path, content in contents:  # lines last
            with path.open("ab") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())

    def _write_manifest(self, rows: int) -> None:
        self.manifest = replace(self.manifest, rows=rows)
        content = asdict(self.manifest)
        if self.manifest.regions:
            content["format"] = WITH_REGIONS
        else:  # older versions do not know the key
            del content["regions"]
        atomic_write(self.directory / MANIFEST, json.dumps(content, indent=1) + "\n", sync=True)

    def _remove_other_generations(self) -> None:
        """Delete the files of all other generations, including those left by a killed process."""
        paths = (rows_path, lines_path, regions_path, clusters_path)
        names = {path(self.directory, self.manifest).name for path in paths}
        for pattern in PATTERNS:
            for path in self.directory.glob(pattern):
                if path.name not in names:
                    with suppress(OSError):  # on Windows, a reader may have it open
                        path.unlink()

    def _recover(self) -> list[dict[str, Any]]:
        """Truncate all files to the rows that are complete in each; return all lost lines.

        Lines lost in earlier recoveries are included until the next complete run.

        Lost lines are first written to RECOVERED, so that they survive if the process is killed.
        """
        path, dimensions = lines_path(self.directory, self.manifest), self.manifest.dimensions
        path.touch()
        lines, stored = LineFile(path), count_rows(self.directory, self.manifest)
        count = min(stored, len(lines))
        regions, shape = regions_path(self.directory, self.manifest), self.manifest.region_shape
        if shape is not None:
            regions.touch()
            count = min(count, regions.stat().st_size // shape.bytes)
        files = IndexFiles(self.directory, self.manifest, np.empty((0, dimensions)), lines)
        lost = list(files.entries(range(count, len(lines))))
        key = KINDS[self.manifest.kind]
        recovered = list({entry[key]: entry for entry in self._read_recovered() + lost}.values())
        if lost:
            content = "".join(json.dumps(entry) + "\n" for entry in recovered)
            atomic_write(self.directory / RECOVERED, content, sync=True)
        if shape is not None:
            os.truncate(regions, count * shape.bytes)
        os.truncate(path, int(lines.starts[count]))
        os.truncate(rows_path(self.directory, self.manifest), HEADER + 2 * count * dimensions)
        self._write_manifest(count)
        return recovered

    def _read_recovered(self) -> list[dict[str, Any]]:
        path, key = self.directory / RECOVERED, KINDS[self.manifest.kind]
        if not path.exists():
            return []
        return [parse_line(path, key, line) for line in path.read_bytes().splitlines()]


@contextmanager
def open_writer(
    directory: Path,
    checkpoint: str,
    weights: str,
    dimensions: int,
    kind: str = "images",
    regions: RegionShape | None = None,
) -> Iterator[IndexWriter]:
    """Open an index to add and remove rows; create it if it does not exist.

    Only one process at a time may write to an index. kind: "images" or "texts". regions: shape of
    the region embeddings to store with each row, or None. Raises InputError if the directory
    contains something else, if another process is writing to it, if the index is of the other kind,
    was written with other weights or stores other regions, or if it is damaged.
    """
    if directory.exists() and not is_index(directory) and _has_content(directory):
        raise InputError(f"{directory} already exists and is not an index; choose another --output")
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as lock:
        if not lock_file(lock):
            raise InputError(
                f"{directory} is being written by another process; wait for it or choose another "
                "--output"
            )
        manifest = Manifest(
            checkpoint, weights, dimensions, kind=kind, regions=tuple(regions or ())
        )
        if (directory / MANIFEST).exists():
            old = read_manifest(directory)
            if old.kind != kind:
                raise InputError(
                    f"{directory} contains {old.kind}, so {kind} cannot be added to it; choose "
                    "another --output"
                )
            advice = "choose another --output, or delete the index and run captioner index again"
            if (old.weights, old.dimensions) != (weights, dimensions):
                raise InputError(
                    f"{directory} was written with other weights, from {old.checkpoint}; {advice}"
                )
            if old.regions != manifest.regions:
                raise InputError(
                    f"{directory} contains {_describe_regions(old)}, but the model has "
                    f"{_describe_regions(manifest)}; {advice}"
                )
            manifest = replace(old, checkpoint=checkpoint)
        yield IndexWriter(directory, manifest)


def _describe_regions(manifest: Manifest) -> str:
    return f"regions of shape {manifest.regions}" if manifest.regions else "no regions"


def _has_content(directory: Path) -> bool:
    """Return whether a path is a file, or contains more than leftovers of an interrupted run."""
    leftovers = (".lock", ".part")
    return not directory.is_dir() or any(
        not path.name.endswith(leftovers) for path in directory.iterdir()
    )


def _header(rows: int, dimensions: int) -> bytes:
    """Return a .npy header, which NumPy pads to HEADER bytes for any number of rows."""
    file = io.BytesIO()
    about = {"descr": "<f2", "fortran_order": False, "shape": (rows, dimensions)}
    np.lib.format.write_array_header_1_0(file, about)
    return file.getvalue()
