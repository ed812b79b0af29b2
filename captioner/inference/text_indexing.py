"""`captioner index --texts`: embed texts, and add them to an index or remove them from it.

Shapes: n texts, E dimensions.
"""

import hashlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import console
from ..checkpoints import checkpoint, hub
from ..console import progress_bar
from ..data.caption_files import TABLES, read_sentences, split_sentences
from ..data.dataset import problem_lines
from ..data.readers import load_data, read_captions
from ..data.storage import files as storage
from ..data.storage.location import Location
from ..errors import InputError
from ..evaluation.inputs import data_source
from ..retrieval.index_files import SKIPPED
from ..retrieval.index_writer import IndexWriter, open_writer
from ..text.tokenizer import split_words
from ..text.unknown_words import describe_unknown_words
from .encode import embed_texts
from .indexing import IndexOptions, finish

if TYPE_CHECKING:
    from ..linker import Linker

BLOCK = 2048  # texts embedded and written at once; lost if the process is killed
TRAINING_DATA = "training data"  # the source of the texts if none is given
STDIN = "-"
FILES = (*TABLES, ".json", ".txt")

Sourced = tuple[str, tuple[str, ...]]  # a text, and the sources that contain one with its words


@dataclass
class _Texts:
    """The texts of the given sources, by a digest of their words, and the number of duplicates.

    Digests need less memory than words.
    """

    found: dict[bytes, Sourced] = field(default_factory=dict)
    duplicates: int = 0


@dataclass
class _Change:
    """The changes of a run: rows to keep, new sources of some of them, and texts to embed.

    removed: number of rows to remove.
    """

    kept: list[int] = field(default_factory=list)
    sources: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    new: list[Sourced] = field(default_factory=list)
    removed: int = 0


def index_texts(path: Path, sources: Sequence[str], output: Path, options: IndexOptions) -> None:
    """Create the index of texts `output`, or update it with the texts of the sources.

    path: a run, a checkpoint or a repository on the hub. sources: files in a format of
    `read_sentences`, data sets (only their train splits are read), or "-" for lines of standard
    input; an empty sequence reads the train split that the checkpoint was trained on. Texts with
    the same words share one row, whose line names their sources. A text is removed when none of its
    sources contains it any longer; only the sources passed in this call are checked, and texts from
    standard input are never removed. Unknown words and their counts are printed to standard error.
    Texts without known words have no row and are listed in skipped.jsonl; after the last text, an
    InputError reports their number.
    """
    from ..linker import Linker

    local = hub.local(path)
    given = list(dict.fromkeys(map(_name, sources))) or [TRAINING_DATA]
    texts = _read(given, local, options)
    linker = Linker.from_pretrained(local, options.device)
    name = hub.name_of(path)
    about = (name, checkpoint.identity(local), linker.model.dimensions, "texts")
    with open_writer(output, *about) as writer:
        change = _compare(writer, texts, given)
        writer.keep(change.kept, change.sources)
        skipped = _append(writer, linker, change.new, options.batch_size)
        count = finish(writer, skipped, options)
    added = len(change.new) - len(skipped)
    print(
        f"index: {output}, {count:,} texts: {added:,} embedded, {len(change.kept):,} unchanged, "
        f"{change.removed:,} removed"
    )
    if texts.duplicates:
        print(f"duplicates: {texts.duplicates:,}, with the same words as an earlier text")
    if note := describe_unknown_words(linker.texts.unknown_words, [text for text, _ in change.new]):
        console.note(note)
    if skipped:
        raise InputError(
            f"{len(skipped):,} of {len(change.new):,} texts could not be indexed, because they "
            f"have no known words; see the list in {output / SKIPPED}"
        )


def _name(source: str) -> str:
    """Return the name under which the index stores a source; paths are absolute."""
    place = storage.parse_location(source)
    return source if source == STDIN or isinstance(place, Location) else os.path.abspath(source)


