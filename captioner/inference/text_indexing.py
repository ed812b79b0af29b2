"""`captioner index --texts`: embed texts, and add them to an index or remove them from it.

Shapes: n texts, E dimensions.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from ..checkpoints import checkpoint, hub
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
from .indexing import IndexOptions

if TYPE_CHECKING:
    from ..linker import Linker

BLOCK = 2048  # texts embedded and written at once; lost if the process is killed
TRAINING_DATA = "training data"  # the source of the texts if none is given
STDIN = "-"
FILES = (*TABLES, ".json", ".txt")

Key = tuple[str, ...] | str  # the words of a text; the text itself if it has none


@dataclass
class _Texts:
    """The texts of the given sources: text and source by key, and how many have an equal one."""

    found: dict[Key, tuple[str, str]] = field(default_factory=dict)
    duplicates: int = 0


def index_texts(path: Path, sources: Sequence[str], output: Path, options: IndexOptions) -> None:
    """Add the texts of the sources to the index of texts `output`, or create it.

    path: the checkpoint, or a repository on the hub. sources: files in a format of
    `read_sentences`, data sets, whose train split is read, or "-" for lines of standard input; an
    empty sequence reads the train split that the checkpoint was trained on. Texts with the same
    words have one row. Texts of a source that no longer contains them are removed if the source is
    given again. Unknown words are counted on standard error. Texts without a known word have no
    row and are listed in skipped.jsonl; after the last text, an InputError reports their number.
    """
    from ..linker import Linker

    local = hub.local(path)
    given = list(dict.fromkeys(map(_name, sources))) or [TRAINING_DATA]
    texts = _read(given, local, options)
    linker = Linker.from_pretrained(local, options.device)
    name = str(path.resolve()) if path.exists() else str(path)
    about = (name, checkpoint.identity(local), linker.model.dimensions, "texts")
    with open_writer(output, *about) as writer:
        kept, new, removed = _compare(writer, texts, given)
        writer.keep(kept)
        skipped = _append(writer, linker, new, options.batch_size)
        count = writer.finish(skipped)
    added = len(new) - len(skipped)
    print(
        f"index: {output}, {count:,} texts: {added:,} embedded, {len(kept):,} unchanged, "
        f"{removed:,} removed"
    )
    if texts.duplicates:
        print(f"duplicates: {texts.duplicates:,} texts have the same words as another")
    if note := describe_unknown_words(linker.texts.unknown_words, [text for text, _ in new]):
        print(note, file=sys.stderr)
    if skipped:
        raise InputError(
            f"{len(skipped):,} of {len(new):,} texts could not be indexed, because they have no "
            f"known word; they are listed in {output / SKIPPED}"
        )


def _name(source: str) -> str:
    """Return the name under which the index stores a source; paths are absolute."""
    place = storage.parse_location(source)
    return source if source == STDIN or isinstance(place, Location) else os.path.abspath(source)


def _read(sources: Sequence[str], path: Path, options: IndexOptions) -> _Texts:
    texts = _Texts()
    for source in sources:
        for raw in _read_source(source, path, options):
            text = " ".join(raw.split())
            key = _key(text)
            if key in texts.found:
                texts.duplicates += 1
            elif text:
                texts.found[key] = (text, source)
    if not texts.found:
        raise InputError("the sources contain no texts; pass caption files or a data set")
    return texts


def _key(text: str) -> Key:
    return tuple(split_words(text)) or text


def _read_source(source: str, path: Path, options: IndexOptions) -> list[str]:
    """Return the texts of a source, in order."""
    if source == STDIN:
        return split_sentences(sys.stdin.buffer.read(), "standard input")
    if source == TRAINING_DATA:
        _, config = checkpoint.inspect(path)
        place, format = data_source(config, None, None, "name its new location after --texts")
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


def _compare(
    writer: IndexWriter, texts: _Texts, given: Sequence[str]
) -> tuple[list[int], list[tuple[str, str]], int]:
    """Return the rows to keep, the new texts with their sources, and the number of rows removed."""
    kept, known, removed = [], set(), 0
    read_again = set(given) - {STDIN}
    for row, entry in enumerate(writer.entries()):
        key = _key(entry["text"])
        if key in texts.found or entry.get("source") not in read_again:
            kept.append(row)
            known.add(key)
        else:
            removed += 1
    lost = {
        _key(entry["text"]): (entry["text"], str(entry.get("source")))
        for entry in writer.recovered
        if entry.get("source") not in read_again
    }
    new = [pair for key, pair in (lost | texts.found).items() if key not in known]
    return kept, new, removed


def _append(
    writer: IndexWriter, linker: "Linker", texts: Sequence[tuple[str, str]], batch_size: int
) -> list[dict[str, Any]]:
    """Embed and write the texts; return a record for each text without a row."""
    skipped: list[dict[str, Any]] = []
    with tqdm(total=len(texts), unit="text", leave=False, disable=None) as bar:
        for block in _blocks(texts):
            rows, entries = [], []
            found = embed_texts(linker, [text for text, _ in block], batch_size)
            for (text, source), row in zip(block, found, strict=True):
                if isinstance(row, InputError):
                    skipped.append({"text": text, "error": str(row)})
                    bar.write(str(row), file=sys.stderr)
                else:
                    rows.append(row)
                    entries.append({"text": text, "source": source})
            size = (len(rows), linker.model.dimensions)
            writer.append(np.array(rows, np.float32).reshape(size), entries)
            bar.update(len(block))
    return skipped


def _blocks(texts: Sequence[tuple[str, str]]) -> Iterator[Sequence[tuple[str, str]]]:
    for first in range(0, len(texts), BLOCK):
        yield texts[first : first + BLOCK]
