"""Describing a data set and finding images that cannot be decoded.

Only the image check imports torch, which takes seconds.
"""

import hashlib
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..console import progress_bar
from ..errors import InputError
from ..git_lfs import is_pointer
from ..prefetch import load_ahead
from ..text.tokenizer import WORDS, Tokenizer, one_word_note
from .dataset import SPLITS, CaptionData, Example, problem_lines, problems_error
from .formats.reading import Problem, SourceLocation
from .readers import READERS
from .relations import describe_labels
from .storage import files as storage
from .storage.location import Location, UnreachableError

MIN_COUNTS = (1, 2, 5, 10)
DECODED = "decoded-v1.txt"  # in the cache directory: stamps of files that can be decoded
ENDING = 4096  # bytes that are compared before whole files
POINTER_SIZE = 1024  # bytes; pointers are smaller
CHUNK = 32  # number of images per decoding task


# ---- description --------------------------------------------------------------------------------


def describe_data(data: CaptionData, tokenizer: Tokenizer = WORDS) -> str:
    """Describe a data set: format, splits, notes, caption lengths, vocabulary, labels and problems.

    Words are counted in the training captions, or in all captions if there is no training split.
    """
    training = [e for e in data.examples if e.split == "train"] or list(data.examples)
    return "\n".join(
        [
            f"{data.root}: {data.format} ({READERS[data.format].layout})",
            *_splits(data),
            *([f"split: {data.note}"] if data.note else []),
            *(f"note: {note}" for note in [*data.notes, *_spaces(training, tokenizer)]),
            *(f"note: {note}" for note in pointer_notes(data.examples)),
            *(f"note: {note}" for note in copies_notes(data.examples)),
            *_words(training, tokenizer),
            *describe_labels(data.examples),
            f"problems: {len(data.problems) or 'none'}",
            *(f"  {line}" for line in problem_lines(data.problems)),
        ]
    )


def _splits(data: CaptionData) -> list[str]:
    lines = [f"{'':10}{'images':>10}{'captions':>10}"]
    for split in SPLITS:
        chosen = [example for example in data.examples if example.split == split]
        captions = sum(len(example.captions) for example in chosen)
        lines += [f"{split:10}{len(chosen):10,}{captions:10,}"] if chosen else []
    return lines


def _spaces(examples: Iterable[Example], tokenizer: Tokenizer) -> list[str]:
    """Return a note if captions without spaces are not split into words."""
    captions = (caption for example in examples for caption in example.captions)
    return list(filter(None, [one_word_note(captions, tokenizer)]))


def _words(examples: Iterable[Example], tokenizer: Tokenizer) -> list[str]:
    """Format the caption lengths, and the size and coverage of the vocabulary per minimum count."""
    captions = [tokenizer.split(caption) for example in examples for caption in example.captions]
    lengths = sorted(len(words) for words in captions if words)
    low, median, high = (percentile(lengths, share) for share in (5, 50, 95))
    lines = [
        f"words per caption: mean {statistics.mean(lengths):.1f}, median {median}, "
        f"5th to 95th percentile {low} to {high}, maximum {lengths[-1]}"
    ]
    silent = len(captions) - len(lengths)
    lines += [f"captions without words: {silent:,}"] if silent else []
    counts, total = Counter(word for words in captions for word in words), sum(lengths)
    for minimum in MIN_COUNTS:
        kept = [count for count in counts.values() if count >= minimum]
        share = 100 * sum(kept) / total
        lines.append(
            f"--min-count {minimum:<3}{len(kept):8,} words, {share:6.2f} % of all occurrences"
        )
    return lines


def pointer_notes(examples: Iterable[Example]) -> list[str]:
    """Return a note if image files are in fact Git LFS pointers; files on servers are not read."""
    local = (e.path for e in examples if isinstance(e.path, Path) and e.path.is_file())
    small = (path for path in local if path.stat().st_size < POINTER_SIZE)
    if not (pointers := [path for path in small if is_pointer(path.read_bytes())]):
        return []
    return [
        f"Git LFS pointers instead of images: {len(pointers):,}, such as {pointers[0]}; run git "
        "lfs pull in their repository"
    ]


def copies_notes(examples: Sequence[Example]) -> list[str]:
    """Return a note if files in val or test have the same bytes as a file in train.

    Only files of the same size are read, beginning with their last bytes. Images on servers are not
    compared.
    """
    groups = [[example for example in examples if isinstance(example.path, Path)]]
    for key in (storage.size_on_disk, _ending, _digest):
        groups = _groups_across_splits(groups, key)
    pairs = [
        (example, next(e for e in group if e.split == "train"))
        for group in groups
        for example in group
        if example.split != "train"
    ]
    if not pairs:
        return []
    shown = [f"{copy.path} = {original.path}" for copy, original in pairs[:3]]
    several = len(pairs) > 1
    files = f"{len(pairs):,} images of val or test are" if several else "1 image of val or test is"
    return [
        f"{files} also in train, with the same content: "
        + "; ".join(shown)
        + ("; ..." if len(pairs) > len(shown) else "")
    ]