def _read(sources: Sequence[str], path: Path, options: IndexOptions) -> _Texts:
    texts = _Texts()
    for source in sources:
        only = (source,)
        for raw in _read_source(source, path, options):
            if not (text := " ".join(raw.split())):
                continue
            key = _key(text)
            first, others = texts.found.get(key, (text, ()))
            texts.duplicates += bool(others)
            if source not in others:
                texts.found[key] = (first, others + only if others else only)
    if not texts.found:
        raise InputError("the sources contain no texts; pass caption files or a data set")
    return texts


def _key(text: str) -> bytes:
    """Return a digest of the words of a text, or of the text if it has no words."""
    words = "\n".join(split_words(text)) or f"\n{text}"
    return hashlib.blake2b(words.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _read_source(source: str, path: Path, options: IndexOptions) -> list[str]:
    """Return the texts of a source, in order; those of its train split if it is a data set."""
    if source == STDIN:
        return split_sentences(sys.stdin.buffer.read(), "standard input")
    if source == TRAINING_DATA:
        _, config = checkpoint.inspect(path)
        place, format = data_source(config, None, None, "pass its new location after --texts")
        on_error = config["data"].get("on_error", "stop")
        data = load_data(place, format, options.cache, on_error)
    else:
        place = storage.parse_location(source)
        if isinstance(place, Path) and place.suffix.lower() in FILES and not place.is_dir():
            if not place.is_file():
                raise InputError(f"{source} does not exist or is not a file; check the path")
            return [text for text, _ in read_sentences(place)]
        data = read_captions(place, on_error="skip")
        for line in problem_lines(data.problems):
            print(f"skipped: {line}", file=sys.stderr)
    return [text for example in data.split("train") for text in example.captions]


def _compare(writer: IndexWriter, texts: _Texts, given: Sequence[str]) -> _Change:
    """Determine the changes that bring the index up to date with the texts of the sources."""
    change, known = _Change(), set()
    read_again = set(given) - {STDIN}

    def update(key: bytes, old: Sequence[str]) -> tuple[str, ...]:
        _, now = texts.found.get(key, ("", ()))
        left = [source for source in old if source not in read_again or source in now]
        return (*left, *(source for source in now if source not in old))

    for row, entry in enumerate(writer.entries()):
        key, old = _key(entry["text"]), _sources(entry)
        if sources := update(key, old):
            change.kept.append(row)
            known.add(key)
            if sources != old:
                change.sources[row] = {"sources": sources}
        else:
            change.removed += 1
    new = {}
    for entry in writer.recovered:
        key = _key(entry["text"])
        if key not in known and (sources := update(key, _sources(entry))):
            new[key] = (entry["text"], sources)
    for key, text in texts.found.items():
        if key not in known:
            new.setdefault(key, text)
    change.new = list(new.values())
    return change


def _sources(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the sources of a line; a line that names none counts as one of standard input."""
    sources = entry.get("sources")
    return tuple(map(str, sources)) if sources and isinstance(sources, list) else (STDIN,)


def _append(
    writer: IndexWriter, linker: "Linker", texts: Sequence[Sourced], batch_size: int
) -> list[dict[str, Any]]:
    """Embed and write the texts; return a record for each text without a row."""
    skipped: list[dict[str, Any]] = []
    with progress_bar(total=len(texts), unit="text") as bar:
        for block in _blocks(texts):
            rows, entries = [], []
            found = embed_texts(linker, [text for text, _ in block], batch_size)
            for (text, sources), row in zip(block, found, strict=True):
                if isinstance(row, InputError):
                    skipped.append({"text": text, "error": str(row)})
                    bar.write(str(row), file=sys.stderr)
                else:
                    rows.append(row)
                    entries.append({"text": text, "sources": sources})
            size = (len(rows), linker.model.dimensions)
            writer.append(np.array(rows, np.float32).reshape(size), entries)
            bar.update(len(block))
    return skipped


def _blocks(texts: Sequence[Sourced]) -> Iterator[Sequence[Sourced]]:
    for first in range(0, len(texts), BLOCK):
        yield texts[first : first + BLOCK]
