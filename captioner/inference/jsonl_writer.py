"""A JSONL file of image records whose writing can be resumed after an interruption.

A record is an object with the key "image"; the key "error" marks an image that failed. Files from
older versions, which use the key "picture" instead, can be resumed; new records use "image".
"""

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ..atomic_io import atomic_write, lock_file, naming
from ..errors import InputError

SYNC_SECONDS = 1.0  # maximum work lost in a power failure; nothing is lost if the process is killed


@dataclass(frozen=True)
class ResumableJsonl:
    """An open JSONL file, the images that have a record in it, and the images that failed."""

    answered: set[str]
    failed: set[str]
    file: IO[bytes]

    def append(self, records: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        """Write each record as a complete line, then yield it."""
        synced = time.monotonic()
        try:
            for record in records:
                line = (json.dumps(record) + "\n").encode("ascii")
                with naming(Path(self.file.name), len(line)):
                    self.file.write(line)
                    self.file.flush()
                if time.monotonic() - synced > SYNC_SECONDS:
                    os.fsync(self.file.fileno())
                    synced = time.monotonic()
                yield record
        except BaseException:
            with suppress(OSError):  # a second error would hide the first
                os.fsync(self.file.fileno())
            raise
        os.fsync(self.file.fileno())


@contextmanager
def open_jsonl(path: Path, options: Mapping[str, Any]) -> Iterator[ResumableJsonl]:
    """Open the file at `path` for appending, creating it and its directories if necessary.

    options: everything that the records depend on, stored in `path`.options.json. An incomplete
    last line is removed. Raises InputError if the file is being written by another process or
    contains anything other than records, or if its stored options differ or cannot be read.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        if not lock_file(file):
            raise InputError(
                f"{path} is being written by another process; wait for it or choose another file"
            )
        _check_options(path, file, options)
        file.seek(0)
        yield _read(path, file)


def _check_options(path: Path, file: IO[bytes], options: Mapping[str, Any]) -> None:
    options_path = path.with_name(path.name + ".options.json")
    if not file.seek(0, os.SEEK_END):
        atomic_write(options_path, json.dumps(options, indent=1) + "\n")
        return
    try:
        before = json.loads(options_path.read_bytes())
        changed = [
            f"{name} was {before.get(name)!r} but is now {options.get(name)!r}"
            for name in {**before, **options}
            if before.get(name) != options.get(name)
        ]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise InputError(
            f"{path} already exists, and its options cannot be read from {options_path}; "
            "choose another file"
        ) from error
    if changed:
        raise InputError(
            f"{path} was written with different options: {'; '.join(changed)}; choose another file"
        )


def _read(path: Path, file: IO[bytes]) -> ResumableJsonl:
    """Read the records, and truncate the file after its last complete line."""
    answered, failed, end = set(), set(), 0
    for number, line in enumerate(file, 1):
        if not line.endswith(b"\n"):
            break
        try:
            record = json.loads(line)
            image = record["image"] if "image" in record else record["picture"]
            answered.add(image)
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"{path} cannot be resumed: line {number} is not a record about an image; "
                "choose another file"
            ) from error
        if "error" in record:
            failed.add(image)
        end += len(line)
    file.truncate(end)
    return ResumableJsonl(answered, failed, file)
