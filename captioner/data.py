"""From caption files on disk to Examples: readers, splits and the checks on them.

A reader knows one layout of files and returns Examples; to add one, write `recognise` and `read`
and name them in READERS. Pictures are not opened here, and batches are made elsewhere.
"""

import csv
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .errors import InputError
from .text import split_words

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Example:
    """A picture file and its captions as written; `id` is unique within the data set."""

    id: int | str
    path: Path
    captions: tuple[str, ...]
    split: str


@dataclass(frozen=True)
class CaptionData:
    """A data set as read: its name, the layout that was recognised, and all examples."""

    name: str
    format: str
    root: Path
    examples: tuple[Example, ...]

    def split(self, name: str) -> list[Example]:
        """The examples of train, val (alias dev) or test; an empty split is an InputError."""
        name = split_name(name)
        chosen = [example for example in self.examples if example.split == name]
        if not chosen:
            there = sorted({example.split for example in self.examples})
            raise InputError(
                f"{self.root} has no pictures in split {name!r}; it has {', '.join(there)}"
            )
        return chosen

    def summary(self) -> str:
        """One line for people: format, pictures and captions per split."""
        parts = []
        for split in SPLITS:
            chosen = [example for example in self.examples if example.split == split]
            if chosen:
                captions = sum(len(example.captions) for example in chosen)
                parts.append(f"{split} {len(chosen)} pictures, {captions} captions")
        return f"{self.root}: {self.format}; {'; '.join(parts)}"


def split_name(name: str) -> str:
    """`dev` means `val`; anything but train, val and test is an InputError."""
    name = {"dev": "val"}.get(name, name)
    if name not in SPLITS:
        raise InputError(f"unknown split {name!r}; choose train, val (or dev) or test")
    return name


def _coco_files(root: Path) -> dict[str, Path]:
    """COCO caption files by split; of several years the newest."""
    folder = root / "annotations"
    files = sorted(folder.glob("captions_*.json"))
    found = {
        split: [file for file in files if re.fullmatch(f"captions_{split}[0-9]*", file.stem)]
        for split in SPLITS
    }
    return {split: paths[-1] for split, paths in found.items() if paths}


def _read_coco(root: Path) -> list[Example]:
    return [
        example
        for split, path in _coco_files(root).items()
        for example in _read_coco_file(root, path, split)
    ]


def _read_coco_file(root: Path, path: Path, split: str) -> list[Example]:
    content = _load_json(path)
    try:
        files = {image["id"]: image["file_name"] for image in content["images"]}
        captions: dict[Any, list[str]] = {identity: [] for identity in files}
        for annotation in content["annotations"]:
            picture, caption = annotation["image_id"], annotation["caption"]
            if picture not in captions:
                raise InputError(
                    f"{path}: caption {caption!r} is of picture {picture}, "
                    "which the file does not list"
                )
            if not isinstance(caption, str):
                raise InputError(f"{path}: the caption {caption!r} of {picture} is no text")
            captions[picture].append(caption)
    except (KeyError, TypeError) as error:
        raise InputError(f"{path} is no COCO caption file: {error!r} in its entries") from error
    if len(files) != len(content["images"]):
        raise InputError(f"{path} lists {len(content['images']) - len(files)} picture ids twice")
    folder = path.stem.removeprefix("captions_")
    places = [root / folder, root / "images" / folder, root / "images", root / split]
    place = next((place for place in places if place.is_dir()), None)
    if place is None:
        raise InputError(f"the pictures of {path} are missing; looked for the folder {places[0]}")
    return [
        Example(identity, safe_join(place, name, path), tuple(captions[identity]), split)
        for identity, name in files.items()
    ]


def _flickr8k_folders(root: Path) -> tuple[Path, Path] | None:
    """Flickr8k's text and picture folders, unpacked side by side or one in the other."""
    texts = (root / "Flickr8k_text", root)
    pictures = (root / "Flicker8k_Dataset", root / "Flickr8k_Dataset", root / "Images")
    text = next((t for t in texts if (t / "Flickr8k.token.txt").is_file()), None)
    picture = next((p for p in pictures if p.is_dir()), None)
    return (text, picture) if text and picture else None


def _read_flickr8k(root: Path) -> list[Example]:
    """The original layout. Without a train list, what no other list names is for training.

    The published files caption a picture that does not exist: what no list names and has no
    picture file is dropped. Where no picture is for validation (the dev list is absent, say),
    a seeded tenth of the training pictures is, at least one of two or more.
    """
    folders = _flickr8k_folders(root)
    assert folders is not None
    text, pictures = folders
    source = text / "Flickr8k.token.txt"
    rows = []
    for number, line in enumerate(_read_lines(source), start=1):
        if not line.strip():
            continue
        name, tab, caption = line.partition("\t")
        if not tab:
            raise InputError(f"{source}, line {number}: no tab between picture and caption")
        rows.append((name.rpartition("#")[0] or name, caption))
    lists = {}
    for split, stem in (("train", "train"), ("val", "dev"), ("test", "test")):
        path = text / f"Flickr_8k.{stem}Images.txt"
        if path.is_file():
            lists[split] = [name for line in _read_lines(path) if (name := line.strip())]
    splits: dict[str, str] = {}
    for split, names in lists.items():
        for name in names:
            if splits.setdefault(name, split) != split:
                raise InputError(f"{text}: {name} is listed in {splits[name]} and in {split}")
    examples = _group_captions(rows, pictures, source)
    there = [example for example in examples if example.id in splits or example.path.is_file()]
    examples = there or examples  # where all files are missing, `read_captions` says so
    if not splits:
        return seeded_split(examples)
    rest = None if "train" in lists else "train"
    captioned = {example.id for example in examples}
    unknown = [name for name in splits if name not in captioned]
    if unknown:
        raise InputError(f"{source} has no captions of {_some(unknown)}, which the lists name")
    chosen = [(example, splits.get(str(example.id), rest)) for example in examples]
    return _with_val([replace(example, split=split) for example, split in chosen if split])


