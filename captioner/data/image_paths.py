"""Which images are meant: files, directories, globs and lists become a list of paths, and its parts.

No image is opened here.
"""

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePath
from typing import NoReturn

from ..errors import InputError
from .formats.reading import IMAGE_SUFFIXES


def find_images(sources: Iterable[str], listed: Iterable[bytes] = ()) -> list[str]:
    """The paths that the sources name, in their order, each once.

    A source is a directory, for the files in it and below it that end as images do, sorted; a glob,
    for such files again; "-", for the paths in `listed`, one a line; or a file, whatever its name,
    which need not be there. Hidden files are passed over where they are not named. Raises
    InputError for a directory or a glob without images, and OSError for what cannot be looked into.
    """
    return list(dict.fromkeys(path for each in sources for path in _expand(each, listed)))


def part_of(images: Sequence[str], shard: str) -> Sequence[str]:
    """Part i of n, "i/n", of the images: from the i-th on every n-th.

    The n parts share no image, hold them all, and differ by one image in length at most.
    """
    first, _, step = shard.partition("/")
    if not (first.isdecimal() and step.isdecimal() and 1 <= int(first) <= int(step)):
        raise InputError(f"shard must be i/n with i from 1 to n, like 2/8, got {shard!r}")
    return images[int(first) - 1 :: int(step)]


def unique_names(images: Sequence[str]) -> dict[str, str]:
    """For each path a name without directory and ending that no other path has.

    It is the file's own, and where several have that, it is followed by the image's number.
    """
    stems = [PurePath(image).stem for image in images]
    often = Counter(stems)
    taken = {stem for stem in stems if often[stem] == 1}
    names = {}
    for number, (image, stem) in enumerate(zip(images, stems, strict=True)):
        name = stem
        if often[stem] > 1:
            name += f"-{number}"
            while name in taken:  # another image has that for its own
                name += "-"
            taken.add(name)
        names[image] = name
    return names


def _expand(source: str, listed: Iterable[bytes]) -> Iterator[str]:
    if source == "-":
        lines = (os.fsdecode(line).rstrip("\r\n") for line in listed)
        yield from (line for line in lines if line)
        return
    found: Iterable[str]
    if os.path.isdir(source):
        found = _walk(source)
    elif glob.has_magic(source) and not os.path.lexists(source):
        found = sorted(glob.glob(source, recursive=True))
    else:
        yield source
        return
    count = 0
    for path in found:
        if _is_image(path):
            count += 1
            yield path
    if not count:
        endings = " ".join(sorted(IMAGE_SUFFIXES))
        raise InputError(f"no image is found by {source!r}; images end in {endings}")


def _walk(directory: str) -> Iterator[str]:
    """All files below a directory: its own, then those of its directories, each sorted."""

    def stop(error: OSError) -> NoReturn:
        raise error

    for place, directories, files in os.walk(directory, onerror=stop):
        directories[:] = sorted(name for name in directories if not name.startswith("."))
        yield from (os.path.join(place, name) for name in sorted(files) if name[0] != ".")


def _is_image(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES and not os.path.isdir(path)
