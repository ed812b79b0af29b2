"""Reading data sets: the formats by name, which of their rows are used, the splits.

How each layout of files is read is in formats/; images are not opened here.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from reprlib import repr as shortened

from ..errors import InputError
from ..text.tokenizer import split_words
from .dataset import SPLITS, CaptionData, Example, refuse, some
from .demo import scenes as demo
from .formats import coco, flickr, huggingface, kaggle, karpathy, pairs, tables, webdataset
from .formats.reading import Problem, RawExample, Reader, ReadResult, is_plain, text_problem
from .storage import files as storage
from .storage.location import Location

ON_ERROR = ("stop", "skip")
TO_UTF8 = "write it as UTF-8 text"

READERS = {  # of several that recognise a path the first reads it
    "coco": Reader(
        coco.recognise,
        coco.read,
        "annotations/captions_<split><year>.json beside image directories",
        val_from_train=False,
    ),
    "flickr8k": Reader(
        flickr.recognise_8k, flickr.read_8k, "Flickr8k_text/Flickr8k.token.txt, Flicker8k_Dataset/"
    ),
    "karpathy": Reader(
        karpathy.recognise, karpathy.read, "dataset_<name>.json beside image directories"
    ),
    "flickr30k": Reader(
        flickr.recognise_30k, flickr.read_30k, "results_20130124.token beside flickr30k-images/"
    ),
    "kaggle": Reader(kaggle.recognise_8k, kaggle.read_8k, "captions.txt beside Images/"),
    "kaggle30k": Reader(
        kaggle.recognise_30k, kaggle.read_30k, "results.csv beside flickr30k_images/"
    ),
    "huggingface": Reader(
        huggingface.recognise,
        huggingface.read,
        "metadata.jsonl or .csv, in directories of splits or not",
    ),
    "jsonl": Reader(
        tables.recognise_jsonl,
        tables.read_jsonl,
        "captions.jsonl, or train.jsonl, val.jsonl ...",
        val_from_train=False,
    ),
    "csv": Reader(
        tables.recognise_csv,
        tables.read_csv,
        "captions.csv or .tsv, or train.csv, val.csv ...",
        val_from_train=False,
    ),
    "webdataset": Reader(webdataset.recognise, webdataset.read, "tar files", remote=True),
    "pairs": Reader(pairs.recognise, pairs.read, "images with a .txt beside each"),
}


def read_captions(
    path: Path | Location | str, format: str | None = None, on_error: str = "stop"
) -> CaptionData:
    """Read the data set at `path` in the format that is recognised there, or in the one named.

    on_error: "stop" raises InputError where rows or images cannot be used, and lists them;
    "skip" leaves them out and in `problems`. Where nothing is recognised, a file as a whole cannot
    be read, or no image is left, InputError is raised in either case.
    """
    root = storage.parse_location(path)
    found = recognise(root, format)
    reader = READERS[found]
    examples, problems = validate(reader.read(root))
    if problems and on_error == "stop":
        raise refuse(root, found, problems)
    if not examples:
        wrong = "".join(f"\n  {line}" for line in some(problems))
        raise InputError(f"{root} (read as {found}) holds no captions that can be used{wrong}")
    examples, note = _with_splits(examples, reader)
    return CaptionData(_name(root), found, root, tuple(examples), tuple(problems), note)


def load_data(
    path: Path | Location | None, format: str | None, cache: Path, on_error: str = "stop"
) -> CaptionData:
    """The data set at `path`, or the demo's, which is drawn into the cache if it is not there."""
    if path is None:
        from .. import distributed

        path = cache / f"demo-v{demo.VERSION}" / "demo"
        if distributed.is_first():
            demo.write_demo(path)
        distributed.barrier()
    return read_captions(path, format, on_error)


def _name(root: Path | Location) -> str:
    """What a directory or file is called, or the directory in which the first brace stands."""
    if isinstance(root, Location) or storage.is_pattern(root):
        return Path(f"{str(root).partition('{')[0]}...").resolve().parent.name
    place = root.resolve()
    return place.stem if place.is_file() else place.name


def recognise(root: Path | Location, format: str | None = None) -> str:
    """The name of the format of what lies at `root`; raises InputError where there is none."""
    if format is not None and format not in READERS:
        raise InputError(f"unknown format {format!r}; choose one of {', '.join(READERS)}")
    wanted = READERS if format is None else {format: READERS[format]}
    for name, reader in wanted.items():
        if (reader.remote or not isinstance(root, Location)) and reader.recognise(root):
            return name
    if isinstance(root, Location) or not root.exists():
        raise InputError(f"data directory {root} does not exist")
    layouts = "; ".join(f"{name}: {reader.layout}" for name, reader in wanted.items())
    kind = "is a file and" if root.is_file() else "is a directory and"
    raise InputError(f"{root} {kind} holds no captions in a known layout ({layouts})")


