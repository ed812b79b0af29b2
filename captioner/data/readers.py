"""Reading data sets: format recognition, validation and splits.

The layouts are defined in `formats`; images are not opened here.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from reprlib import repr as shortened

from ..errors import InputError
from ..git_lfs import refuse_pointer_file
from ..text.tokenizer import split_words
from .dataset import SPLITS, CaptionData, Example, problem_lines, problems_error
from .demo import dataset as demo
from .formats import coco, flickr, huggingface, kaggle, karpathy, pairs, tables, webdataset
from .formats.reading import Problem, RawExample, Reader, ReadResult, is_safe_name, text_problem
from .storage import files as storage
from .storage.location import Location

ON_ERROR = ("stop", "skip")
WRITE_UTF8 = "write it as UTF-8 text"

Fault = tuple[str, str]  # why an image cannot be used, and what to do about it

READERS = {  # the first reader that recognises a path is used
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
        "metadata.jsonl or .csv, or one per split directory",
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
    "pairs": Reader(pairs.recognise, pairs.read, "images, each with a .txt file of the same name"),
}


def read_captions(
    path: Path | Location | str, format: str | None = None, on_error: str = "stop"
) -> CaptionData:
    """Read the data set at `path` in the given format or, if None, the recognised one.

    on_error: "stop" raises an InputError that lists the unusable rows and images; "skip" omits them
    and lists them in `problems`. In either case, InputError is raised if no format is recognised,
    if a whole file cannot be read, or if no image remains.
    """
    root = storage.parse_location(path)
    format_name = recognise_format(root, format)
    reader = READERS[format_name]
    examples, problems = validate(reader.read(root))
    if problems and on_error == "stop":
        raise problems_error(root, format_name, problems)
    if not examples:
        lines = "".join(f"\n  {line}" for line in problem_lines(problems))
        raise InputError(f"{root} (read as {format_name}) has no usable captions{lines}")
    examples, note = _complete_splits(examples, reader)
    return CaptionData(_data_name(root), format_name, root, tuple(examples), tuple(problems), note)


def load_data(
    path: Path | Location | None, format: str | None, cache: Path, on_error: str = "stop"
) -> CaptionData:
    """Read the data set at `path`; None means the demo, which is generated in `cache` if missing.

    Under torchrun, the first process generates it while the others wait.
    """
    if path is None:
        from .. import distributed  # imports torch, which readers do not need

        path = cache / f"demo-v{demo.VERSION}" / "demo"
        if distributed.is_first():
            demo.write_demo(path)
        distributed.barrier()
    return read_captions(path, format, on_error)


def _data_name(root: Path | Location) -> str:
    """Return the name of the file or directory, or for a pattern, of its parent directory."""
    if isinstance(root, Location) or storage.is_pattern(root):
        return Path(f"{str(root).partition('{')[0]}...").resolve().parent.name
    path = root.resolve()
    return path.stem if path.is_file() else path.name


def recognise_format(root: Path | Location, format: str | None = None) -> str:
    """Return the format of `root`.

    Raises InputError if no format matches, or if `format` is given and does not match.
    """
    if format is not None and format not in READERS:
        raise InputError(f"unknown format {format!r}; choose one of {', '.join(READERS)}")
    allowed = READERS if format is None else {format: READERS[format]}
    for name, reader in allowed.items():
        if (reader.remote or not isinstance(root, Location)) and reader.recognise(root):
            return name
    if isinstance(root, Location) or not root.exists():
        raise InputError(f"data directory {root} does not exist; check the path")
    for file in (root, *root.glob("*")):  # a pointer has no layout
        refuse_pointer_file(file)
    layouts = "; ".join(f"{name}: {reader.layout}" for name, reader in allowed.items())
    kind = "file" if root.is_file() else "directory"
    raise InputError(f"{kind} {root} contains no captions in a known layout ({layouts})")


def validate(result: ReadResult) -> tuple[list[Example], list[Problem]]:
    """Return the usable examples, and all problems in order of location.

    This policy applies to all formats. If an image is listed twice, its first entry is kept.
    Captions without words are kept if the image has a caption with words. The split is "" if the
    files do not define it.
    """
    examples: list[Example] = []
    problems = list(result.problems)
    by_id: dict[int | str, RawExample] = {}
    by_path: dict[Path | Location, RawExample] = {}
    split_given = any(raw.split is not None for raw in result.examples)
    for raw in result.examples:
        captions = [caption for caption, _ in raw.captions if not text_problem(caption)]
        problems += _caption_problems(raw)
        if not (fault := _check_fields(raw, split_given)):
            path = raw.directory / raw.name
            fault = (
                _check_unique(raw, by_id.get(raw.id), by_path.get(path))
                or _check_exists(path)
                or _check_words(raw.id, captions)
            )
        if fault:
            problems.append(Problem(raw.location, *fault))
            continue
        by_id[raw.id] = by_path[path] = raw
        examples.append(Example(raw.id, path, tuple(captions), raw.split or ""))
    return examples, sorted(problems, key=lambda problem: problem.location)


def _caption_problems(raw: RawExample) -> list[Problem]:
    """Return a problem for each caption that is not valid text."""
    return [
        Problem(location, f"the caption {shortened(caption)} {reason}", WRITE_UTF8)
        for caption, location in raw.captions
        if (reason := text_problem(caption))
    ]


def _check_fields(raw: RawExample, split_given: bool) -> Fault | None:
    """Check an image's name, id and split independently of other images.

    split_given: whether any image of the data set has a split; if so, all must have one.
    """
    if not is_safe_name(raw.name):
        message = f"{shortened(raw.name)} is not the name of a file in {raw.directory}"
        return message, "use a relative path without .. or backslashes"
    if reason := text_problem(raw.name):
        return f"the name {shortened(raw.name)} {reason}", WRITE_UTF8
    if type(raw.id) is not int and text_problem(raw.id):
        return f"the id {shortened(raw.id)} is neither a number nor text", "correct it"
    if split_given and raw.split not in SPLITS:
        split = "no split" if raw.split is None else f"the unknown split {raw.split!r}"
        return f"image {raw.id} has {split}", "choose train, val or test"
    return None


def _check_unique(
    raw: RawExample, same_id: RawExample | None, same_file: RawExample | None
) -> Fault | None:
    """Check that no earlier image has the same id or the same file."""
    if same_id:
        twice = "twice" if same_id.split == raw.split else f"in {same_id.split} and in {raw.split}"
        message = f"image {raw.id} is listed {twice}, first at {same_id.location}"
    elif same_file:
        first = f"image {same_file.id} at {same_file.location}"
        message = f"image {raw.id} has the same file {raw.name} as {first}"
    else:
        return None
    return message, "remove one of them"


def _check_exists(path: Path | Location) -> Fault | None:
    if storage.is_file(path):
        return None
    return f"the image {path} is missing", "add the file, or remove the row that names it"


def _check_words(image_id: int | str, captions: Sequence[str]) -> Fault | None:
    if any(split_words(caption) for caption in captions):
        return None
    return f"image {image_id} has no caption with words", "add one, or remove the image"


def _complete_splits(examples: list[Example], reader: Reader) -> tuple[list[Example], str]:
    """Assign missing splits; return the examples and a note on any splits drawn at random."""
    if not any(example.split for example in examples):
        return assign_splits(examples), "no splits given, so 80/10/10 % drawn at random (seed 0)"
    training = [example.split for example in examples].count("train")
    if not reader.val_from_train or training < 2 or any(e.split == "val" for e in examples):
        return examples, ""
    return _val_from_train(examples), "no val given, so a tenth of train drawn at random (seed 0)"


def assign_splits(examples: Sequence[Example], seed: int = 0) -> list[Example]:
    """Assign random splits to the examples: 80 % train, 10 % val, 10 % test.

    The splits depend only on the ids and the seed, not on the order or the machine. With two
    images, one is in val; with more, at least one is in val and at least one in test.
    """
    order, tenth = _shuffled_ids(examples, seed), max(1, len(examples) // 10)
    val = order[:tenth] if len(order) >= 2 else []
    test = order[tenth : 2 * tenth] if len(order) >= 3 else []
    splits = dict.fromkeys(val, "val") | dict.fromkeys(test, "test")
    return [replace(e, split=splits.get(e.id, "train")) for e in examples]


def _val_from_train(examples: list[Example]) -> list[Example]:
    order = _shuffled_ids([example for example in examples if example.split == "train"], seed=0)
    val = set(order[: max(1, len(order) // 10)])
    return [replace(e, split="val") if e.id in val else e for e in examples]


def _shuffled_ids(examples: Sequence[Example], seed: int) -> list[int | str]:
    ids = sorted((example.id for example in examples), key=str)
    random.Random(seed).shuffle(ids)
    return ids
