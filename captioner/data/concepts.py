"""Annotations of concepts in MIRFlickr's layout: one text file of image numbers per concept.

annotations/dog.txt     the numbers of images that show a dog, one per line
annotations/dog_r1.txt  the numbers of the images in which a dog is prominent
im1.jpg, im2.jpg, ...   the images
"""

import re
from pathlib import Path

from ..errors import InputError
from .dataset import Example

_IMAGE = re.compile(r"im(\d+)", re.IGNORECASE)
NOT_CONCEPTS = ("readme", "license")


def read_concepts(directory: Path) -> dict[str, set[int]]:
    """Return the image numbers of each concept, which is named after its file without extension.

    A file whose name ends in _r1 is a separate concept; files whose names begin with readme or
    license are ignored. Raises InputError if there are no other .txt files, if one cannot be read,
    and for a line that is not a number.
    """
    files = sorted(directory.glob("*.txt")) if directory.is_dir() else []
    files = [file for file in files if not file.stem.lower().startswith(NOT_CONCEPTS)]
    if not files:
        raise InputError(
            f"{directory} contains no concepts; pass a directory of files such as dog.txt that "
            "list image numbers"
        )
    return {file.stem: _read_numbers(file) for file in files}


def _read_numbers(file: Path) -> set[int]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise InputError(
            f"concept file {file} cannot be read: {reason}; replace or remove it"
        ) from error
    numbers = set()
    for number, line in enumerate(lines, start=1):
        if line.strip():
            if not (line.strip().isascii() and line.strip().isdecimal()):
                raise InputError(
                    f"{file}, line {number}: {line!r:.40} is not an image number; correct it"
                )
            numbers.add(int(line))
    return numbers


def image_number(example: Example) -> int | None:
    """Return N for an image named imN with any extension; None for any other name."""
    match = _IMAGE.fullmatch(Path(str(example.path)).stem)
    return int(match[1]) if match else None
