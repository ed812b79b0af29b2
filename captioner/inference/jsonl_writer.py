"""A file of answers, one JSON object a line, that a run which was killed can go on with.

What the answers say is bulk.py's.
"""

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ..atomic_io import atomic_write, lock_file
from ..errors import InputError

SYNC_SECONDS = 1.0  # what a loss of power may cost; a process that is killed loses nothing


@dataclass(frozen=True)
class ResumableJsonl:
    """The images that were answered before, those of them with an error, and the open file."""

    answered: set[str]
    failed: set[str]
    file: IO[bytes]

    def append(self, records: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        """Write each record as a whole line before it is handed on."""
        synced = time.monotonic()
        try:
            for record in records:
                self.file.write((json.dumps(record) + "\n").encode("ascii"))
                self.file.flush()
                if time.monotonic() - synced > SYNC_SECONDS:
                    os.fsync(self.file.fileno())
                    synced = time.monotonic()
                yield record
        finally:
            os.fsync(self.file.fileno())


@contextmanager
def open_jsonl(path: Path, options: Mapping[str, Any]) -> Iterator[ResumableJsonl]:
    """The answers in the file at `path`, which is made where there is none.

    options: what the answers depend on; they lie beside the file, in `path`.options.json. A last
    line that was cut short is removed. Raises InputError for a file of other options, for one that
    holds something else, and for one that another process writes to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        if not lock_file(file):
            raise InputError(f"{path} is being written by another process")
        _check_options(path, file, options)
        file.seek(0)
        yield _read(path, file)


def _check_options(path: Path, file: IO[bytes], options: Mapping[str, Any]) -> None:
    beside = path.with_name(path.name + ".options.json")
    if not file.seek(0, os.SEEK_END):
        atomic_write(beside, json.dumps(options, indent=1) + "\n")
        return
    try:
        before = json.loads(beside.read_bytes())
        changed = [
            f"{name} was {before.get(name)!r} and is {options.get(name)!r}"
            for name in {**before, **options}
            if before.get(name) != options.get(name)
        ]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise InputError(
            f"{path} is there already, and {beside} does not say what it was made with; "
            "name another file"
        ) from error
    if changed:
        raise InputError(
            f"{path} was made with other options: {'; '.join(changed)}; name another file"
        )


def _read(path: Path, file: IO[bytes]) -> ResumableJsonl:
    """What is answered; the file is cut to its whole lines."""
    answered, failed, end = set(), set(), 0
    for number, line in enumerate(file, 1):
        if not line.endswith(b"\n"):
            break
        try:
            record = json.loads(line)
            image = record["image"]
            answered.add(image)
            if "error" in record:
                failed.add(image)
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path}, line {number}: no answer about an image") from error
        end += len(line)
    file.truncate(end)
    return ResumableJsonl(answered, failed, file)
