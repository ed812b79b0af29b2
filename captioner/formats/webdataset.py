"""WebDataset's tar shards: files of one key are a picture and its captions; nothing is unpacked."""

import json
import re
from pathlib import Path
from typing import Any

from .. import shards
from .pairs import caption_lines
from .reading import PICTURE_SUFFIXES, Entry, Place, Reading, split_lines, split_of
from .tables import caption_columns

# A key is the name up to the first dot after the last slash; hidden files have none.
_MEMBER = re.compile(r"(?P<key>(?:.*/)?[^./][^./]*)\.(?P<extension>[^/]*)", re.DOTALL)


def recognise(path: Path) -> list[Path]:
    """The tar file itself, or those in the folder or the folders in it, links among them."""
    if path.is_file():
        return [path] if path.suffix == ".tar" else []
    return sorted(tar for pattern in ("*.tar", "*/*.tar") for tar in path.glob(pattern))


def read(path: Path) -> Reading:
    reading = Reading()
    base = path.parent if path.is_file() else path
    for link in sorted(path.iterdir() if path.is_dir() else []):
        if link.is_symlink() and not link.exists():  # a disk that is not there hides its shards
            reading.report(Place(link), "the link leads nowhere", "mount its disk, or remove it")
    for tar in filter(Path.exists, recognise(path)):
        _read_shard(tar, tar.relative_to(base).with_suffix("").as_posix(), reading)
    return reading


def _read_shard(tar: Path, shard: str, reading: Reading) -> None:
    """shard: its name, which begins the ids and may tell the split, as in train-000001."""
    index = shards.index(tar)
    for name in index.twice:
        reading.report(Place(tar / name), f"{tar.name} holds this twice", "the first is taken")
    samples: dict[str, dict[str, str]] = {}
    for name in index.members:
        if match := _MEMBER.fullmatch(name):
            files = samples.setdefault(match["key"], {})
            files.setdefault(f".{match['extension'].lower()}", name)
    splits = set(filter(None, map(split_of, re.split(r"[^a-z]+", shard.lower()))))
    split = splits.pop() if len(splits) == 1 else None
    for key, files in samples.items():
        texts = [tar / files[extension] for extension in (".txt", ".json") if extension in files]
        picture = next((name for e, name in files.items() if e in PICTURE_SUFFIXES), None)
        if picture:
            entry = Entry(f"{shard}/{key}", tar, picture, split, Place(tar / picture))
            entry.captions = _captions(texts, reading)
            reading.entries.append(entry)
        elif texts:
            reading.report(Place(texts[0]), f"{key} has no picture", "add it, or remove this")


def _captions(texts: list[Path], reading: Reading) -> list[tuple[Any, Place]]:
    """The lines of the text file, else the captions that the JSON file names as a table would."""
    if not texts:
        return []
    content = shards.read(texts[0])
    if texts[0].suffix == ".txt":
        return list(caption_lines(split_lines(content), texts[0]))
    place = Place(texts[0])
    try:
        row = json.loads(content.decode("utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        row = None
    if not isinstance(row, dict):
        reading.report(place, "the file is no JSON object", "correct it")
        return []
    values = [row[name] for name in caption_columns(row)]
    return [(c, place) for v in values for c in (v if isinstance(v, list) else [v])]