def _groups_across_splits(
    groups: Iterable[Sequence[Example]], key: Callable[[Any], object]
) -> list[list[Example]]:
    """Divide groups by a key of the paths; return those that span train and another split."""
    found: list[list[Example]] = []
    for group in groups:
        members: dict[object, list[Example]] = {}
        for example in group:
            members.setdefault(key(example.path), []).append(example)
        found += members.values()
    return [g for g in found if "train" in (splits := {e.split for e in g}) and len(splits) > 1]


def _ending(path: Path) -> bytes:
    """Return the last bytes of a file, which are less often equal than the first ones."""
    if storage.container(path) != path:
        return storage.read(path)[-ENDING:]
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - ENDING))
        return file.read()


def _digest(path: Path) -> bytes:
    content = path.read_bytes() if storage.container(path) == path else storage.read(path)
    return hashlib.sha256(content).digest()


def percentile(values: list[int], share: int) -> int:
    """Return the `share`-th percentile of the sorted values by the nearest-rank method."""
    return values[max(0, -(-share * len(values) // 100) - 1)]


# ---- images that cannot be decoded --------------------------------------------------------------


def drop_corrupt_images(
    data: CaptionData, splits: Sequence[str], on_error: str, cache: Path | None, workers: int = 0
) -> tuple[CaptionData, list[int | str]]:
    """Return the data without undecodable images of `splits`, and the ids of those images.

    on_error: "stop" raises an InputError that lists the undecodable images; "skip" adds them to the
    problems of the data. cache: directory that records which files can be decoded, so that each is
    decoded only once across all runs; None checks all of them. workers: number of decoding threads.
    Under torchrun, only the first process checks; the others receive its result.
    """
    from .. import distributed

    paths = [example.path for example in data.examples if example.split in splits]
    memo = cache and cache / DECODED
    found = _check_images(paths, memo, workers) if distributed.is_first() else {}
    distributed.barrier(features=True)
    reasons = distributed.gather(found)[0]
    problems = [
        Problem(SourceLocation(path), reason, "replace the file or remove its captions")
        for path, reason in reasons.items()
    ]
    if problems and on_error == "stop":
        raise problems_error(data.root, data.format, problems)
    dropped = [example.id for example in data.examples if example.path in reasons]
    kept = tuple(example for example in data.examples if example.path not in reasons)
    return replace(data, examples=kept, problems=(*data.problems, *problems)), dropped


def _check_images(
    paths: Sequence[Path | Location], memo: Path | None, workers: int
) -> dict[Path | Location, str]:
    """Return the images that cannot be decoded, each with the reason."""
    text = memo.read_text("utf-8", "replace") if memo and memo.is_file() else ""
    known = set(text.split())
    stamps = {path: hashlib.sha256(storage.stamp(path)).hexdigest()[:20] for path in paths}
    new = [path for path in paths if stamps[path] not in known]
    chunks = [new[i : i + CHUNK] for i in range(0, len(new), CHUNK)]
    reasons: dict[Path | Location, str] = {}
    if memo and new:
        _remember(memo, [])  # raises InputError for a cache that cannot be written
    with progress_bar(total=len(new), desc="images", unit="image", shown=bool(new)) as bar:
        checked = load_ahead(lambda chunk: [_defect(path) for path in chunk], chunks, workers)
        for chunk, defects in zip(chunks, checked, strict=True):
            found = {path: defect for path, defect in zip(chunk, defects, strict=True) if defect}
            reasons |= found
            if memo:
                _remember(memo, [stamps[path] for path in chunk if path not in found])
            bar.update(len(chunk))
    return reasons


def _defect(path: Path | Location) -> str | None:
    """Return why an image cannot be decoded, or None if it can; raise if its server fails."""
    from .images import load_image

    try:
        load_image(path)
    except UnreachableError:
        raise
    except InputError as error:
        return str(error).removeprefix(f"{str(path)!r}: ")
    return None


def _remember(memo: Path, stamps: Sequence[str]) -> None:
    """Append stamps to a file; concurrent runs do not overwrite each other's stamps.

    Each stamp is preceded by a line break, because a killed run may have left a partial line.
    """
    try:
        memo.parent.mkdir(parents=True, exist_ok=True)
        with memo.open("ab") as file:
            file.write("".join(f"\n{stamp}\n" for stamp in stamps).encode())
    except OSError as error:
        raise InputError(
            f"the cache in {memo.parent} cannot be written: {error}; choose another directory"
        ) from error