def _read_kaggle(root: Path) -> list[Example]:
    """`captions.txt` with the header image,caption, beside `Images/`; no lists of splits."""
    source = root / "captions.txt"
    rows = []
    reader = csv.reader((line + "\n" for line in _read_lines(source)), strict=True)
    first = 1  # line of the row
    try:
        for row in reader:
            if len(row) == 2:
                rows.append((row[0], row[1]))
            elif "".join(row).strip():
                raise InputError(
                    f"{source}, line {first}: expected picture and caption, found {len(row)} "
                    "columns (a caption with commas needs quotes)"
                )
            first = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{source}, line {first}: {error}") from error
    if rows and rows[0] == ("image", "caption"):
        del rows[0]
    return seeded_split(_group_captions(rows, root / "Images", source))


@dataclass(frozen=True)
class Reader:
    """One layout: does it lie at this path, what does it hold, how it is described to people."""

    recognise: Callable[[Path], object]
    read: Callable[[Path], list[Example]]
    layout: str


READERS = {
    "coco": Reader(
        _coco_files, _read_coco, "annotations/captions_<split><year>.json beside picture folders"
    ),
    "flickr8k": Reader(
        _flickr8k_folders, _read_flickr8k, "Flickr8k_text/Flickr8k.token.txt, Flicker8k_Dataset/"
    ),
    "kaggle": Reader(
        lambda root: (root / "captions.txt").is_file() and (root / "Images").is_dir(),
        _read_kaggle,
        "captions.txt beside Images/",
    ),
}


def read_captions(path: Path | str, format: str | None = None) -> CaptionData:
    """Read the data set at `path` in the format that is recognised there, or in the one named.

    Raises InputError where nothing is recognised, rows are malformed, or picture files or
    captions are missing; up to ten of them are listed, and how many there are.
    """
    root = Path(path)
    if not root.is_dir():
        trouble = "is a file" if root.exists() else "does not exist"
        raise InputError(f"data folder {root} {trouble}")
    if format is not None and format not in READERS:
        raise InputError(f"unknown format {format!r}; choose one of {', '.join(READERS)}")
    wanted = READERS if format is None else {format: READERS[format]}
    found = next((name for name, reader in wanted.items() if reader.recognise(root)), None)
    if found is None:
        layouts = "; ".join(f"{name}: {reader.layout}" for name, reader in wanted.items())
        raise InputError(f"{root} holds no captions in a known layout ({layouts})")
    examples = READERS[found].read(root)
    if not examples:
        raise InputError(f"{root} (read as {found}) holds no captions")
    count = Counter(example.id for example in examples)
    if twice := [str(identity) for identity, times in count.items() if times > 1]:
        raise InputError(f"{root}: pictures listed twice or in two splits: {_some(twice)}")
    missing = [str(example.path) for example in examples if not example.path.is_file()]
    if missing:
        raise InputError(f"{root}: {len(missing)} picture files are missing: {_some(missing)}")
    silent = [str(e.id) for e in examples if not any(split_words(c) for c in e.captions)]
    if silent:
        raise InputError(f"{root}: pictures without a caption: {_some(silent)}")
    return CaptionData(root.resolve().name, found, root, tuple(examples))


def seeded_split(examples: Sequence[Example], seed: int = 0) -> list[Example]:
    """80 % train, 10 % val, 10 % test, the same for the same pictures on every machine.

    Of two pictures one is for val, of three or more at least one each for val and test.
    """
    order, tenth = _shuffled(examples, seed), max(1, len(examples) // 10)
    val = order[:tenth] if len(order) >= 2 else []
    test = order[tenth : 2 * tenth] if len(order) >= 3 else []
    split = dict.fromkeys(val, "val") | dict.fromkeys(test, "test")
    return [replace(e, split=split.get(e.id, "train")) for e in examples]


def _with_val(examples: list[Example]) -> list[Example]:
    order = _shuffled([example for example in examples if example.split == "train"], seed=0)
    if len(order) < 2 or any(example.split == "val" for example in examples):
        return examples
    val = set(order[: max(1, len(order) // 10)])
    return [replace(e, split="val") if e.id in val else e for e in examples]


def _shuffled(examples: Sequence[Example], seed: int) -> list[int | str]:
    order = sorted((example.id for example in examples), key=str)
    random.Random(seed).shuffle(order)
    return order


def safe_join(folder: Path, name: str, source: Path) -> Path:
    """folder/name, refused where the name, found in `source`, leads out of the folder."""
    plain = isinstance(name, str) and name and "\\" not in name and "\0" not in name
    if not plain or Path(name).is_absolute() or ".." in Path(name).parts:
        raise InputError(f"{source}: {name!r} is no name of a file in {folder}")
    return folder / name


def _group_captions(rows: Iterable[tuple[str, str]], pictures: Path, source: Path) -> list[Example]:
    captions: dict[str, list[str]] = {}
    for name, caption in rows:
        captions.setdefault(name, []).append(caption)
    return [
        Example(name, safe_join(pictures, name, source), tuple(texts), "train")
        for name, texts in captions.items()
    ]


def _read_lines(path: Path) -> list[str]:
    """Only line feeds end a line: captions may hold stranger signs."""
    return _read_text(path).replace("\r\n", "\n").split("\n")


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: byte {error.start}; convert it first") from error


def _load_json(path: Path) -> Any:
    try:
        return json.loads(_read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path} is no valid JSON: {error}") from error


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:10])
    return shown if len(names) <= 10 else f"{shown} and {len(names) - 10} more"
