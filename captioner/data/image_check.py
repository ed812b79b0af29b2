"""Which images of a data set can be decoded, found out before the work that needs them; what is
wrong in the rows is data.py's.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from .. import distributed
from ..atomic_io import atomic_write
from ..errors import InputError
from ..prefetch import load_ahead
from .dataset import CaptionData, problems_error
from .formats.reading import Problem, SourceLocation
from .images import load_image
from .storage import files as storage
from .storage.location import Location, UnreachableError

KNOWN = "decoded-v1.txt"  # in the cache: stamps of files that were decoded once
CHUNK = 32


def drop_corrupt_images(
    data: CaptionData, splits: Sequence[str], on_error: str, cache: Path | None, workers: int = 0
) -> tuple[CaptionData, list[int | str]]:
    """The data without those images of the splits that cannot be decoded, and the ids of these.

    on_error: "stop" raises InputError where there are any, and lists them; "skip" puts them among
    the data's problems. Which files were decoded well is kept in the directory `cache`, if there is
    one, so that each is read once, here or by a run before. Under torchrun the first process does
    it for all.
    """
    paths = [example.path for example in data.examples if example.split in splits]
    memo = cache and cache / KNOWN
    found = _undecodable(paths, memo, workers) if distributed.is_first() else {}
    reasons = distributed.gather(found)[0]
    problems = [
        Problem(SourceLocation(path), what, "replace the file, or remove what names it")
        for path, what in reasons.items()
    ]
    if problems and on_error == "stop":
        raise problems_error(data.root, data.format, problems)
    left_out = [example.id for example in data.examples if example.path in reasons]
    kept = tuple(example for example in data.examples if example.path not in reasons)
    return replace(data, examples=kept, problems=(*data.problems, *problems)), left_out


def _undecodable(
    paths: Sequence[Path | Location], memo: Path | None, workers: int
) -> dict[Path | Location, str]:
    """What keeps each of the images that cannot be decoded from it."""
    read = memo.read_text("utf-8", "replace") if memo and memo.is_file() else ""
    known = set(read.split())
    stamps = {path: hashlib.sha256(storage.stamp(path)).hexdigest()[:20] for path in paths}
    new = [path for path in paths if stamps[path] not in known]
    chunks = [new[i : i + CHUNK] for i in range(0, len(new), CHUNK)]
    reasons: dict[Path | Location, str] = {}
    decoded = set()
    bar = tqdm(total=len(new), desc="images", unit="image", leave=False, disable=not new)
    try:
        with bar:
            answers = load_ahead(lambda chunk: [_trouble(path) for path in chunk], chunks, workers)
            for chunk, troubles in zip(chunks, answers, strict=True):
                for path, trouble in zip(chunk, troubles, strict=True):
                    if trouble:
                        reasons[path] = trouble
                    else:
                        decoded.add(stamps[path])
                bar.update(len(chunk))
    finally:  # also where a signal ends it
        if memo and decoded:
            _remember(memo, known | decoded)
    return reasons


def _trouble(path: Path | Location) -> str | None:
    try:
        load_image(path)
    except UnreachableError:
        raise
    except InputError as error:
        return str(error).removeprefix(f"{str(path)!r}: ")
    return None


def _remember(memo: Path, stamps: set[str]) -> None:
    try:
        memo.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(memo, "".join(f"{stamp}\n" for stamp in sorted(stamps)))
    except OSError as error:
        raise InputError(f"the cache in {memo.parent} cannot be written: {error}") from error
