"""Reading data sets: format recognition, validation and splits.

The layouts are defined in `formats`; images are not opened here.
"""

import logging
import re
import time
from collections.abc import Hashable, Mapping, Sequence
from itertools import compress
from pathlib import Path
from reprlib import repr as shortened

from ..errors import InputError
from ..git_lfs import refuse_pointer_file
from ..text.tokenizer import split_words
from .dataset import SPLITS, CaptionData, Example, problem_lines, problems_error
from .demo import dataset as demo
from .discovery import existing_spelling, other_case
from .formats import (
    coco,
    flickr,
    huggingface,
    kaggle,
    karpathy,
    multi30k,
    pairs,
    parquet,
    relations,
    tables,
    tags,
    webdataset,
)
from .formats.cells import separator_notes, split_caption
from .formats.reading import (
    Problem,
    RawExample,
    Reader,
    ReadResult,
    caption_problem,
    is_safe_name,
    text_problem,
)
from .splits import complete_splits
from .storage import files as storage
from .storage.location import Location

log = logging.getLogger(__name__)
MAX_CHILDREN = 100  # files and directories that are tried for a message
TABLES = (".csv", ".tsv", ".json", ".jsonl", ".txt", ".token", ".tar", ".parquet")
ON_ERROR = ("stop", "skip")
WRITE_UTF8 = "write it as UTF-8 text"
SAVE_IMAGES = "save each image as a file and write its name (img2dataset can download URLs)"

Fault = tuple[str, str]  # why an image cannot be used, and what to do about it

READERS = {  # the first reader that recognises a path is used
    "coco": Reader(
        coco.recognise,
        coco.read,
        "annotations/captions_<split><year>.json or <split>.json beside image directories",
        val_from_train=False,
    ),
    "flickr8k": Reader(
        flickr.recognise_8k, flickr.read_8k, "Flickr8k_text/Flickr8k.token.txt, Flicker8k_Dataset/"
    ),
    "karpathy": Reader(
        karpathy.recognise,
        karpathy.read,
        "dataset.json or dataset_<name>.json beside image directories",
    ),
    "flickr30k": Reader(
        flickr.recognise_30k, flickr.read_30k, "results_20130124.token beside flickr30k-images/"
    ),
    "kaggle": Reader(kaggle.recognise_8k, kaggle.read_8k, "captions.txt beside Images/"),
    "kaggle30k": Reader(
        kaggle.recognise_30k, kaggle.read_30k, "results.csv beside flickr30k_images/"
    ),
    "multi30k": Reader(
        multi30k.recognise, multi30k.read, "train.en, val.en ... beside lists of Flickr30k's images"
    ),
    "huggingface": Reader(
        huggingface.recognise,
        huggingface.read,
        "metadata.jsonl or .csv, or one per split directory",
    ),
    "relations": Reader(
        relations.recognise,
        relations.read,
        "relations.jsonl: rows of an image, a text and its labels",
    ),
    "jsonl": Reader(
        tables.recognise_jsonl,
        tables.read_jsonl,
        "captions.jsonl or .json, or train.jsonl, val.jsonl ...",
        val_from_train=False,
    ),
    "tags": Reader(
        tags.recognise,
        tags.read,
        "tags.csv with the columns image and tags, or NUS-WIDE's directories",
    ),
    "csv": Reader(
        tables.recognise_csv,
        tables.read_csv,
        "captions.csv or .tsv, or train.csv, val.csv ...",
        val_from_train=False,
    ),
    "webdataset": Reader(webdataset.recognise, webdataset.read, "tar files", remote=True),
    "pairs": Reader(pairs.recognise, pairs.read, "images, each with a .txt file of the same name"),
    "parquet": Reader(parquet.recognise, parquet.read, "Parquet files with images or their names"),
}


def read_captions(
    path: Path | Location | str, format: str | None = None, on_error: str = "stop"
) -> CaptionData:
    """Read the data set at `path` in the given format; if that is None, the format is detected.

    on_error: "stop" raises an InputError that lists the unusable rows and images; "skip" omits them
    and lists them in `problems`. In either case, InputError is raised if no format is recognised,
    if a whole file cannot be read, or if no image remains.
    """
    root = storage.parse_location(path)
    format_name = recognise_format(root, format)
    reader = READERS[format_name]
    found = reader.read(root)
    examples, problems = validate(found)
    if problems and on_error == "stop":
        raise problems_error(root, format_name, problems)
    if not examples:
        lines = "".join(f"\n  {line}" for line in problem_lines(problems))
        advice = f"correct the problems:{lines}" if problems else "choose another data set"
        raise InputError(f"{root} (read as {format_name}) has no usable captions; {advice}")
    examples, note = complete_splits(examples, reader.val_from_train)
    captions = [c for e in examples if not e.labels for c in e.captions]  # texts may have lines
    notes = (*found.notes, *separator_notes(captions))
    return CaptionData(
        _data_name(root), format_name, root, tuple(examples), tuple(problems), note, notes
    )


