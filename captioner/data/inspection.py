"""What a data set holds, counted for people: images, lengths, vocabulary; and written as JSONL.

How it is read, and what is wrong in it, is data.py's.
"""

import json
import os
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tqdm import tqdm

from ..atomic_io import atomic_write
from ..errors import InputError
from ..text.tokenizer import split_words
from .dataset import SPLITS, CaptionData, Example, problem_lines
from .readers import READERS
from .storage import files as storage
from .storage.location import Location

MIN_COUNTS = (1, 2, 5, 10)
IMAGES = "images"  # the link to the images beside the JSONL


def describe_data(data: CaptionData) -> str:
    """What was recognised, splits, words per caption, vocabulary growth, problems: lines of text.

    Words are those of the captions for training, or of all where none are.
    """
    training = [e for e in data.examples if e.split == "train"] or list(data.examples)
    return "\n".join(
        [
            f"{data.root}: {data.format} ({READERS[data.format].layout})",
            *_splits(data),
            *([f"split: {data.note}"] if data.note else []),
            *_words(training),
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


def _words(examples: Iterable[Example]) -> list[str]:
    """How long captions are, and how many words occur how often."""
    captions = [split_words(caption) for example in examples for caption in example.captions]
    lengths = sorted(len(words) for words in captions if words)
    marks = ", ".join(f"{share} % {percentile(lengths, share)}" for share in (5, 50, 95))
    lines = [
        f"words per caption: mean {statistics.mean(lengths):.1f}; {marks}; longest {lengths[-1]}"
    ]
    silent = len(captions) - len(lengths)
    lines += [f"captions without a word: {silent:,}"] if silent else []
    counts, total = Counter(word for words in captions for word in words), sum(lengths)
    for minimum in MIN_COUNTS:
        kept = [count for count in counts.values() if count >= minimum]
        share = 100 * sum(kept) / total
        lines.append(f"--min-count {minimum:<3}{len(kept):8,} words, {share:6.2f} % of all there")
    return lines


def percentile(values: list[int], share: int) -> int:
    """The least of the sorted values that `share` % of them do not exceed (nearest rank)."""
    return values[max(0, -(-share * len(values) // 100) - 1)]


def write_jsonl(data: CaptionData, directory: Path) -> Path:
    """Write a data set as `directory`/captions.jsonl, an image a line, and link to its images.

    The link, `images`, leads to the directory that all of them lie in; nothing is copied, but from
    servers, when `images` is a directory. Raises InputError where either is there already.
    """
    target, link = directory / "captions.jsonl", directory / IMAGES
    for path in (target, link):
        if path.exists() or path.is_symlink():
            raise InputError(f"{path} is there already; convert to another directory")
    directories = [storage.container(example.path).parent for example in data.examples]
    places = [Path("/") / str(storage.absolute(directory)) for directory in directories]
    base = Path(os.path.commonpath(places))
    names = [
        place.relative_to(base).joinpath(*example.path.parts[len(directory.parts) :])
        for example, directory, place in zip(data.examples, directories, places, strict=True)
    ]
    lines = []
    for example, name in zip(data.examples, names, strict=True):
        row = {
            "image_id": example.id,
            "image": (IMAGES / name).as_posix(),
            "captions": example.captions,
            "split": example.split,
        }
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    directory.mkdir(parents=True, exist_ok=True)
    if any(isinstance(directory, Location) for directory in directories):
        _copy(data.examples, [link / name for name in names])
    else:
        link.symlink_to(base, target_is_directory=True)
    atomic_write(target, "".join(lines))
    return target


def _copy(examples: Sequence[Example], targets: Sequence[Path]) -> None:
    """Write images that lie in tar files as files."""
    images = zip(examples, targets, strict=True)
    for example, target in tqdm(images, total=len(targets), unit="image", leave=False):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(storage.read(example.path))