def validate(reading: ReadResult) -> tuple[list[Example], list[Problem]]:
    """Which of the images read can be used, and all that is wrong with the rest, by place.

    The one policy for all formats. Of an image that comes twice the first stands. An empty
    caption beside others is let be. A split that is not told is "" here.
    """
    problems = list(reading.problems)
    by_id: dict[int | str, RawExample] = {}
    by_file: dict[Path | Location, RawExample] = {}
    examples = []
    told = any(entry.split is not None for entry in reading.entries)
    for entry in reading.entries:
        trouble = _wrong_in_itself(entry, told)
        path = entry.directory if trouble else entry.directory / entry.name
        trouble = trouble or _there_already(entry, by_id, by_file.get(path)) or _missing(path)
        captions = [caption for caption, _ in entry.captions if not text_problem(caption)]
        for caption, place in entry.captions:
            if no_text := text_problem(caption):
                problems.append(
                    Problem(place, f"the caption {shortened(caption)} {no_text}", TO_UTF8)
                )
        if not trouble and not any(split_words(caption) for caption in captions):
            trouble = f"image {entry.id} has no caption with a word", "write one, or remove it"
        if trouble:
            problems.append(Problem(entry.place, *trouble))
            continue
        by_id[entry.id] = by_file[path] = entry
        examples.append(Example(entry.id, path, tuple(captions), entry.split or ""))
    return examples, sorted(problems, key=lambda problem: problem.place)


def _wrong_in_itself(entry: RawExample, told: bool) -> tuple[str, str] | None:
    """What is wrong with an image's name, id or split, and what to do about it."""
    if not is_plain(entry.name):
        what = f"{shortened(entry.name)} is no name of a file in {entry.directory}"
        return what, "name it from there, without .. and backslashes"
    if no_text := text_problem(entry.name):
        return f"the name {shortened(entry.name)} {no_text}", TO_UTF8
    if type(entry.id) is not int and text_problem(entry.id):
        return f"the id {shortened(entry.id)} is neither a number nor a text", "give it one"
    if told and entry.split not in SPLITS:
        there = "is in no split" if entry.split is None else f"is in a split {entry.split!r}"
        return f"image {entry.id} {there}", "name train, val or test"
    return None


def _there_already(
    entry: RawExample, by_id: dict[int | str, RawExample], same_file: RawExample | None
) -> tuple[str, str] | None:
    if first := by_id.get(entry.id):
        twice = "twice" if first.split == entry.split else f"in {first.split} and in {entry.split}"
        what = f"image {entry.id} is listed {twice}, first at {first.place}"
        return what, "remove one of them"
    if same_file:
        what = f"{entry.name} is image {entry.id} here, and {same_file.id} at {same_file.place}"
        return what, "remove one of them"
    return None


def _missing(path: Path | Location) -> tuple[str, str] | None:
    if storage.is_file(path):
        return None
    return f"the image {path} is missing", "add the file, or remove what names it"


def _with_splits(examples: list[Example], reader: Reader) -> tuple[list[Example], str]:
    """The examples, all in splits, and what was drawn for it."""
    if not any(example.split for example in examples):
        return seeded_split(examples), "no splits there: 80/10/10 by seed 0"
    training = [example.split for example in examples].count("train")
    if not reader.val_from_train or training < 2 or any(e.split == "val" for e in examples):
        return examples, ""
    return _with_val(examples), "no val there: a tenth of train by seed 0"


def seeded_split(examples: Sequence[Example], seed: int = 0) -> list[Example]:
    """80 % train, 10 % val, 10 % test, the same for the same images on every machine.

    Of two images one is for val, of three or more at least one each for val and test.
    """
    order, tenth = _shuffled(examples, seed), max(1, len(examples) // 10)
    val = order[:tenth] if len(order) >= 2 else []
    test = order[tenth : 2 * tenth] if len(order) >= 3 else []
    split = dict.fromkeys(val, "val") | dict.fromkeys(test, "test")
    return [replace(e, split=split.get(e.id, "train")) for e in examples]


def _with_val(examples: list[Example]) -> list[Example]:
    order = _shuffled([example for example in examples if example.split == "train"], seed=0)
    val = set(order[: max(1, len(order) // 10)])
    return [replace(e, split="val") if e.id in val else e for e in examples]


def _shuffled(examples: Sequence[Example], seed: int) -> list[int | str]:
    order = sorted((example.id for example in examples), key=str)
    random.Random(seed).shuffle(order)
    return order