def load_data(
    path: Path | Location | None, format: str | None, cache: Path, on_error: str = "stop"
) -> CaptionData:
    """Read the data set at `path`, or the demo data set if `path` is None.

    The demo data set is generated in `cache` if it is missing. Under torchrun, the first process
    generates it while the others wait.
    """
    if path is None:
        from .. import distributed  # imports torch, which readers do not need

        path = cache / f"demo-v{demo.VERSION}" / "demo"
        if distributed.is_first():
            demo.write_demo(path)
        distributed.barrier()
    started = time.perf_counter()
    data = read_captions(path, format, on_error)
    seconds = time.perf_counter() - started
    log.debug("%s (%s): %d images, read in %.1f s", path, data.format, len(data.examples), seconds)
    return data


def _data_name(root: Path | Location) -> str:
    """Return the name of the directory, or of the file without its extension.

    For a pattern or a URL, this is the name of its parent directory.
    """
    if isinstance(root, Location) or storage.is_pattern(root):
        return Path(f"{str(root).partition('{')[0]}...").resolve().parent.name
    path = root.resolve()
    return path.stem if path.is_file() else path.name


def recognise_format(root: Path | Location, format: str | None = None) -> str:
    """Return the format of `root`.

    Raises InputError if no format matches, or if `format` is given and is unknown or does not
    match.
    """
    if format is not None and format not in READERS:
        raise InputError(f"unknown format {format!r}; choose one of {', '.join(READERS)}")
    allowed = READERS if format is None else {format: READERS[format]}
    for name, reader in allowed.items():
        if (reader.remote or not isinstance(root, Location)) and reader.recognise(root):
            return name
    if isinstance(root, Location):
        remote = " or ".join(name for name, reader in READERS.items() if reader.remote)
        raise InputError(
            f"{root} is a URL, but format {format} can only be read from local files; use {remote}"
        )
    if not root.exists():
        raise InputError(f"data set {root} does not exist; check the path")
    for file in (root, *root.glob("*")):  # a pointer has no layout
        refuse_pointer_file(file)
    wanted = "a known layout" if format is None else "the layout of the given format"
    if hint := _layout_below(root, allowed):
        raise InputError(f"{root} contains no captions in {wanted}; {hint}")
    layouts = "; ".join(f"{name}: {reader.layout}" for name, reader in allowed.items())
    kind = "file" if root.is_file() else "directory"
    raise InputError(f"{kind} {root} contains no captions in {wanted} ({layouts})")


def _layout_below(root: Path, readers: Mapping[str, Reader]) -> str:
    """Return advice to pass a file or directory in `root` that is in a known layout, or ""."""
    children = sorted(root.glob("[!.]*"))[:MAX_CHILDREN] if root.is_dir() else []
    for child in children:
        for name, reader in readers.items():
            if (child.is_dir() or child.suffix in TABLES) and reader.recognise(child):
                return f"{child} has the layout {name}; pass that path instead"
    return ""


def validate(result: ReadResult) -> tuple[list[Example], list[Problem]]:
    """Return the usable examples, and all problems in order of location.

    This policy applies to all formats. If an image is listed twice, its first entry is kept.
    Captions without words are kept if the image has a caption with words. The split is "" if the
    files do not define it.
    """
    examples: list[Example] = []
    problems = list(result.problems)
    by_id: dict[tuple[Hashable, str], RawExample] = {}
    by_path: dict[Path | Location, RawExample] = {}
    split_given = any(raw.split is not None for raw in result.examples)
    for raw in result.examples:
        if not raw.labels:  # a label belongs to the whole text
            raw.captions = [(c, place) for text, place in raw.captions for c in split_caption(text)]
        valid = [not caption_problem(caption) for caption, _ in raw.captions]
        captions = [caption for caption, _ in compress(raw.captions, valid)]
        labels = tuple(compress(raw.labels, valid))
        problems += _caption_problems(raw)
        if not (fault := _check_fields(raw, split_given)):
            path = raw.directory / raw.name
            if isinstance(path, Path):
                path = existing_spelling(path)
            fault = (
                _check_unique(raw, by_id.get((raw.scope, str(raw.id))), by_path.get(path))
                or _check_exists(path, raw.directory)
                or _check_words(raw.id, captions)
            )
        if fault:
            problems.append(Problem(raw.location, *fault))
            continue
        by_id[raw.scope, str(raw.id)] = by_path[path] = raw
        examples.append(Example(raw.id, path, tuple(captions), raw.split or "", labels))
    return examples, sorted(problems, key=lambda problem: problem.location)


