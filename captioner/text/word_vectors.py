"""Files of word vectors: GloVe and word2vec text, word2vec binary; each may be gzip-compressed.

Only the vectors of wanted words are kept, so that a file larger than memory can be read.
"""

import gzip
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from ..errors import InputError
from ..git_lfs import refuse_pointer_file
from .options import WEIGHTED

SUFFIXES = (".txt", ".vec", ".bin")  # also before .gz
CHUNK = 2**20  # bytes read at once; no word is longer
MAX_SIZE = 2**16  # numbers of a vector


def is_vector_file(path: Path) -> bool:
    """Return whether the name ends in one of SUFFIXES, optionally followed by .gz."""
    return _suffix(path) in SUFFIXES


def split_weighting(source: str) -> tuple[Path, bool]:
    """Split a source such as "vectors.txt-tf-idf" into its path and whether words are weighted."""
    return Path(source.removesuffix(WEIGHTED)), source.endswith(WEIGHTED)


def _suffix(path: Path) -> str:
    return (path.with_suffix("") if path.suffix == ".gz" else path).suffix


def read_vectors(path: Path, wanted: set[str]) -> dict[str, np.ndarray]:
    """Return the vectors (Y,), float32, of those `wanted` words that a file contains.

    A file with the extension .bin or .bin.gz is read as binary, any other file as text. Raises
    InputError if it cannot be read or has a different format.
    """
    read = _read_binary if _suffix(path) == ".bin" else _read_text
    refuse_pointer_file(path)
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return dict(read(path, cast(BinaryIO, file), wanted))
    except (OSError, EOFError, zlib.error) as error:
        problem = getattr(error, "strerror", None)
        reason = f"{problem}; check the path" if problem else f"{error}; copy or download it again"
        raise InputError(f"word vectors {path} cannot be read: {reason}") from error


def _read_text(path: Path, file: BinaryIO, wanted: set[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield wanted words and vectors; each line is a word and its values, separated by spaces."""
    size = 0
    for number, line in enumerate(file, start=1):
        fields = line.decode("utf-8", "replace").rstrip(" \r\n").split(" ")
        if number == 1 and len(fields) == 2:  # word2vec's header: words and dimensions
            continue
        size = size or len(fields) - 1
        # A few GloVe words contain spaces, so the numbers are the last fields.
        word = " ".join(fields[:-size]) if 1 < size < len(fields) else ""
        vector = _parse_numbers(fields[-size:]) if word in wanted else None
        if not word or (vector is None and word in wanted):
            raise InputError(
                f"{path}, line {number}: expected a word and its vector of finite numbers; choose "
                "a GloVe or word2vec text file"
            )
        if vector is not None:
            yield word, vector


def _parse_numbers(fields: Sequence[str]) -> np.ndarray | None:
    """Parse the fields as float32; return None if any of them is not a finite number."""
    try:
        numbers = np.array(fields, dtype=np.float32)
    except ValueError:
        return None
    return numbers if np.isfinite(numbers).all() else None


def _read_binary(path: Path, file: BinaryIO, wanted: set[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield wanted words and vectors; an entry is a word, a space and float32 values.

    The header states the number of entries and the number of values of each.
    word2vec itself ends every vector with a line break; gensim does not.
    """
    header = file.readline(CHUNK).split()
    if len(header) != 2 or not all(field.isdigit() for field in header):
        raise InputError(
            f"{path} is not a word2vec binary file: its header is not two numbers; choose a "
            "binary file, or give a text file the extension .txt"
        )
    count, size = map(int, header)
    if not 1 <= size <= MAX_SIZE:
        raise InputError(
            f"{path} is not a word2vec binary file: its header specifies {size:,} numbers per "
            f"vector, not 1 to {MAX_SIZE:,}; choose another file"
        )
    data, start = b"", 0
    for number in range(1, count + 1):
        space = data.find(b" ", start)
        while space < 0 or len(data) <= space + 4 * size:
            more = file.read(CHUNK)
            if not more or (space < 0 and len(data) - start > CHUNK):
                raise InputError(
                    f"{path} is incomplete or damaged: vector {number} of {count} is missing; copy "
                    "or download it again"
                )
            data, start = data[start:] + more, 0
            space = data.find(b" ")
        word = data[start:space].lstrip(b"\n").decode("utf-8", "replace")
        start = space + 1 + 4 * size
        if word in wanted:
            vector = np.frombuffer(data, "<f4", size, space + 1).astype(np.float32)
            if not np.isfinite(vector).all():
                raise InputError(
                    f"{path} is damaged: the vector of {word!r} is not finite; copy or download it "
                    "again"
                )
            yield word, vector
