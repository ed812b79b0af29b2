"""`captioner encode`: embeddings of images or texts, one row each.

The rows are written to a .npy file as float32. A .txt file with the same stem contains one line per
row: the path of the image, or the text.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeAlias

import numpy as np

from .. import console
from ..atomic_io import atomic_file
from ..console import progress_bar
from ..data.caption_files import TABLES, read_sentences, split_sentences
from ..data.image_paths import find_images
from ..data.readers import ON_ERROR
from ..errors import InputError
from ..options import Options, check_at_least, option
from ..prefetch import WORKERS
from ..text.unknown_words import describe_unknown_words

if TYPE_CHECKING:
    from ..linker import Linker

Row: TypeAlias = "np.ndarray | InputError"  # (E,), or why there is none
TEXT_FILES = (*TABLES, ".json", ".txt")


@dataclass(frozen=True)
class EncodeOptions(Options):
    """Options of `captioner encode`: unusable inputs, batch size, workers and device."""

    on_error: str = option(
        "skip",
        "unreadable images and texts without known words: skip and report, or stop",
        choices=ON_ERROR,
    )
    batch_size: int = option(64, "number of images or texts per batch")
    workers: int = option(WORKERS, "number of threads that prefetch images")
    device: str | None = option(None, "cpu, cuda, cuda:N or mps [cuda if available]")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "batch_size")
        check_at_least(self, 0, "workers")


@dataclass(frozen=True)
class _Job:
    """The output files of one command, the unit of its inputs, and the policy for errors."""

    output: Path
    names: Path
    unit: str
    on_error: str


def encode_images(
    checkpoint: Path, sources: Sequence[str], output: Path, options: EncodeOptions
) -> None:
    """Write the embeddings of the images found in the sources, in order and without duplicates.

    sources: as in `find_images`; "-" reads paths from standard input. With on_error="skip",
    images that cannot be read have no row, and an InputError reports their number after the last
    image; with "stop", or if no image can be read, an InputError is raised and nothing is written.
    Except for the list of paths, memory use does not depend on the number of images.
    """
    images = find_images(sources, sys.stdin.buffer if "-" in sources else ())
    for image in images:
        if "\n" in image or "\r" in image:
            raise InputError(
                f"{image!r} cannot be listed: its path contains a line break; rename it"
            )
    names = _check_output(output, sources)
    linker = _load(checkpoint, options)
    rows = linker.stream_images(
        images, batch_size=options.batch_size, workers=options.workers, on_error="yield"
    )
    job = _Job(output, names, "image", options.on_error)
    _check_failures(_write(job, images, rows, linker.model.dimensions), images, "image")


def encode_texts(
    checkpoint: Path, sources: Sequence[str], output: Path, options: EncodeOptions
) -> None:
    """Write the embeddings of texts, in order.

    sources: texts, files in a format of `read_sentences`, or "-" for lines of standard input.
    Unknown words and their counts are printed to standard error. Texts without known words are
    treated like unreadable images in `encode_images`.
    """
    texts = [text for source in sources for text in _read_texts(source)]
    if not texts:
        raise InputError("standard input contains no texts; write one per line")
    names = _check_output(output, sources)
    linker = _load(checkpoint, options)
    job = _Job(output, names, "text", options.on_error)
    rows = embed_texts(linker, texts, options.batch_size)
    failures = _write(job, texts, rows, linker.model.dimensions)
    if note := describe_unknown_words(linker.texts.unknown_words, texts):
        console.note(note)
    _check_failures(failures, texts, "text")


def _read_texts(source: str) -> list[str]:
    """Return the texts of a file or of standard input ("-"), or `source` itself as a text.

    Line breaks and other white space in a text become single spaces.
    """
    path = Path(source)
    if source == "-":
        texts = split_sentences(sys.stdin.buffer.read(), "standard input")
    elif path.is_file():
        texts = [text for text, _ in read_sentences(path)]
    elif path.suffix.lower() in TEXT_FILES and len(source.split()) == 1:
        raise InputError(f"{path} does not exist or is not a file; check the path")
    else:
        texts = [source]
    return [" ".join(text.split()) for text in texts]


def _check_output(output: Path, sources: Sequence[str]) -> Path:
    """Return the path of the list of rows; raise InputError if the output is unusable."""
    if output.suffix.lower() != ".npy":
        raise InputError(f"--output must be a .npy file, got {output}")
    if output.is_dir():
        raise InputError(f"--output {output} is a directory; choose the name of a .npy file")
    names = output.with_suffix(".txt")
    for path in (output, names):
        if path.exists() and any(os.path.exists(s) and path.samefile(s) for s in sources):
            raise InputError(
                f"{path} is an input and would be overwritten; choose another --output"
            )
    if names.exists() and not output.exists():
        raise InputError(
            f"{names} already exists and would be overwritten by the list of rows; choose another "
            "--output"
        )
    return names


def _load(checkpoint: Path, options: EncodeOptions) -> "Linker":
    from ..linker import Linker

    return Linker.from_pretrained(checkpoint, options.device)


def embed_texts(linker: "Linker", texts: Sequence[str], batch_size: int) -> Iterator[Row]:
    """Yield the row (E,) of each text in order, or an InputError for a text without known words."""
    for first in range(0, len(texts), batch_size):
        block = texts[first : first + batch_size]
        for text, row in zip(block, linker.embed(linker.texts.read(block)), strict=True):
            if linker.texts.knows(text):
                yield row
            else:
                yield InputError(f"a text must contain at least one known word, got {text!r}")


def _write(job: _Job, names: Sequence[str], rows: Iterable[Row], dimensions: int) -> int:
    """Write the rows and the list of their names; return the number of names without a row."""
    written = 0
    with (
        atomic_file(job.output) as array,  # replaced last
        atomic_file(job.names) as lines,
        progress_bar(total=len(names), unit=job.unit) as bar,
    ):
        _write_header(array, len(names), dimensions)
        for name, row in zip(names, rows, strict=True):
            bar.update()
            if not isinstance(row, InputError):
                array.write(row.astype("<f4").tobytes())
                lines.write(os.fsencode(name) + b"\n")
                written += 1
            elif job.on_error == "stop":
                raise row
            else:
                bar.write(str(row), file=sys.stderr)
        if not written:
            raise InputError(
                f"nothing was written: no {job.unit} could be encoded; see the errors above"
            )
        array.seek(0)
        _write_header(array, written, dimensions)
    print(f"embeddings: {job.output}, {written:,} rows of {dimensions} values")
    print(f"{job.unit}s: {job.names}")
    return len(names) - written


def _check_failures(failures: int, names: Sequence[str], unit: str) -> None:
    if failures:
        raise InputError(
            f"{failures:,} of {len(names):,} {unit}s could not be encoded; see the errors above"
        )


def _write_header(file: IO[bytes], rows: int, dimensions: int) -> None:
    """Write the header of a .npy file; its length is 128 bytes, whatever the shape."""
    shape = (rows, dimensions)
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