def _caption_problems(raw: RawExample) -> list[Problem]:
    """Return a problem for each caption that is not valid text or not a single caption."""
    return [
        Problem(location, f"the caption {shortened(caption)} {reason}", _advice(reason))
        for caption, location in raw.captions
        if (reason := caption_problem(caption))
    ]


def _advice(reason: str) -> str:
    if "list" in reason:
        return "write each caption in its own row"
    return WRITE_UTF8 if "UTF-8" in reason else "write a caption as text, or remove it"


def _check_fields(raw: RawExample, split_given: bool) -> Fault | None:
    """Check an image's name, id and split independently of other images.

    split_given: whether any image of the data set has a split; if so, all must have one.
    """
    if contents := _image_contents(raw.name):
        return f"the image column contains {contents}, not a file name", SAVE_IMAGES
    if not is_safe_name(raw.name):
        message = f"{shortened(raw.name)} is not the name of a file in {raw.directory}"
        return message, "use a relative path without .. or backslashes"
    if reason := text_problem(raw.name):
        return f"the name {shortened(raw.name)} {reason}", WRITE_UTF8
    if type(raw.id) is not int and (reason := text_problem(raw.id)):
        if not isinstance(raw.id, str):
            reason = "is neither an integer nor text"
        return f"the id {shortened(raw.id)} {reason}", "correct it"
    if split_given and raw.split not in SPLITS:
        split = "no split" if raw.split is None else f"the unknown split {raw.split!r}"
        return f"image {raw.id} has {split}", "choose train, val or test"
    return None


def _image_contents(name: object) -> str | None:
    """Describe the value of an image column that is not the name of a file."""
    if isinstance(name, dict) and name.keys() & {"bytes", "path"}:
        return "the image's bytes" if name.get("bytes") else "an object without bytes or a path"
    if isinstance(name, str) and name.startswith(("http://", "https://")):
        return "the URL of an image"
    if isinstance(name, str) and re.match(r"data:image/|b['\"]|/9j/|iVBORw0KGgo", name):
        return "the image's bytes"
    return None


def _check_unique(
    raw: RawExample, same_id: RawExample | None, same_file: RawExample | None
) -> Fault | None:
    """Check that no earlier image has the same file or, in the same scope, the same id."""
    if same_file and same_file.id == raw.id:
        same_id = same_file
    if same_id and type(same_id.id) is not type(raw.id):
        message = f"image {raw.id!r} has the same id as {same_id.id!r} at {same_id.location}"
        return message, "write all ids as numbers, or all as text"
    if same_id:
        twice = "twice" if same_id.split == raw.split else f"in {same_id.split} and in {raw.split}"
        message = f"image {raw.id} is listed {twice}, first at {same_id.location}"
    elif same_file:
        first = f"image {same_file.id} at {same_file.location}"
        message = f"image {raw.id} has the same file {raw.name} as {first}"
    else:
        return None
    return message, "remove one of them"


def _check_exists(path: Path | Location, directory: Path | Location) -> Fault | None:
    if storage.is_file(path):
        if isinstance(path, Location) or isinstance(directory, Location):
            return None
        if target := storage.outside_target(path, directory):
            message = f"the image {path} is a link to {target}, outside {directory}"
            return message, "copy the file, or link its whole directory"
        return None
    if isinstance(path, Path) and (other := other_case(path)):
        return f"the image {path} is missing", f"correct the case of its name; the file is {other}"
    return f"the image {path} is missing", "add the file, or remove the row that names it"


def _check_words(image_id: int | str, captions: Sequence[str]) -> Fault | None:
    if any(split_words(caption) for caption in captions):
        return None
    return f"image {image_id} has no caption with words", "add one, or remove the image"
